"""What a checkpoint keeps of training, and how training goes on from it.

What the user gives now wins over what the checkpoint was trained with; everything else goes on bit for bit.
"""

import warnings
from typing import Any

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from gans.training.checkpoints import is_named, is_plain, name_of
from gans.training.loading import Loadable
from gans.training.players import Players
from gans.training.randomness import seed_from, seed_of_user
from gans.training.validation import Validated

NOTHING = "nothing that can be kept"

# Lightning would say at every start that this hook is the module's, although the data has others.
warnings.filterwarnings("ignore", ".*have overridden `on_before_batch_transfer` in `LightningModule`.*")


class Resumable(Loadable, Players, Validated):
    """What of a GANModule goes into checkpoints, and goes on from there."""

    images_seen: int
    """Images that training has taken so far, on all ranks."""
    critic_updates: int
    """Updates of the discriminator so far."""
    shared_state: dict[str, Any]
    """What a paper remembers beside weights and is the same on all ranks: numbers, or tensors of a fixed shape."""
    rank_state: dict[str, Tensor]
    """What it remembers on this rank: tensors (n, ...) of n things, which other numbers of ranks can divide."""

    def __init__(self) -> None:
        super().__init__()
        self.images_seen, self.critic_updates = 0, 0
        self.shared_state, self.rank_state = {}, {}
        self._seed = 0
        self._critic_run = 0  # updates of the discriminator since the generator's last
        self._critic_done = False  # whether they suffice, and the generator is next
        self._waiting: list[Any] = []  # batches seen since the last update, while gradients accumulate
        self._resumed: dict[str, Any] | None = None  # a checkpoint's part that training goes on with

    def restored(self) -> None:
        """Called when ``images_seen`` and ``shared_state`` are those of a checkpoint, to sample or to train."""

    # Random numbers

    def on_train_epoch_start(self) -> None:
        self.seed_by_place()

    def on_train_end(self) -> None:
        self.seed_by_place()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Called before a batch is augmented, scaled and trained on."""
        if self._trainer is not None and self.trainer.training:
            self.seed_by_place()
        return batch

    def seed_by_place(self) -> None:
        """Let what is drawn next follow from the seed, the rank, the ranks and the images seen, and nothing before.

        So checkpoints keep no state of generators, and whoever draws pictures in between need not put any back.
        """
        seed_from(self.device, self._seed, self.global_rank, self.trainer.world_size, self.images_seen)

    def on_predict_start(self) -> None:
        given = seed_of_user()
        self._seed = self.trainer.strategy.broadcast(torch.initial_seed()) if given is None else given

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        seed_from(self.device, self._seed, self.predict_place(batch))

    def predict_place(self, batch: Any) -> int:
        """A number that the random numbers of a batch to predict follow from, whichever rank makes it, and when."""
        loop = self.trainer.predict_loop.batch_progress.current
        return loop.ready * self.trainer.world_size + self.global_rank

    # Before and after training

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        if self._only_samples:
            raise MisconfigurationException(
                f"This {type(self).__name__} was loaded to sample: load it with load_to_train to train it further"
            )
        if self.averaged_generator is not None and not self._averaging:
            self.averaged_generator = None
            rank_zero_info("Nothing keeps the averaged generator up to date in this training, so it is dropped.")
        self.validation_due, self.validated = False, False
        if not self.training:  # as somebody left it who sampled from it
            self.train()

    def teardown(self, stage: str) -> None:
        if stage == "fit":
            self._averaging = self.validates_last = False

    def on_fit_start(self) -> None:
        for name, value in self.shared_state.items():
            if _kind(value) == NOTHING:
                raise MisconfigurationException(
                    f"{type(self).__name__}.shared_state keeps {name} of type {type(value).__name__}, which no "
                    "checkpoint can give back: keep tensors, numbers and strings, or lists and dictionaries of such"
                )
        self._take_seed()
        for kept in (self.shared_state, self.rank_state):
            kept.update(move_data_to_device(kept, self.device))
        if self._resumed is not None:
            self.restore_optimizers(self._resumed)
            self._finish_what_is_trained()
        self.validate_last()
        self.compare_optimizers(self._trained_with)
        self._trained_with = {}

    def _take_seed(self) -> None:
        """The user's seed or, where there is none, the checkpoint's or a new one, the same on all ranks."""
        given, then = seed_of_user(), (self._resumed or {}).get("seed")
        if given is None:
            self._seed = then if isinstance(then, int) else self.trainer.strategy.broadcast(torch.initial_seed())
        else:
            self._seed = given
        if isinstance(then, int) and then != self._seed:
            rank_zero_info(f"The seed was {then} in the checkpoint and is now {self._seed}: noise is drawn anew.")

    # Saving

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Plain tuples, because weights_only=True refuses the data's own tuple types.
        waiting = [tuple(batch) if isinstance(batch, tuple) else batch for batch in self._waiting]
        # Tensors of a device would come to the other ranks on the device that they were sent from.
        cpu = torch.device("cpu")
        mine = move_data_to_device({"memory": self.rank_state, "waiting": waiting}, cpu)
        ranks: list[Any] = [mine]
        if self.trainer.world_size > 1:
            ranks = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(ranks, mine)
        checkpoint["gan"] = {
            "class": name_of(type(self)),
            "critic_updates": self._critic_run,
            "critic_updates_in_all": self.critic_updates,
            "critic_done": self._critic_done,
            "validation_due": self.validation_due,
            "validated": self.validated,
            "seed": self._seed,
            "images_seen": self.images_seen,
            "state": move_data_to_device(self.shared_state, cpu),
            "parts": self._parts,
            "optimizers": self._built,
            "ranks": ranks,
        }

    # Loading

    def check_origin(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that a training of this module cannot go on from, by a MisconfigurationException."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get("gan", {})
        if not is_named(type(self), state.get("class")):
            raise MisconfigurationException(
                f"The checkpoint holds a {state.get('class', 'model of another program')}, but the model is a "
                f"{name_of(type(self))}: give the checkpoint of such a model, or the --model that wrote it."
            )
        fitting = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        _check(state)
        self._load_average(checkpoint["state_dict"], drop=fitting and not self._averaging)
        self._check_shapes(checkpoint["state_dict"])
        self.trained_steps = checkpoint["global_step"]
        self._restore(state)
        if fitting:
            self.check_origin(checkpoint)
            # Lightning gets none of these, because it would let them win over what was built now.
            kept = {key: checkpoint.get(key, []) for key in ("optimizer_states", "lr_schedulers")}
            checkpoint |= {key: [] for key in kept}
            self._resumed = state | kept | {"global_step": checkpoint["global_step"]}
            self._critic_run = state["critic_updates"]
            self.critic_updates = state.get("critic_updates_in_all", checkpoint["global_step"])  # older ones: about
            self._critic_done = state.get("critic_done", False)
            self.validation_due = state.get("validation_due", False)
            self.validated = state.get("validated", not self.validation_due)

    def _restore(self, state: dict[str, Any]) -> None:
        """Take up what is the same on all ranks: the values that there are here, of the types that they have here."""
        saved = {"images_seen": state.get("images_seen", 0), **(state.get("state") or {})}
        own = {"images_seen": self.images_seen, **self.shared_state}
        for name, value in own.items():
            there = saved.get(name, value)
            if _kind(there) != _kind(value):
                raise MisconfigurationException(
                    f"The checkpoint has {name}={str(there)[:60]} where {type(self).__name__} keeps {_kind(value)}: it "
                    "was changed or damaged; give another checkpoint"
                )
            own[name] = move_data_to_device(there, self.device)
        self.images_seen = own.pop("images_seen")
        self.shared_state.update(own)
        self.restored()

    def go_on(self) -> None:
        """Called when training starts: take up what the checkpoint has of this rank, and what was still to be done."""
        if self._resumed is None:
            return
        saved, self._resumed = self._resumed, None
        ranks, rank, world = saved["ranks"], self.global_rank, self.trainer.world_size
        mine = ranks[rank % len(ranks)]
        self._share([each["memory"] for each in ranks[rank::world] or [mine]])
        self._waiting = [self._taken_up(batch) for batch in mine.get("waiting", saved.get("waiting", []))]
        self._waiting = [b for b in self._waiting if tuple(self.real(b).shape[1:]) == tuple(self.image_shape)]
        if len(ranks) != world:
            rank_zero_info(
                f"The checkpoint is of {len(ranks)} devices and this run has {world}: what training remembers is dealt "
                "out among them, and each draws other noise than before."
            )
        self.make_up_validation()
        self.leave_finished_batch()

    def _share(self, states: list[dict[str, Tensor]]) -> None:
        """Take up the state of this rank or, of several where there are fewer ranks now, a thing of each in turn.

        Things of another shape, such as images of another size, are left.
        """
        for name, own in self.rank_state.items():
            found = [state[name] for state in states if name in state and state[name].shape[1:] == own.shape[1:]]
            turns = range(max(map(len, found), default=0))
            if len(found) > 1:
                found = [torch.stack([things[i] for i in turns for things in found if i < len(things)])]
            self.rank_state[name] = found[0].to(own) if found else own

    def _taken_up(self, batch: Any) -> Any:
        """A batch out of a checkpoint, on this device and in this run's precision."""
        return move_data_to_device(self.trainer.precision_plugin.convert_input(batch), self.device)

    def _finish_what_is_trained(self) -> None:
        """Let Lightning begin and end a training that has all its steps or epochs, which it otherwise skips.

        So what a run missed that was stopped after its last step, such as its last validation and pictures, is made up.
        """
        loop = self.trainer.fit_loop
        run = loop.run

        def run_to_the_end() -> None:
            del loop.run
            run()
            if self._resumed is not None:
                loop.on_run_start()
                loop.on_run_end()

        loop.run = run_to_the_end  # type: ignore[method-assign]


