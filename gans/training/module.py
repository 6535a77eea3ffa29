"""The training that every paper shares: who is trained on which loss, on what, and what is kept.

A paper's module builds its networks and writes a loss for each update, such as ``discriminator_loss(batch)`` and
``generator_loss(batch)``. This file does the rest.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gans.export.portable import Portable
from gans.parts.precision import autocast_cache, uncompiled
from gans.training.batches import check_images, check_kind, check_labels, check_updates, images_of
from gans.training.optimizers import Adam, LinearDecay
from gans.training.progress import progress
from gans.training.ranks import DataParallel
from gans.training.resume import Resumable
from gans.training.speed import any_order, compile_networks, single
from gans.training.update import Loss, Updates


def at_least(least: int, **values: int) -> None:
    """Raise MisconfigurationException for the first value that is smaller."""
    for name, value in values.items():
        if value < least:
            raise MisconfigurationException(f"--model.{name} must be at least {least}; got {value}")


class GANModule(Resumable, Updates, ABC):
    """Networks ("players") that are trained in turns, of which one is the generator.

    One iteration takes ``accumulate_grad_batches`` batches and makes the updates that the class names, in their order;
    where there is a ``discriminator_loss``, every iteration makes that one and every ``critic_steps()``-th the others,
    if ``critic_is_ready``.
    ``trainer.global_step`` counts the last update, the generator's, so ``max_steps``, checkpoint intervals, schedules
    and logged steps mean what papers mean by an iteration.

    A class with a further player, ``heads`` say, names it in ``updates`` and has it, ``heads_optimizer`` and, if it
    likes, ``heads_scheduler`` as attributes; so these are the names of its options, too.

    Args:
        image_shape: Channels, height and width of the images.
        generator_optimizer: Optimizer of the generator.
        generator_scheduler: Learning rate schedule of the generator, stepped after every generator update.
        accumulate_grad_batches: Batches whose gradients are averaged for one update.
        gradient_clip_val: Largest norm of an update's gradient over all weights of a network; none clips nothing.
        channels_last: Keep convolution weights in the memory order (NHWC) that is faster on most devices; by default
            where all layers are PyTorch's or this lab's, since others may call ``.view`` on features, which it breaks.
        compile: Compile the networks with torch.compile, in the first step; pictures and scores use them uncompiled.

    Raises:
        MisconfigurationException: An argument is out of range.
    """

    generator: nn.Module
    """One network, or an nn.ModuleDict of several that are trained together."""
    averaged_generator: nn.Module | None
    """A moving average of the generator, kept up to date by a callback; pictures and scores use it when it is there."""
    updates: dict[str, tuple[str, ...]] = {"generator_loss": ("generator",)}
    """The updates of an iteration in their order: the method that gives the loss, and the players that minimise it."""
    critic_may_win: bool = False
    """Whether the generator learns well from a discriminator that makes no mistake, so that this is no bad sign."""
    own_batch: bool = False
    """Whether the generator is updated on a batch of its own, and not on the last one of the discriminator's."""
    takes: tuple[str, ...] = ()
    """What its batches may be: any of IMAGES, "pairs", "pairs of two sizes", "unpaired images"; empty: not said."""
    settings_for: dict[str, str] = {}
    """Settings with which it takes other batches, by what these are."""
    smallest: dict[str, Any] = {"image_shape": (1, 16, 16)}
    """Settings of its smallest model, beside those of its bases, with which the tests that all GANs share build it."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        generator_optimizer: OptimizerCallable = lambda p: Adam(p),
        generator_scheduler: LRSchedulerCallable | None = None,
        accumulate_grad_batches: Annotated[int, "[1, inf)"] = 1,
        gradient_clip_val: Annotated[float, "(0, inf)"] | None = None,
        channels_last: bool | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, accumulate_grad_batches=accumulate_grad_batches)
        if gradient_clip_val is not None and gradient_clip_val <= 0:
            raise MisconfigurationException(f"--model.gradient_clip_val must be positive; got {gradient_clip_val}")
        self.automatic_optimization = False
        self.keep_settings()
        self.image_shape = image_shape
        self.generator_optimizer = generator_optimizer
        self.generator_scheduler = generator_scheduler
        self.accumulate_grad_batches = accumulate_grad_batches
        self.gradient_clip_val = gradient_clip_val
        self.channels_last = channels_last
        self.compiles = compile
        self._checked = False  # whether a batch was looked at
        self._critic_logs: dict[str, Tensor] = {}  # of the last discriminator update, until the generator's
        self._logged = 0, 0.0  # images seen and the time, when something was logged last

    # What a paper writes

    @abstractmethod
    def generator_loss(self, batch: Any) -> Loss:
        """What the generator minimises on a batch. All networks that do not are frozen meanwhile."""

    @abstractmethod
    def generate(self, batch: Any) -> Tensor:
        """The generated counterpart of a batch: as many images, (N, C, H, W) in [-1, 1]."""

    def real(self, batch: Any) -> Tensor:
        """The real images that ``generate(batch)`` is to be compared with, (N, C, H, W) in [-1, 1]."""
        return images_of(batch)

    def critic_steps(self) -> int:
        """Discriminator updates before the next generator update; may be 0.

        The latter takes the last one's batch, or the next one where the class has ``own_batch``.
        """
        return 0

    def critic_is_ready(self, logs: dict[str, Tensor]) -> bool:
        """Whether they suffice, when so many are made, of which the last one logged this; must be so on all ranks."""
        return True

    def begin_update(self, batches: list[Any]) -> None:
        """Called before the losses of an update on these batches: a paper may make here what both losses need."""

    @property
    def shapes(self) -> tuple[tuple[int, int, int], ...]:
        """Channels, height and width of the images that a batch begins with."""
        return (self.image_shape,)

    @property
    def labels(self) -> tuple[int, bool]:
        """How many classes or attributes the labels tell apart, 0 where none are needed; whether it is attributes."""
        return 0, False

    def shown(self, batch: Any) -> Tensor:
        """What pictures show of a batch, (N, K, C, H, W) in [-1, 1]: K images side by side for each of its own."""
        return self.generate(batch)[:, None]

    def verdicts(self, batch: Any) -> tuple[Tensor, Tensor] | None:
        """How real the discriminator finds a batch's images and as many new generated ones, (N,) each; larger is more.

        By default there is no such number. A paper that gives it leaves weights and buffers as they are.
        """
        return None

    def portable(self) -> dict[str, Portable]:
        """What an export holds, by the names of its files: functions of tensors, "generator" the first.

        Raises:
            MisconfigurationException: Nothing is known of what the generator takes.
        """
        raise MisconfigurationException(
            f"{type(self).__name__} cannot be exported: GANs can that derive from Sampler or Translator (in "
            "gans.training), as all of the lab do, or that say in portable() what their generator is called with"
        )

    # Training

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One batch: a discriminator update, then a generator update when ``critic_steps()`` of the former are done."""
        try:
            self._train_on(batch)
        except ValueError as error:  # of torch's batch norm, which has no better way to say it
            if not str(error).startswith("Expected more than 1 value per channel"):
                raise
            raise MisconfigurationException(
                f"{type(self).__name__}'s batch norm needs at least two images in a batch, and this one has "
                f"{len(images_of(batch))}: set --data.batch_size to 2 or more, and drop_last=True in a DataLoader of "
                "your own"
            ) from error

    def _train_on(self, batch: Any) -> None:
        self.images_seen += len(self.real(batch)) * self.trainer.world_size
        self.validates_after(False)
        self._waiting.append(batch)
        n = self.accumulate_grad_batches
        if len(self._waiting) < n:
            return
        batches, self._waiting = self._waiting[:n], self._waiting[n:]  # some are left if n was larger before a resume
        with autocast_cache():
            self.begin_update(batches)
        logs: dict[str, Tensor] = {}
        others = [name for name in self.updates if name != "discriminator_loss"]
        if (steps := self.critic_steps()) and not self._critic_done:
            players = self.updates["discriminator_loss"]
            logs = self.update(players, self.discriminator_loss, batches, counted=not others)
            self._critic_run += 1
            self.critic_updates += 1
            self._critic_done = self._critic_run >= steps and self.critic_is_ready(logs)
            if others and (self.own_batch or not self._critic_done):
                self._critic_logs = logs
                return
        logs, self._critic_logs = logs or self._critic_logs, {}
        self._critic_run, self._critic_done = 0, False
        for name in others:
            logs |= self.update(self.updates[name], getattr(self, name), batches, counted=name == others[-1])
        share = progress(self.trainer, self.spent)
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LinearDecay):
                config.scheduler.share = share
            config.scheduler.step()  # type: ignore[call-arg]
        every = self.trainer.log_every_n_steps
        if every and self.global_step % every == 0:
            self._log(logs)
        self.validates_after(True)

    def _log(self, logs: dict[str, Tensor]) -> None:
        """Send losses, learning rates and speed to the loggers: only here do values leave the device."""
        values = {name: value.item() for name, value in logs.items()}
        before, self._logged = self._logged, (self.images_seen, time.perf_counter())
        images, seconds = (now - then for now, then in zip(self._logged, before, strict=True))
        optimizers = zip(self.players, self.trainer.optimizers, strict=True)
        rates = {f"lr/{player}": optimizer.param_groups[0]["lr"] for player, optimizer in optimizers}
        pace = {"speed/images_per_second": images / seconds, "time/images": float(self.images_seen)}
        for logger in self.trainer.loggers:
            logger.log_metrics(values | rates | pace, step=self.global_step)
        # Lightning counts batches on its own axis, so it only gets a copy: for the progress bar, and to monitor.
        for shown in (True, False):
            part = {name: value for name, value in values.items() if name.startswith("loss/") is shown}
            self.log_dict(part, prog_bar=shown, logger=False)

    def on_train_start(self) -> None:
        check_updates(self)
        self.go_on()
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, LinearDecay) and config.scheduler.in_shares:
                config.scheduler.go_on_at(progress(self.trainer, self.spent))
        self._logged = self.images_seen, time.perf_counter()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if not self._checked:  # the mistakes that loaders of one's own make are all in the first batch
            check_images(self, batch)
            check_labels(self, batch)
            self._checked = True

    # Pictures and scores

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing: scores and pictures are made by callbacks, from ``generate`` and ``real``."""

    test_step = validation_step

    def on_validation_epoch_start(self) -> None:
        if isinstance(self.trainer.strategy, DataParallel):
            self.trainer.strategy.average_buffers()

    @contextmanager
    def sampling(self) -> Iterator[nn.Module]:
        """The network that makes pictures: the averaged generator if there is one, in eval mode, without gradients."""
        network = self.generator if self.averaged_generator is None else self.averaged_generator
        training = network.training
        network.eval()
        try:
            with torch.no_grad(), uncompiled():
                yield network
        finally:
            network.train(training)

    # Before training

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self._checked = False
        for needed in (*self.updates, *self.players):
            if not hasattr(self, needed):
                raise MisconfigurationException(
                    f"{type(self).__name__} has no {needed}, which its updates name: {self.updates}"
                )
        data = getattr(self._trainer, "datamodule", None)
        if data is not None and stage != "predict":
            check_kind(self, data)
        networks = [network for player in self.players for network in single(getattr(self, player))]
        if any_order(networks) if self.channels_last is None else self.channels_last:
            self.to(memory_format=torch.channels_last)
        if stage == "fit" and self.compiles:
            compile_networks(networks, self.trainer.strategy.root_device)

    def teardown(self, stage: str) -> None:
        super().teardown(stage)
        self.to(memory_format=torch.contiguous_format)  # the order in which other programs expect weights
