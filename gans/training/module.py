"""The adversarial loop that every paper shares.

A paper's module builds ``self.generator`` and ``self.discriminator`` and writes two methods,
``discriminator_loss(batch)`` and ``generator_loss(batch)``. This file does the rest: who is trained when, on what, and
what is kept.
"""

import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gans.parts.diffaugment import DiffAugment
from gans.training.checkpoints import PLAYERS
from gans.training.optimizers import Adam
from gans.training.precision import autocast_cache
from gans.training.ranks import DataParallel
from gans.training.resume import Resumable

Loss = tuple[Tensor, dict[str, Tensor]]  # a scalar to minimise, and what to log beside it by name
IMAGES = ("images", "images with classes", "images with attributes")
RARE = 1000  # epochs for one update, from which on nobody can have meant it


def images_of(batch: Any, part: int = 0) -> Tensor:
    """The images of a batch: the batch itself or its first element. (N, C, H, W), float in [-1, 1].

    Args:
        batch: The batch.
        part: 1 for the second element, such as the target of a pair.

    Raises:
        MisconfigurationException: There are none.
    """
    parts = batch if isinstance(batch, tuple | list) else [batch]
    if len(parts) <= part or not isinstance(parts[part], Tensor):
        wanted = "images (N, C, H, W), or a tuple that begins with them" if part == 0 else "a tuple of two images"
        raise MisconfigurationException(f"A batch must be {wanted}; the data gives {_described(batch)}")
    return parts[part]