def _check(state: dict[str, Any]) -> None:
    """Raise MisconfigurationException if a checkpoint's part of training is not made as it was saved."""
    ranks = state.get("ranks")
    right = {
        "images_seen": _counts(state.get("images_seen", 0)),
        "critic_updates": _counts(state.get("critic_updates", 0)),
        "critic_updates_in_all": _counts(state.get("critic_updates_in_all", 0)),
        "critic_done": isinstance(state.get("critic_done", False), bool),
        "seed": state.get("seed") is None or _counts(state["seed"]),
        "state": isinstance(state.get("state", {}), dict),
        "ranks": isinstance(ranks, list) and bool(ranks) and all(map(_is_of_a_rank, ranks)),
    }
    for name, fits in right.items():
        if not fits:
            raise MisconfigurationException(
                f"The checkpoint's {name} is damaged: it was changed, or only a part of it is there; give another one"
            )


def _counts(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_of_a_rank(part: Any) -> bool:
    if not isinstance(part, dict) or not isinstance(part.get("memory"), dict):
        return False
    tensors = all(isinstance(things, Tensor) and things.ndim for things in part["memory"].values())
    return tensors and isinstance(part.get("waiting", []), list)


def _kind(value: Any) -> str:
    """What a value must be like to stand in another one's place."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return f"a {type(value).__name__}" if is_plain(value) else NOTHING
