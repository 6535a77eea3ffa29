"""What a checkpoint keeps of training, and how training goes on from it.

What the user gives now wins over what the checkpoint was trained with; everything else goes on bit for bit.
"""

import copy
import inspect
import math
import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any, Self

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.parsing import collect_init_args
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gans.training.checkpoints import (
    FACTORIES,
    PLAYERS,
    described,
    is_plain,
    name_of,
    parts_of,
    plain_arguments,
    read,
    rebuilt,
)


class Resumable(LightningModule):
    """What of an AdversarialModule has to do with checkpoints: loading to sample, loading to train, and resuming."""

    generator: nn.Module
    discriminator: nn.Module
    averaged_generator: nn.Module | None
    validates_last: bool
    """Whether somebody wants the last weights validated, however training ends; asked for in ``setup`` before a fit."""
    validation_due: bool
    """Whether a validation is to follow the last update, which a resumed run makes up before it trains."""
    validated: bool
    """Whether no update came after the last validation."""
    trained_steps: int
    """Generator updates behind the weights that were loaded; 0 for a new model."""

    def __init__(self) -> None:
        super().__init__()
        self.averaged_generator = None
        self.validates_last = self.validation_due = self.validated = False
        self.trained_steps = 0
        self._averaging = False  # whether somebody keeps the average up to date
        self._critic_updates = 0  # since the last generator update
        self._waiting: list[Any] = []  # batches seen since the last update, while gradients accumulate
        self._built: dict[str, Any] = {}  # by player, how its optimizer and schedule were when they were new
        self._resumed: dict[str, Any] | None = None  # a checkpoint's part that training goes on with
        self._loaded: dict[str, Any] = {}  # what load_from_checkpoint found that matters to training only
        self._rng_before_validation: dict[str, Any] | None = None

    # What a paper may write

    def memory(self) -> dict[str, Tensor]:
        """What training remembers on this device besides weights and buffers, to be kept in checkpoints."""
        return {}

    def remember(self, memories: list[dict[str, Tensor]]) -> None:
        """Take up what ``memory`` gave when training was stopped.

        Args:
            memories: What this device goes on with: its own, or that of several when there are fewer devices now.
        """

    # Settings

    def keep_settings(self) -> None:
        """Called in the constructor: note what its caller gave it, for checkpoints and for loading them."""
        self.save_hyperparameters()
        frame = inspect.currentframe()
        # The last is the call of the class itself; what it gives to its bases it will give them again.
        given = collect_init_args(frame, [], classes=(Resumable,))[-1]  # type: ignore[arg-type]
        # Checkpoints are read with weights_only=True, so they hold plain values and no Python objects.
        for name, value in list(self.hparams.items()):
            if not is_plain(value) or (name not in given and not name.startswith("_")):
                del self.hparams[name]
        self._parts = {
            name: described(value) for name, value in given.items() if name not in FACTORIES and not is_plain(value)
        }

    # Averaging

    def start_averaging(self) -> None:
        """Give the module an ``averaged_generator``, a copy of the generator as it is now, unless it has one.

        Whoever calls this keeps it up to date in the next training.
        """
        self._averaging = True
        self._copy_generator()

    def _copy_generator(self) -> None:
        if self.averaged_generator is None:
            self.averaged_generator = copy.deepcopy(self.generator).requires_grad_(False)

    # Before and after training

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        for name, part in self._loaded.get("missing", {}).items():
            raise MisconfigurationException(
                f"The model was trained with {name}={part}, which is none of the lab's and so was not built again: to "
                f"train it further, give {name}= to load_from_checkpoint."
            )
        if self.averaged_generator is not None and not self._averaging:
            self.averaged_generator = None
            rank_zero_info("Nothing keeps the averaged generator up to date in this training, so it is dropped.")
        self.validation_due, self.validated, self._rng_before_validation = False, False, None
        if not self.training:  # as load_from_checkpoint leaves it
            self.train()

    def teardown(self, stage: str) -> None:
        if stage == "fit":
            self._averaging = self.validates_last = False

    def on_fit_start(self) -> None:
        if self._resumed is not None:
            self._restore_optimizers(self._resumed)
            self._finish_what_is_trained()
        self._validate_last()
        self._compare_optimizers(self._loaded.get("optimizers", {}))
        self._loaded = {}

    # Saving

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        mine = {
            # A validation that was interrupted begins again, and so with the random numbers that it began with.
            "rng": self._rng_before_validation or _rng_state(self.device),
            "memory": self.memory(),
            # Plain tuples, because weights_only=True refuses the data's own tuple types.
            "waiting": [tuple(batch) if isinstance(batch, tuple) else batch for batch in self._waiting],
        }
        # Tensors of a device would come to the other ranks on the device that they were sent from.
        mine = move_data_to_device(mine, torch.device("cpu"))
        ranks: list[Any] = [mine]
        if self.trainer.world_size > 1:
            ranks = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(ranks, mine)
        checkpoint["gan"] = {
            "class": name_of(type(self)),
            "critic_updates": self._critic_updates,
            "validation_due": self.validation_due,
            "validated": self.validated,
            "seed": _seed(),
            "parts": self._parts,
            "optimizers": self._built,
            "ranks": ranks,
        }

    # Loading

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get("gan", {})
        if state.get("class") != name_of(type(self)):
            raise MisconfigurationException(
                f"The checkpoint holds a {state.get('class', 'model of another program')}, but the model is a "
                f"{name_of(type(self))}: give the checkpoint of such a model, or the --model that wrote it."
            )
        fitting = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        self._load_average(checkpoint["state_dict"], drop=fitting and not self._averaging)
        self._check_shapes(checkpoint["state_dict"])
        self.trained_steps = checkpoint["global_step"]
        if fitting:
            # Lightning gets none of these, because it would let them win over what was built now.
            kept = {key: checkpoint.get(key, []) for key in ("optimizer_states", "lr_schedulers")}
            checkpoint |= {key: [] for key in kept}
            self._resumed = state | kept | {"global_step": checkpoint["global_step"]}
            self._critic_updates = state["critic_updates"]
            self.validation_due = state.get("validation_due", False)
            self.validated = state.get("validated", not self.validation_due)

    def _load_average(self, weights: dict[str, Tensor], drop: bool) -> None:
        """Agree with a checkpoint's weights on whether there is an average."""
        average = "averaged_generator."
        saved = [key for key in weights if key.startswith(average)]
        if saved and drop:
            rank_zero_info("Nothing keeps the checkpoint's averaged generator up to date any more, so it is dropped.")
            for key in saved:
                del weights[key]
        elif saved:
            self._copy_generator()
        elif self.averaged_generator is not None:  # averaging begins with this run
            raw = {key: value for key, value in weights.items() if key.startswith("generator.")}
            weights |= {average + key.removeprefix("generator."): value for key, value in raw.items()}

    def _check_shapes(self, weights: dict[str, Tensor]) -> None:
        own = self.state_dict()
        for key in own | weights:
            here, there = (tuple(getattr(d[key], "shape", ())) if key in d else "missing" for d in (own, weights))
            if here != there:
                raise MisconfigurationException(
                    f"The checkpoint does not fit this {type(self).__name__}: {key} is {there} in the checkpoint and "
                    f"{here} in the model; give --model and --data the settings the checkpoint was trained with."
                )

    @classmethod
    def untrained(cls, checkpoint: dict[str, Any], **kwargs: Any) -> Self:
        """A new model with the settings that a loaded checkpoint keeps; ``kwargs`` replace them.

        Plain settings, and losses and penalties of the lab; those of other origin are left at the class's defaults.

        Raises:
            MisconfigurationException: A setting is of no type that the class takes, or out of range.
        """
        found = {name: part for name, part in parts_of(checkpoint).items() if name not in kwargs}
        built = {name: rebuilt(name, part) for name, part in found.items()}
        known = plain_arguments(cls, checkpoint) | {name: part for name, part in built.items() if part is not None}
        model = _made(f"No {cls.__name__} can be built with the checkpoint's settings", cls, **known | kwargs)
        model._loaded = {
            "missing": {name: found[name]["class_path"] for name, part in built.items() if part is None},
            "optimizers": {
                f"{player}_{kind}": record
                for player, records in _records(checkpoint["gan"]).items()
                for kind, record in records.items()
                if f"{player}_{kind}" not in kwargs
            },
        }
        return model

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, average: bool = True, map_location: Any = "cpu", **kwargs: Any
    ) -> Self:
        """Build the model a checkpoint was saved from and load its weights, ready for ``sample`` and for training.

        Nothing that the file names is imported or called: optimizers, schedulers and losses that are not the lab's are
        left at the class's defaults, unless passed here; before such a model is trained further, this is said.

        Args:
            checkpoint_path: A file written by the trainer.
            average: Sample from the averaged generator where the checkpoint holds one; ``False`` takes the raw one.
            map_location: Device for the weights.
            **kwargs: Constructor arguments that replace the saved ones.

        Raises:
            MisconfigurationException: There is no such file, or it holds another kind of model, weights of other shapes
                or settings that the class does not take.
        """
        checkpoint = read(checkpoint_path, map_location)
        model = cls.untrained(checkpoint, **kwargs)
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
        if not average:
            model.averaged_generator = None
        return model.to(map_location).eval()

    # Going on: optimizers

    def build_optimizer(self, player: str, make: Any, schedule: Any) -> tuple[Optimizer, list[LRScheduler]]:
        """A player's optimizer and, in a list, its schedule if there is one; their settings are noted.

        Raises:
            MisconfigurationException: They do not take the settings that they are given.
        """
        optimizer = _made(f"--model.{player}_optimizer", make, getattr(self, player).parameters())
        self._try_out(player, make, schedule)
        self._built[player] = {"optimizer": _settings_of(optimizer), "scheduler": None}
        if not schedule:
            return optimizer, []
        scheduler = _made(f"--model.{player}_scheduler", schedule, optimizer)
        self._built[player]["scheduler"] = _settings_of(scheduler)
        return optimizer, [scheduler]

    def _try_out(self, player: str, make: Any, schedule: Any) -> set[str]:
        """Take a few steps with a weight of zeros and no gradient, so that what cannot train is found before training.

        Returns:
            Names of the state that the optimizer keeps of a weight.

        Raises:
            MisconfigurationException: The optimizer cannot take a step, or the schedule cannot go so far.
        """
        of_optimizer, of_schedule = (f"--model.{player}_{kind}" for kind in ("optimizer", "scheduler"))
        first = next(getattr(self, player).parameters())
        weight = nn.Parameter(torch.zeros_like(first))
        weight.grad = torch.zeros_like(first)
        with torch.random.fork_rng([]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer = _made(of_optimizer, make, [weight])
            _made(f"{of_optimizer}={type(optimizer).__name__} cannot train a GAN, take another", optimizer.step)
            scheduler = _made(of_schedule, schedule, optimizer) if schedule else None
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                raise MisconfigurationException(
                    f"{of_schedule} cannot be ReduceLROnPlateau: a GAN's losses have no plateau to wait for; take a "
                    "schedule in steps, such as LinearLR."
                )
            if scheduler is not None:
                numbers = {
                    k: v for k, v in scheduler.state_dict().items() if isinstance(v, int | float) and k[0] != "_"
                }
                for name, value in numbers.items():
                    if not 0 <= value < math.inf:
                        raise MisconfigurationException(f"{of_schedule}.{name}={value:g} must be at least 0")
                zeros = [k for k, v in numbers.items() if type(v) is int and v == 0 and k != "last_epoch"]
                zero = "".join(f".{name}=0 must be at least 1" for name in zeros[:1])
                for _ in range(3):
                    _made(of_schedule + zero, scheduler.step)
                steps = -1 if self._trainer is None else self._trainer.max_steps
                if steps > 3:
                    scheduler.last_epoch = steps - 1
                    _made(f"{of_schedule} does not go as far as --trainer.max_steps={steps}", scheduler.step)
        return set(optimizer.state[weight])

    def _restore_optimizers(self, saved: dict[str, Any]) -> None:
        """Give optimizers and schedules their state back, as far as it fits what they are now."""
        before, states, schedules = _records(saved), saved["optimizer_states"], iter(saved["lr_schedulers"])
        if not before or len(self._built) != len(self.trainer.optimizers):
            # Nothing is known of their settings: as Lightning does it.
            self.trainer.strategy.load_optimizer_state_dict({"optimizer_states": states})
            for config, state in zip(self.trainer.lr_scheduler_configs, schedules, strict=False):
                config.scheduler.load_state_dict(state)
            return
        of_player = dict(zip(before, states, strict=False))
        of_schedule = {player: next(schedules, None) for player in before if before[player]["scheduler"] is not None}
        for player, optimizer in zip(self._built, self.trainer.optimizers, strict=True):
            schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
            scheduler = next((s for s in schedulers if getattr(s, "optimizer", None) is optimizer), None)
            state = of_player.get(player)
            now, then = self._built[player], before.get(player, {"optimizer": None, "scheduler": None})
            changes = self._changes(player, optimizer, state, then["optimizer"])
            fresh = optimizer.state_dict()["param_groups"]
            as_before = changes is not None and "lr" not in changes and now["scheduler"] == then["scheduler"]
            if state is not None and changes is not None:
                pairs = zip(state["param_groups"], fresh, strict=True)
                groups = [old | {key: new[key] for key in ("params", *changes)} for old, new in pairs]
                optimizer.load_state_dict(state | {"param_groups": groups if as_before else fresh})
            else:
                rank_zero_info(f"The {player}'s optimizer starts anew: the checkpoint has no state that fits it.")
            if changes:
                rank_zero_info(
                    f"The {player}'s optimizer was {_spelled(then['optimizer'])} in the checkpoint and is now "
                    f"{_spelled(now['optimizer'])}."
                )
            if as_before and scheduler is not None:
                scheduler.load_state_dict(of_schedule[player])
            elif scheduler is not None:
                _fast_forward(f"--model.{player}_scheduler", scheduler, saved["global_step"])
            if now["scheduler"] != then["scheduler"]:
                rank_zero_info(
                    f"The {player}'s schedule was {_spelled(then['scheduler'])} in the checkpoint and is now "
                    f"{_spelled(now['scheduler'])}, as if it had been so from the first step."
                )

    def _changes(self, player: str, optimizer: Optimizer, state: Any, then: Any) -> list[str] | None:
        """Hyperparameters that are others than in the checkpoint; none at all if its state does not fit."""
        now = self._built[player]["optimizer"]
        groups = optimizer.state_dict()["param_groups"]
        if (
            state is None
            or then["class"] != now["class"]
            or [len(g["params"]) for g in state["param_groups"]] != [len(g["params"]) for g in groups]
        ):
            return None
        pairs = list(zip(then["settings"], now["settings"], strict=True))
        changes = sorted({k for old, new in pairs for k in new if k not in old or old[k] != new[k]})
        if changes:
            # Some settings, such as momentum or amsgrad, need more state than there is: a step of another one tells.
            kept_now = self._try_out(player, self.optimizer_factories[PLAYERS.index(player)], None)
            if any(kept.keys() != kept_now for kept in state["state"].values()):
                return None
        return changes

    def _compare_optimizers(self, trained_with: dict[str, Any]) -> None:
        """Say when a loaded model is trained further in another way than before, without being told to."""
        for name, before in trained_with.items():
            player, _, kind = name.rpartition("_")
            now = self._built.get(player, {kind: before})[kind]
            if now != before:
                rank_zero_warn(
                    f"The loaded model's {player} was trained with {kind} {_spelled(before)} and goes on with "
                    f"{_spelled(now)}: give {name}= to load_from_checkpoint for the same or another one."
                )

    # Going on: what ranks remember, and random numbers

    def go_on(self) -> None:
        """Called when training starts: take up what the checkpoint has of this rank, and what was still to be done."""
        if self._resumed is None:
            return
        saved, self._resumed = self._resumed, None
        ranks, rank, world = saved["ranks"], self.global_rank, self.trainer.world_size
        mine = ranks[rank % len(ranks)]
        self.remember([each["memory"] for each in ranks[rank::world] or [mine]])
        self._waiting = [self._taken_up(batch) for batch in mine.get("waiting", saved.get("waiting", []))]
        self._waiting = [b for b in self._waiting if tuple(self.real(b).shape[1:]) == tuple(self.image_shape)]
        seed, step = _seed(), saved["global_step"]
        if len(ranks) != world:
            rank_zero_info(
                f"The checkpoint is of {len(ranks)} devices and this run has {world}: what training remembers is dealt "
                "out among them, and noise is drawn anew."
            )
            _seed_from(torch.initial_seed(), rank, step)
        elif seed is not None and seed != saved.get("seed", seed):
            rank_zero_info(f"The seed was {saved['seed']} in the checkpoint and is now {seed}: noise is drawn anew.")
            _seed_from(seed, rank, step)
        else:
            _set_rng_state(mine["rng"], self.device)
        self._make_up_validation()
        self._leave_finished_batch()

    def _taken_up(self, batch: Any) -> Any:
        """A batch out of a checkpoint, on this device and in this run's precision."""
        return move_data_to_device(self.trainer.precision_plugin.convert_input(batch), self.device)

    # Going on: validation

    def validates_after(self, updates: bool) -> None:
        """Decide whether Lightning validates after this batch; ``updates`` says whether the generator was updated.

        ``val_check_interval`` counts generator updates, where Lightning counts batches (over all epochs).
        """
        trainer, loop = self.trainer, self.trainer.fit_loop
        if self._validates_in_steps():
            due = updates and trainer.global_step % trainer.val_check_interval == 0
            trainer.val_check_batch = 1 if due else sys.maxsize
        else:
            due = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
        last = updates and trainer.global_step == trainer.max_steps and self.validates_last
        self.validated = self.validated and not updates
        self.validation_due = (due or last) and trainer.enable_validation

    def _validates_in_steps(self) -> bool:
        trainer = self.trainer
        every = getattr(trainer, "val_check_interval", None)  # which Lightning leaves out where it is a time
        return trainer.check_val_every_n_epoch is None and isinstance(every, int)

    def _make_up_validation(self) -> None:
        """Run a validation that the checkpoint was written before or during, all of it.

        It must neither come again nor go on from the middle.
        """
        if self._validates_in_steps():
            self.trainer.val_check_batch = sys.maxsize
        if self.validation_due:
            self._validate()

    def _validate(self) -> None:
        """Validate as Lightning does in training."""
        trainer, loop = self.trainer, self.trainer.fit_loop.epoch_loop.val_loop
        if not trainer.enable_validation:
            self.validation_due = False
            return
        loop.restarting = False
        loop.reset_restart_stage()
        first = trainer._logger_connector._first_loop_iter
        trainer.validating = True
        self.on_validation_model_zero_grad()
        loop.run()
        trainer.training = True
        trainer._logger_connector._first_loop_iter = first

    def _leave_finished_batch(self) -> None:
        """Let Lightning go on with the next batch, or epoch, when the last one with its validation is over.

        It would look for that validation again, and at the end of an epoch train on a batch more if it found none.
        """
        loop = self.trainer.fit_loop
        batches, epochs = loop.epoch_loop, loop.epoch_progress
        if batches.restarted_on_train_batch_end:
            batches.batch_progress.increment_completed()
            batches._batches_that_stepped += 1
            batches.update_restart_stage()
            batches.val_loop.reset_restart_stage()
        if batches.restarted_on_last and batches._num_ready_batches_reached():
            if epochs.current.processed < epochs.current.started:
                epochs.increment_processed()
            if epochs.current.completed < epochs.current.processed:
                epochs.increment_completed()
            loop.reset_restart_stage()
            batches.restarting = False

    def on_validation_model_zero_grad(self) -> None:
        """Called before a validation during training, and before it draws random numbers."""
        self.validation_due = True  # until it is done
        self._rng_before_validation = _rng_state(self.device)
        super().on_validation_model_zero_grad()

    def on_validation_epoch_end(self) -> None:
        """Called after the callbacks' hooks of this name, and before those that write checkpoints."""
        if not self.trainer.sanity_checking:
            self.validation_due = False
            self.validated = True
            self._rng_before_validation = None

    def _validate_last(self) -> None:
        """Let the last weights be validated before training ends, by whichever limit, callback or checkpoint it does.

        That is before Lightning's hooks for the end, so that a signal still finds a training that can be gone on with.
        """
        loop = self.trainer.fit_loop

        def validated_first() -> None:
            del loop.on_run_end
            if self.validates_last and not self.validated:
                self._validate()
            loop.on_run_end()

        loop.on_run_end = validated_first  # type: ignore[method-assign]

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


def _made(what: str, make: Any, *args: Any, **kwargs: Any) -> Any:
    """What a constructor makes; its complaint about arguments becomes a sentence that names them."""
    try:
        return make(*args, **kwargs)
    except MisconfigurationException:
        raise
    except Exception as error:  # of somebody else's class
        raise MisconfigurationException(f"{what}: {error}") from error


# What optimizers and schedules are like


def _settings_of(thing: Any) -> dict[str, Any]:
    """The class of a new optimizer or schedule, and its settings: one dictionary a group of weights, or one in all."""
    state = thing.state_dict()
    groups = state["param_groups"] if isinstance(thing, Optimizer) else [state]
    return {"class": name_of(type(thing)), "settings": [_plain_part(group, without="params") for group in groups]}


def _plain_part(value: Any, without: str = "") -> Any:
    """A value as a checkpoint can keep it: of what is not plain only the class."""
    if isinstance(value, dict):
        return {key: _plain_part(v) for key, v in value.items() if key != without and is_plain(key)}
    if isinstance(value, list | tuple):
        return [_plain_part(v) for v in value]
    if isinstance(value, Tensor):
        return value.tolist()
    return value if is_plain(value) else name_of(type(value))


def _records(saved: dict[str, Any]) -> dict[str, Any]:
    """What optimizers and schedules were like, by player; nothing in older checkpoints."""
    records = saved.get("optimizers", {})
    kinds = {"optimizer", "scheduler"}
    fits = isinstance(records, dict) and all(isinstance(r, dict) and r.keys() == kinds for r in records.values())
    return records if fits else {}


def _spelled(record: Any) -> str:
    """A record of settings for the user to read, such as "Adam(lr=0.0002, betas=[0.5, 0.999])"."""
    if not isinstance(record, dict):
        return "none"
    first = next(iter(record.get("settings", [])), {})
    hidden = "base_lrs", "last_epoch", "foreach", "maximize", "capturable", "differentiable", "fused"
    shown = [f"{k}={v}" for k, v in first.items() if v is not None and not k.startswith("_") and k not in hidden]
    return f"{str(record.get('class')).rpartition('.')[2]}({', '.join(shown)})"


def _fast_forward(name: str, scheduler: LRScheduler, steps: int) -> None:
    """Step a new schedule to where it would be if it had been there from the first step.

    Raises:
        MisconfigurationException: It does not go so far.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer should step first
        for _ in range(steps):
            _made(f"{name} does not go as far as step {steps}, where the checkpoint stands", scheduler.step)


# Random numbers


def _seed() -> int | None:
    """The seed that the user gave, if any."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    return None if seed is None else int(seed)


def _seed_from(*numbers: int) -> None:
    """Draw random numbers that depend on these, and on nothing before."""
    random.seed(repr(numbers))
    torch.manual_seed(random.getrandbits(63))


def _rng_state(device: torch.device) -> dict[str, Any]:
    """This process's random state and that of its device, in types that weights_only=True reads back."""
    state = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state(device)
    return state


def _set_rng_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"].cpu())
    random.setstate(state["python"])
    if device.type in state:
        torch.get_device_module(device).set_rng_state(state[device.type].cpu(), device)