def check_kind(model: Any, data: Any, fitting: str = "other data") -> None:
    """Refuse data whose batches are not what a GAN is trained on.

    Args:
        model: The GAN or its class.
        data: The data module, which says what its batches are and could be, or not.
        fitting: Names of data that would do.

    Raises:
        MisconfigurationException: They are of another kind.
    """
    gives = getattr(data, "gives", None)
    if not model.takes or gives is None or gives in model.takes:
        return
    name = getattr(model, "__name__", type(model).__name__)
    wanted = " or ".join(model.takes if len(model.takes) < 3 else model.takes[:1])
    settings = [data.offers[kind] for kind in model.takes if data.offers.get(kind)]
    other = model.settings_for.get(gives) or " or ".join(settings) or fitting
    raise MisconfigurationException(
        f"--model={name} takes {wanted}, and --data={type(data).__name__} gives {gives}: take {other}"
    )


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Inside, no gradient reaches the network's weights; outside, its weights and buffers are as they were.

    Buffers change in forward passes (batch norm's running statistics, spectral norm's vectors), so they are put back.
    """
    weights = [p for p in network.parameters() if p.requires_grad]
    buffers = list(network.buffers())
    before = [b.clone() for b in buffers]
    for p in weights:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in weights:
            p.requires_grad_(True)
        if buffers:
            # By way of .data: to a graph that was made outside, the buffers have not changed.
            torch._foreach_copy_([b.data for b in buffers], before)


def uncompiled() -> Any:
    """A context in which compiled networks run uncompiled: in evaluation, and where they are differentiated twice."""
    return torch.compiler.set_stance("force_eager")


class AdversarialModule(Resumable, ABC):
    """Two networks trained against each other.

    One iteration takes ``accumulate_grad_batches`` batches and updates the discriminator; every ``n_critic``-th
    iteration then updates the generator. ``trainer.global_step`` counts generator updates, so ``max_steps``, checkpoint
    intervals, schedulers and logged steps mean what papers mean by an iteration.

    Args:
        image_shape: Channels, height and width of the images.
        generator_optimizer: Optimizer of the generator.
        discriminator_optimizer: Optimizer of the discriminator.
        generator_scheduler: Learning rate schedule of the generator, stepped after every generator update.
        discriminator_scheduler: Learning rate schedule of the discriminator, stepped after every generator update.
        n_critic: Discriminator updates, each on a fresh batch, before every generator update.
        accumulate_grad_batches: Batches whose gradients are averaged for one update.
        gradient_clip_val: Largest norm of an update's gradient over all weights of the network; none clips nothing.
        channels_last: Keep convolution weights in the memory order (NHWC) that is faster on most devices; by default
            where all layers are PyTorch's or this lab's, since others may call ``.view`` on features, which it breaks.
        diff_augment: Policy such as color,translation,cutout: what the discriminator sees, real and generated alike, is
            augmented differentiably, so that few images suffice and the generator does not learn the augmentation.
        compile: Compile the networks with torch.compile, in the first step; pictures and scores use them uncompiled.

    Raises:
        MisconfigurationException: An argument is out of range.
    """

    generator: nn.Module
    discriminator: nn.Module
    """One network, or an nn.ModuleDict of several that are trained together; one without weights is never trained."""
    averaged_generator: nn.Module | None
    """A moving average of the generator, kept up to date by a callback; pictures and scores use it when it is there."""
    critic_may_win: bool = False
    """Whether the generator learns well from a discriminator that makes no mistake, so that this is no bad sign."""
    takes: tuple[str, ...] = ()
    """What its batches may be: any of IMAGES, "pairs", "pairs of two sizes", "unpaired images"; empty: not said."""
    settings_for: dict[str, str] = {}  # noqa: RUF012
    """Settings with which it takes other batches, by what these are."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        generator_optimizer: OptimizerCallable = lambda p: Adam(p),
        discriminator_optimizer: OptimizerCallable = lambda p: Adam(p),
        generator_scheduler: LRSchedulerCallable | None = None,
        discriminator_scheduler: LRSchedulerCallable | None = None,
        n_critic: Annotated[int, "[1, inf)"] = 1,
        accumulate_grad_batches: Annotated[int, "[1, inf)"] = 1,
        gradient_clip_val: Annotated[float, "(0, inf)"] | None = None,
        channels_last: bool | None = None,
        diff_augment: str | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {"n_critic": n_critic, "accumulate_grad_batches": accumulate_grad_batches}.items():
            if value < 1:
                raise MisconfigurationException(f"--model.{name} must be at least 1; got {value}")
        if gradient_clip_val is not None and gradient_clip_val <= 0:
            raise MisconfigurationException(f"--model.gradient_clip_val must be positive; got {gradient_clip_val}")
        self.automatic_optimization = False
        self.keep_settings()
        self.image_shape = image_shape
        self.optimizer_factories = discriminator_optimizer, generator_optimizer
        self.scheduler_factories = discriminator_scheduler, generator_scheduler
        self.n_critic = n_critic
        self.accumulate_grad_batches = accumulate_grad_batches
        self.gradient_clip_val = gradient_clip_val
        self.channels_last = channels_last
        self.diff_augment = None if diff_augment is None else DiffAugment(diff_augment)
        self.compiles = compile
        self._checked = False  # whether a batch was looked at

    # What a paper writes

    @abstractmethod
    def discriminator_loss(self, batch: Any) -> Loss:
        """What the discriminator minimises on a batch. The generator is frozen meanwhile."""

    @abstractmethod
    def generator_loss(self, batch: Any) -> Loss:
        """What the generator minimises on a batch. The discriminator is frozen meanwhile."""

    @abstractmethod
    def generate(self, batch: Any) -> Tensor:
        """The generated counterpart of a batch: as many images, (N, C, H, W) in [-1, 1]."""

    def critic_steps(self) -> int:
        """Discriminator updates before the next generator update, which takes the last one's batch; may be 0."""
        return self.n_critic

    def real(self, batch: Any) -> Tensor:
        """The real images that ``generate(batch)`` is to be compared with, (N, C, H, W) in [-1, 1]."""
        return images_of(batch)

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

    def begin_update(self, batches: list[Any]) -> None:
        """Called before the losses of an update on these batches: a paper may make here what both losses need."""

    def verdicts(self, batch: Any) -> tuple[Tensor, Tensor] | None:
        """How real the discriminator finds a batch's images and as many new generated ones, (N,) each; larger is more.

        By default there is no such number. A paper that gives it leaves weights and buffers as they are.
        """
        return None

    # Training

    def configure_optimizers(self) -> tuple[list[Optimizer], list[LRScheduler]]:
        self._built = {}
        optimizers: list[Optimizer] = []
        schedulers: list[LRScheduler] = []
        for player, make, schedule in zip(PLAYERS, self.optimizer_factories, self.scheduler_factories, strict=True):
            if any(True for _ in getattr(self, player).parameters()):
                optimizer, of_optimizer = self.build_optimizer(player, make, schedule)
                optimizers.append(optimizer)
                schedulers += of_optimizer
        return optimizers, schedulers

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One batch: a discriminator update, then a generator update when ``n_critic`` of the former are done."""
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
        self._images += len(self.real(batch))
        self.validates_after(False)
        self._waiting.append(batch)
        n = self.accumulate_grad_batches
        if len(self._waiting) < n:
            return
        batches, self._waiting = self._waiting[:n], self._waiting[n:]  # some are left if n was larger before a resume
        logs: dict[str, Tensor] = {}
        with autocast_cache():
            self.begin_update(batches)
        if self._critic_updates < self.critic_steps():
            optimizer = self.trainer.optimizers[0]
            with frozen(self.generator):
                logs = self._backward(self.discriminator_loss, batches, optimizer)
                # Around LightningOptimizer.step, which would count this update in trainer.global_step.
                self.trainer.strategy.optimizer_step(optimizer, lambda: None)
            self._critic_updates += 1
            if self._critic_updates < self.critic_steps():
                return
        self._critic_updates = 0
        optimizers = self.optimizers()
        generator_optimizer = optimizers[-1] if isinstance(optimizers, list) else optimizers
        with frozen(self.discriminator):
            logs |= self._backward(self.generator_loss, batches, generator_optimizer)
            generator_optimizer.step()
        for config in self.trainer.lr_scheduler_configs:
            config.scheduler.step()
        every = self.trainer.log_every_n_steps
        if every and self.global_step % every == 0:
            self._log(logs)
        self.validates_after(True)

    def _backward(self, loss_of: Callable[[Any], Loss], batches: list[Any], optimizer: Any) -> dict[str, Tensor]:
        """Accumulate the mean gradient over the batches; return the logs of the last one."""
        logs: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            with autocast_cache():
                loss, logs = loss_of(batch)
            if number == 0:
                # Not before the forward pass: on a CPU the memory of large gradients would go back to the system, and
                # getting it again took a fifth of pix2pix's step.
                optimizer.zero_grad()
            # Outside autocast, or what a penalty differentiates twice would be rounded to half precision.
            with torch.autocast(self.device.type, enabled=False):
                self.manual_backward(loss / len(batches) if len(batches) > 1 else loss)
        return logs

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip; Lightning calls this after gradients were averaged over ranks and unscaled."""
        if self.gradient_clip_val is None:
            return
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # Lightning leaves this to fused optimizers, whose step comes after clipping
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(weights, self.gradient_clip_val)

    def _log(self, logs: dict[str, Tensor]) -> None:
        """Send losses, learning rates and speed to the loggers: only here do values leave the device."""
        values = {name: value.item() for name, value in logs.items()}
        images, self._images = self._images * self.trainer.world_size, 0
        began, self._began = self._began, time.perf_counter()
        speed = {"speed/images_per_second": images / (self._began - began)}
        names = ("discriminator", "generator")[-len(self.trainer.optimizers) :]
        rates = {
            f"lr/{name}": optimizer.param_groups[0]["lr"]
            for name, optimizer in zip(names, self.trainer.optimizers, strict=True)
        }
        for logger in self.trainer.loggers:
            logger.log_metrics(values | rates | speed, step=self.global_step)
        # Lightning counts batches on its own axis, so it only gets the progress bar's copy.
        self.log_dict({name: v for name, v in values.items() if name.startswith("loss/")}, prog_bar=True, logger=False)

    def on_train_start(self) -> None:
        self._images, self._began = 0, time.perf_counter()
        self._check_updates()
        if self.trainer.world_size > 1:
            torch.manual_seed(torch.initial_seed() + self.global_rank)  # every rank draws its own noise
        self.go_on()

    def _check_updates(self) -> None:
        """Say so when epochs go by without an update, and refuse to wait for ever."""
        batches = self.trainer.num_training_batches
        needed = max(1, self.critic_steps()) * self.accumulate_grad_batches
        if needed <= batches or not batches or self.trainer.fast_dev_run:
            return
        epochs = -(-needed // int(batches))
        said = (
            f"With --model.n_critic={self.n_critic} and --model.accumulate_grad_batches={self.accumulate_grad_batches} "
            f"the generator is updated once in {needed:,} batches, and an epoch has {int(batches):,}: that is "
        )
        if epochs > RARE:
            raise MisconfigurationException(
                f"{said}once in {epochs:,} epochs; make their product {int(batches):,} or less"
            )
        rank_zero_warn(f"{said}once in {epochs:,} epochs")

    def on_predict_start(self) -> None:
        torch.manual_seed(torch.initial_seed() + self.global_rank)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if not self._checked:
            self._check(batch)
            self._checked = True

    def _check(self, batch: Any) -> None:
        """The mistakes that loaders of one's own make; looked for once, in the first batch."""
        name = type(self).__name__
        for number, shape in enumerate(map(tuple, self.shapes)):
            # What a class of one's own makes of a batch is not known here.
            images = images_of(batch, number) if self.takes else self.real(batch)
            found = tuple(images.shape)
            if found[1:] != shape:
                what = "image_shape=" if shape == tuple(self.image_shape) else "sources of "
                turned = len(found) == 4 and (found[3], *found[1:3]) == shape
                raise MisconfigurationException(
                    f"The data's images are {found[1:]}, but {name} was built for {what}{shape} (channels, height, "
                    f"width): {'permute(0, 3, 1, 2) puts the channels first' if turned else 'make the two equal'}."
                )
            if images.dtype != self.dtype:
                raise MisconfigurationException(
                    f"The data's images are {_named(images.dtype)}; {name} takes {_named(self.dtype)} in [-1, 1] "
                    "(x / 127.5 - 1 for bytes)."
                )
            low, high = (pixel.item() for pixel in images.aminmax())
            if not (low >= -1.01 and high <= 1.01):  # nor for numbers that are none
                raise MisconfigurationException(
                    f"The data's pixels go from {low:.3g} to {high:.3g}; images must be float in [-1, 1] "
                    "(x / 127.5 - 1)."
                )
            if low >= 0 and getattr(self.trainer.datamodule, "gives", None) is None:  # the lab's own data is right
                rank_zero_warn(
                    f"No pixel of the first batch is negative (they go from {low:.3g} to {high:.3g}): images must be "
                    "in [-1, 1], black being -1; those in [0, 1] become so by x * 2 - 1"
                )
        self._check_labels(batch)

    def _check_labels(self, batch: Any) -> None:
        count, attributes = self.labels
        if not count:
            return
        name, n = type(self).__name__, len(images_of(batch))
        label = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
        wanted = f"(N, {count}), 0 or 1 each" if attributes else f"(N,), from 0 to {count - 1}"
        shape = (n, count) if attributes else (n,)
        right = isinstance(label, Tensor) and label.dtype == torch.int64 and tuple(label.shape) == shape
        if not right:
            kind = IMAGES[2 if isinstance(label, Tensor) and label.ndim > 1 else 1]
            hint = f": take {self.settings_for[kind]}" if kind in self.settings_for and kind not in self.takes else ""
            raise MisconfigurationException(
                f"{name} takes images with labels, int64 {wanted}; the data's labels are {_described(label)}{hint}"
            )
        low, high = (number.item() for number in label.aminmax())
        if low < 0 or high > (1 if attributes else count - 1):
            raise MisconfigurationException(
                f"{name} takes images with labels, int64 {wanted}; the data's go from {low} to {high}"
            )

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
        data = getattr(self._trainer, "datamodule", None)
        if data is not None and stage != "predict":
            check_kind(self, data)
        self.order_memory()
        if stage == "fit" and self.diff_augment is not None:
            for network in _single(self.discriminator):
                if self.diff_augment.before not in network._forward_pre_hooks.values():  # a second fit finds it there
                    network.register_forward_pre_hook(self.diff_augment.before)
        if stage == "fit" and self.compiles:
            compilers = os.environ.get("CXX", "c++"), "g++", "clang++", "cl"
            if self.trainer.strategy.root_device.type == "cpu" and not any(map(shutil.which, compilers)):
                raise MisconfigurationException(
                    "--model.compile=true needs a C++ compiler on the CPU: install one, such as g++, or leave it out"
                )
            self.compile_networks()

    def order_memory(self) -> None:
        """Bring weights into the memory order that ``channels_last`` asks for."""
        last = self.channels_last
        if last is None:
            last = all(map(_takes_any_order, (*self.generator.modules(), *self.discriminator.modules())))
        if last:
            self.to(memory_format=torch.channels_last)

    def teardown(self, stage: str) -> None:
        super().teardown(stage)
        self.to(memory_format=torch.contiguous_format)  # the order in which other programs expect weights

    def compile_networks(self) -> None:
        """Let torch.compile take each network whole; names and values of weights stay as they are.

        Each is compiled for fixed shapes in the ways that training calls it, with and without gradients, and not again.
        """
        for network in (*_single(self.generator), *_single(self.discriminator)):
            # Inductor cannot train with spectral norm of weights that have so few columns, such as 1x1 convolutions of
            # images: what it keeps for the backward pass is changed by the next forward pass (torch 2.15).
            vectors = [b for name, b in network.named_buffers() if name.endswith("parametrizations.weight.0._v")]
            if all(v.numel() >= 8 for v in vectors):
                network.compile(dynamic=False)


def _single(networks: nn.Module) -> list[nn.Module]:
    """The networks that are called one by one."""
    return list(networks.values()) if isinstance(networks, nn.ModuleDict) else [networks]


def _takes_any_order(layer: nn.Module) -> bool:
    """Whether a layer works in any memory order: PyTorch's and this lab's do, but for those that call ``.view``."""
    classes = type(layer).__mro__[: type(layer).__mro__.index(nn.Module)]
    if not all(cls.__module__.partition(".")[0] in ("torch", "gans") for cls in classes):
        return False
    code = getattr(type(layer).forward, "__code__", None)
    return classes[0].__module__.startswith("torch") or "view" not in getattr(code, "co_names", ())


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _described(value: Any) -> str:
    """What a batch of the wrong type is, for its owner to read."""
    if isinstance(value, Tensor):
        return f"{_named(value.dtype)} {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(map(_described, value[:4])) or 'nothing'}"
    return "None" if value is None else f"of type {type(value).__name__}"
