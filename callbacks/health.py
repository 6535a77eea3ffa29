"""Whether a training goes well: it stops when it diverges, and says when modes collapse or the discriminator wins."""

from collections import deque
from collections.abc import Iterable
from typing import Annotated, Any, NoReturn

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from callbacks.command_line.annotations import check_ranges
from callbacks.pictures.images import folder_of, plain, validation_batches
from callbacks.pictures.randomness import isolated_rng
from callbacks.runs.ranks import gathered

WINS = 0.999  # of all pairs of a real and a generated image
OVERFITS = 0.6  # the level at which ADA holds its own measure of overfitting by augmenting (2006.06676, section 3.1)
IN_A_ROW = 5  # checks after which a discriminator that wins or memorises is not just ahead for a moment


class TrainingDiverged(RuntimeError):
    """A loss or a weight is NaN or infinite."""


class Health(Callback):
    """Stop a training that has diverged, keep its last good checkpoint, and draw curves of what else goes wrong.

    Losses are looked at where they are logged and weights before a checkpoint is written, so that no step waits for
    the device and no checkpoint is written over with weights that are not finite numbers.

    The curves compare ``count`` generated with as many real images of the latest batches:

    - ``health/diversity``: mean distance between two generated images over that between two real ones.
    - ``health/win_rate``: share of pairs of which the discriminator finds the real image more real than the generated.
    - ``health/overfitting``: (E D(train) - E D(held out)) / (E D(train) - E D(fake)), 0 without and 1 with complete
      overfitting of the discriminator (Karras et al. 2006.06676, equation 1); only where there is held-out data.

    Each gets one warning a run with what to try. The training's random state is left alone.

    Args:
        every_n_steps: Generator updates between two points of the curves; 0 draws none.
        count: Images of each kind, on each device.
        min_diversity: Warn of mode collapse where ``health/diversity`` is below this and does not rise.

    Raises:
        MisconfigurationException: An argument is out of range.
        TrainingDiverged: Training has diverged.
    """

    def __init__(
        self,
        every_n_steps: Annotated[int, "[0, inf)"] = 500,
        count: Annotated[int, "[2, 10000]"] = 256,
        min_diversity: Annotated[float, "[0, inf)"] = 0.5,
    ) -> None:
        self.every_n_steps = every_n_steps
        self.count = count
        self.min_diversity = min_diversity
        check_ranges("health", Health, self)
        self._step = 0
        self._recent: deque[Any] | None = None  # the latest training batches
        self._restored: list[Any] = []  # those of them that a checkpoint held
        self._held_out: list[Any] = []
        self._diversity = 0.0  # at the last check
        self._in_a_row: dict[str, int] = {}  # bad checks, by curve
        self._warned: set[str] = set()

    # Lightning's hooks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        self._recent = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every_n_steps:
            if self._recent is None:
                self._begin(trainer, pl_module, batch)
            assert self._recent is not None
            self._recent.append(batch)
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        if trainer.log_every_n_steps and step % trainer.log_every_n_steps == 0:
            self._check_losses(trainer)
        if self.every_n_steps and step % self.every_n_steps == 0:
            self._check(trainer, pl_module)

    def rehearse(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See Budget: a check takes time, although none comes at the end."""
        if self._recent is not None and trainer.global_step % self.every_n_steps:
            self._check(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # The one place that every checkpoint passes on every rank before its file is opened.
        finite = all_finite(checkpoint["state_dict"].values())
        if not trainer.strategy.reduce_boolean_decision(finite):
            self._stop(trainer, "there are weights that are not finite numbers")
        checkpoint["health"] = {
            "recent": gathered(trainer, self._needed(trainer.global_step)),
            "diversity": self._diversity,
            "in_a_row": self._in_a_row,
            "warned": sorted(self._warned),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get("health")
        if state is None or trainer.state.fn != TrainerFn.FITTING:
            return
        self._diversity, self._in_a_row = state["diversity"], state["in_a_row"]
        self._warned = set(state["warned"])
        if len(state["recent"]) == trainer.world_size:
            self._restored = state["recent"][trainer.global_rank]

    def _needed(self, step: int) -> list[Any]:
        """Those of the latest batches that the next check will compare, however few come before it: one an update."""
        if not self.every_n_steps:
            return []
        if self._recent is None:  # no batch yet since the run was resumed
            return self._restored
        to_come = self.every_n_steps - step % self.every_n_steps
        needed = max(0, (self._recent.maxlen or 0) - to_come)
        return [plain(batch) for batch in list(self._recent)[max(0, len(self._recent) - needed) :]]

    # Divergence

    def _check_losses(self, trainer: Trainer) -> None:
        """Stop on all ranks if a loss that was logged just now is not finite on any of them."""
        losses = {name: v for name, v in trainer.callback_metrics.items() if name.startswith("loss/")}
        if not trainer.strategy.reduce_boolean_decision(all_finite(losses.values())):
            name = next((name for name, v in losses.items() if not v.isfinite()), "a loss on another device")
            self._stop(trainer, f"{name} is not a finite number")

    def _stop(self, trainer: Trainer, what: str) -> NoReturn:
        last = folder_of(trainer) / "checkpoints" / "last.ckpt"
        kept = f"the last checkpoint with finite weights is {last}" if last.exists() else "no checkpoint was written"
        half = ", or --trainer.precision=bf16-mixed instead of 16-mixed" if trainer.precision == "16-mixed" else ""
        raise TrainingDiverged(
            f"training diverged: {what} at step {trainer.global_step} ({kept}); try lower learning rates, a penalty on "
            f"the discriminator's gradient (--model.penalty) or clipping (--model.gradient_clip_val){half}"
        )

    # Curves

    def _begin(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        """Make room for the batches that are compared, and keep as many held-out ones of the same size.

        The size matters, because batch norm's outputs depend on it.
        """
        size = len(module.real(batch))
        batches = -(-self.count // size)
        self._recent = deque(move_data_to_device(self._restored, module.device), maxlen=batches)
        self._restored, self._held_out = [], []
        if not has_held_out(trainer):
            return
        with isolated_rng(0, module.device):  # a DataLoader draws a random number when it starts
            for held_out in validation_batches(trainer):
                if len(module.real(held_out)) == size:
                    self._held_out.append(held_out)
                if len(self._held_out) == batches:
                    break
        # As many on every rank: synchronised batch norm waits for all of them.
        least = trainer.strategy.reduce(torch.tensor(len(self._held_out), device=module.device), reduce_op="min")
        self._held_out = self._held_out[: int(least)]

    def _check(self, trainer: Trainer, module: Any) -> None:
        assert self._recent is not None
        if len(self._recent) < (self._recent.maxlen or 0):  # the first steps of a run
            return
        with isolated_rng(trainer.global_rank, module.device), torch.no_grad():
            fake = torch.cat([module.generate(batch) for batch in self._recent])[: self.count]
            real = torch.cat([module.real(batch) for batch in self._recent])[: self.count]
            with trainer.precision_plugin.train_step_context():
                train = [v for v in map(module.verdicts, self._recent) if v is not None]
                held_out = [v for v in map(module.verdicts, self._held_out) if v is not None]
        numbers = [spread(fake), spread(real)]
        if train:
            of_train, of_fake = torch.cat([v[0] for v in train]), torch.cat([v[1] for v in train + held_out])
            numbers += [win_rate(of_train, of_fake), of_train.mean(), of_fake.mean()]
        if held_out:
            numbers.append(torch.cat([v[0] for v in held_out]).mean())
        numbers = list(trainer.strategy.reduce(torch.stack([n.float() for n in numbers]), reduce_op="mean"))
        curves = {"health/diversity": numbers[0] / numbers[1]}
        if train:
            curves["health/win_rate"] = numbers[2]
        if held_out:
            curves["health/overfitting"] = (numbers[3] - numbers[5]) / (numbers[3] - numbers[4])
        values = dict(zip(curves, torch.stack(list(curves.values())).tolist(), strict=True))
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        self._warn(values, trainer.global_step, module.critic_may_win)

    def _warn(self, values: dict[str, float], step: int, critic_may_win: bool) -> None:
        def observe(curve: str, bad: bool, in_a_row: int, problem: str, advice: str) -> None:
            self._in_a_row[curve] = self._in_a_row.get(curve, 0) + 1 if bad else 0
            if self._in_a_row[curve] >= in_a_row and curve not in self._warned:
                self._warned.add(curve)
                rank_zero_warn(f"step {step:,}: {problem} ({curve} is {values[curve]:.3g}): {advice}")

        diversity, before = values["health/diversity"], self._diversity
        self._diversity = diversity
        observe(
            "health/diversity",
            diversity < self.min_diversity and diversity <= before,  # an untrained generator's is small, but rises
            1,
            "generated images are much more alike than real ones, so modes have collapsed",
            "go back to an earlier checkpoint, and try a lower learning rate, a Wasserstein or hinge loss, or a "
            "penalty or spectral normalisation of the discriminator",
        )
        observe(
            "health/win_rate",
            values.get("health/win_rate", 0) > WINS and not critic_may_win,
            IN_A_ROW,
            "the discriminator tells all generated images from real ones, so the generator may learn nothing any more",
            "try a Wasserstein loss, or for the discriminator a lower learning rate, a smaller network, a penalty or "
            "spectral normalisation",
        )
        observe(
            "health/overfitting",
            values.get("health/overfitting", 0) > OVERFITS,
            IN_A_ROW,
            "the discriminator has memorised training images, and finds others less real",
            "try more data, augmentation (--data.horizontal_flip where it fits), a smaller discriminator or an earlier "
            "end",
        )


def has_held_out(trainer: Trainer) -> bool:
    """Whether the validation images are others than the training images."""
    loader = trainer.val_dataloaders
    if loader is None:
        return False
    if trainer.datamodule is not None:
        return getattr(trainer.datamodule, "val_split", "") != "train"
    held_out = getattr(loader, "dataset", None)
    return held_out is not None and held_out is not getattr(trainer.train_dataloader, "dataset", None)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no number of the tensors is NaN or infinite."""
    finite = [t.isfinite().all() for t in tensors if t.is_floating_point()]
    return bool(torch.stack(finite).all()) if finite else True


def spread(images: Tensor) -> Tensor:
    """Mean Euclidean distance between two of the images (N, ...)."""
    points = images.float().flatten(1)
    points = points - points.mean(0)  # small numbers, which a matrix product rounds little
    # MPS has no pdist, and its cdist by differences would hold those of all pairs at once.
    distances = torch.cdist(points, points, compute_mode="use_mm_for_euclid_dist")
    return distances.triu(1).sum() * 2 / (len(points) * (len(points) - 1))


def win_rate(real: Tensor, fake: Tensor) -> Tensor:
    """Share of the pairs of which ``real`` (N,) is larger than ``fake`` (M,), ties half: the area under the ROC."""
    difference = real[:, None] - fake
    return ((difference > 0).float() + (difference == 0).float() / 2).mean()
