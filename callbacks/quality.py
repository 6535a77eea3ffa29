"""How near generated images come to the ones they should be: PSNR, SSIM, MS-SSIM and LPIPS, for paired tasks."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.functional.image.lpips import _NoTrainLpips

from callbacks.command_line.annotations import check_ranges
from callbacks.pictures.images import step_of, to_uint8
from callbacks.pictures.randomness import isolated_rng
from callbacks.runs.ranks import agreed
from callbacks.scores.features import pretrained
from callbacks.scores.history import Mode, keep_best, publish

SMALLEST = {"psnr": 1, "ssim": 11, "ms_ssim": 176, "lpips": 31}  # sides that a metric's windows and layers fit into
BACKBONES = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}  # torchvision's names
AT_ONCE = 16  # images compared together, since SSIM and LPIPS take much memory


class Quality(Callback):
    """Compare ``module.generate(batch)`` with ``module.real(batch)``, pair by pair, when Lightning validates or tests.

    A metric is computed for each image, as it would be written to a file, and averaged over images, which is how tables
    of super-resolution are made: ``quality/psnr``, ``quality/ssim``, ``quality/ms_ssim`` (the higher the better) and
    ``quality/lpips`` (the lower the better). ``_y`` is appended to the first three when they are of luminance. An image
    that is reproduced exactly has an infinite PSNR, and so has the mean.

    Metrics go to the loggers, to the console and, with what they depend on, to ``quality.json`` in the run folder.
    Generating for them leaves the training's random state alone.

    Args:
        metrics: Some of "psnr", "ssim", "ms_ssim" and "lpips", the one that chooses the best checkpoint first; none
            compares nothing.
        luminance: Take PSNR, SSIM and MS-SSIM of the luminance alone; LPIPS always sees colours.
        border: Pixels cut off on each side first; for super-resolution usually its scale.
        lpips_weights: File with the weights of LPIPS's network, a state_dict of torchvision's alexnet, vgg16 or
            squeezenet1_1; by default it is downloaded.
        lpips_net: The network of LPIPS.

    Raises:
        MisconfigurationException: An argument is out of range, (before training) weights are missing, or (at the first
            validation) images cannot be compared.
    """

    def __init__(
        self,
        metrics: list[str] = [],  # noqa: B006
        luminance: bool = False,
        border: Annotated[int, "[0, 4096]"] = 0,
        lpips_weights: str | None = None,
        lpips_net: Literal["alex", "vgg", "squeeze"] = "alex",
    ) -> None:
        for metric in metrics:
            if metric not in SMALLEST:
                raise MisconfigurationException(
                    f"--quality.metrics={metric} is no metric: there are {', '.join(SMALLEST)}"
                )
        if lpips_net not in BACKBONES:
            raise MisconfigurationException(
                f"--quality.lpips_net={lpips_net} is no network: there are {', '.join(BACKBONES)}"
            )
        self.luminance = luminance
        self.border = border
        check_ranges("quality", Quality, self)
        self.lpips_weights = lpips_weights
        self.lpips_net = lpips_net
        self.names = {m: f"quality/{m}_y" if luminance and m != "lpips" else f"quality/{m}" for m in metrics}
        self._lpips: nn.Module | None = None
        self._sums: Tensor | None = None  # of each metric, and the number of images

    @property
    def directions(self) -> dict[str, Mode]:
        """Names of the metrics, each with whether its smallest or largest value is the best."""
        return {name: "min" if metric == "lpips" else "max" for metric, name in self.names.items()}

    @property
    def monitor(self) -> str | None:
        """Name of the first metric, by which checkpoints are chosen; None if there is none."""
        return next(iter(self.directions), None)

    @property
    def needs_all(self) -> bool:
        """Whether all batches of an evaluation are looked at."""
        return bool(self.names)

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load LPIPS before anything is trained, so that what is missing is missed at once."""
        if not self.names or stage == "predict":
            return
        # What the batches are: the data tells, or else what the GAN can take.
        gives = getattr(trainer.datamodule, "gives", None)
        kinds = (gives,) if gives else getattr(pl_module, "takes", ())
        if kinds and not any(kind.startswith("pairs") for kind in kinds):
            raise MisconfigurationException(
                f"--quality.metrics=[{','.join(self.names)}] compares images with their targets, and "
                f"{type(pl_module).__name__} has {' or '.join(kinds)}, which have none: leave it out, and --score "
                "compares them as a whole"
            )
        for first in (True, False):  # the first of a machine downloads for the others
            with agreed(trainer):
                if (trainer.local_rank == 0) == first:
                    self._load()
        if stage == "fit":
            pl_module.validates_last = True  # type: ignore[assignment]

    def prepare(self, trainer: Trainer, data: Any) -> None:
        """As in Score."""
        if self.names and getattr(data, "val_split", None) == "train":
            rank_zero_warn(
                f"No images are held out, and {', '.join(self.names.values())} will be of training images: put some "
                "into a folder val beside train in --data.data_dir, or name --data.test_dir for super-resolution."
            )
        if getattr(data, "scale", 1) == 1:  # otherwise whole pictures, of any size, are compared
            self._check_size(tuple(getattr(data, "image_shape", ()))[1:])
        if trainer.local_rank == 0:
            self._load()

    def _check_size(self, size: tuple[int, ...]) -> None:
        for metric in self.names:
            if size and min(size) - 2 * self.border < SMALLEST[metric]:
                less = f" without --quality.border={self.border}" if self.border else ""
                raise MisconfigurationException(
                    f"--quality.metrics={metric} needs images of at least {SMALLEST[metric]} px a side, and these have "
                    f"{'x'.join(map(str, size))}{less}: leave it out, or set a larger --data.image_size"
                )

    def _load(self) -> None:
        if "lpips" in self.names and self._lpips is None:
            self._lpips = create_lpips(self.lpips_net, self.lpips_weights)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.names:
            keep_best(trainer, self.directions)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.names or trainer.sanity_checking:
            return
        # Apple's MPS has no float64.
        device = torch.device("cpu") if pl_module.device.type == "mps" else pl_module.device
        self._sums = torch.zeros(len(self.names) + 1, dtype=torch.float64, device=device)
        if self._lpips is not None:
            self._lpips.to(device)

    on_test_epoch_start = on_validation_epoch_start

    @torch.no_grad()
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._sums is None:
            return
        with isolated_rng(batch_idx * trainer.world_size + trainer.global_rank, pl_module.device):
            generated = pl_module.generate(batch).to(self._sums.device)
        real = pl_module.real(batch).to(self._sums.device)
        if not generated.isfinite().all():  # as a file, it would just be black
            self._sums[:-1] += torch.nan
        for i, metric in enumerate(self.names):
            self._sums[i] += compare(generated, real, metric, self.luminance, self.border, self._lpips).sum()
        self._sums[-1] += len(real)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._sums is None:
            return
        *sums, count = trainer.strategy.reduce(self._sums, reduce_op="sum").tolist()
        self._sums = None
        if any(value != value for value in sums):
            rank_zero_warn(
                "the generated images' pixels are not all finite numbers, so they are not compared: has training "
                "diverged?"
            )
        entry = {
            "step": step_of(trainer, pl_module),
            "scores": {name: value / count for name, value in zip(self.names.values(), sums, strict=True)},
            "protocol": {
                "images": int(count),
                "luminance": self.luminance,
                "border": self.border,
                "weights": "raw" if getattr(pl_module, "averaged_generator", None) is None else "ema",
            },
        }
        if "lpips" in self.names:
            entry["protocol"]["lpips_net"] = self.lpips_net
        publish(trainer, pl_module, "quality.json", entry, self.directions, {"quality/images": count})

    on_test_epoch_end = on_validation_epoch_end


def compare(
    generated: Tensor,
    real: Tensor,
    metric: str,
    luminance: bool = False,
    border: int = 0,
    lpips: nn.Module | None = None,
) -> Tensor:
    """A metric of each pair of images, (N,) float64.

    Args:
        generated: (N, C, H, W) in [-1, 1]; rounded first to the 256 levels of a file.
        real: What they should be, likewise.
        metric: "psnr", "ssim" (of Gaussian windows of 11x11, sigma 1.5, that lie within the image), "ms_ssim"
            (torchmetrics') or "lpips".
        luminance: Compare luminance alone, except by LPIPS.
        border: Pixels cut off on each side first.
        lpips: What ``create_lpips`` returns, for LPIPS.

    Raises:
        MisconfigurationException: The images are not of one shape, or too small for the metric.
    """
    if generated.shape != real.shape:
        raise MisconfigurationException(
            f"--quality.metrics={metric} compares pixel by pixel, but images of shape {tuple(generated.shape)} were "
            f"generated where there should be {tuple(real.shape)}"
        )
    height, width = (side - 2 * border for side in real.shape[-2:])
    if min(height, width) < SMALLEST[metric]:
        raise MisconfigurationException(
            f"--quality.metrics={metric} needs images of at least {SMALLEST[metric]} px a side; these have "
            f"{max(height, 0)}x{max(width, 0)} without --quality.border={border}"
        )
    measures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": _psnr, "ssim": _ssim, "ms_ssim": _ms_ssim}
    values = []
    for pair in zip(generated.split(AT_ONCE), real.split(AT_ONCE), strict=True):
        a, b = (to_uint8(images[..., border : border + height, border : border + width]) for images in pair)
        if metric == "lpips":
            assert lpips is not None
            values.append(_lpips(a, b, lpips))
        elif luminance:
            values.append(measures[metric](luminance_of(a), luminance_of(b)))
        else:
            values.append(measures[metric](a.double(), b.double()))
    return torch.cat(values)


def luminance_of(images: Tensor) -> Tensor:
    """Y of YCbCr, (N, 1, H, W) float64 in [16, 235], of uint8 images (N, C, H, W), RGB or grey.

    ITU-R BT.601 in studio range, as MATLAB's rgb2ycbcr computes it from floats: not rounded.
    """
    red, green, blue = images.expand(-1, 3, -1, -1).double().split(1, 1)
    return 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255


def create_lpips(net: Literal["alex", "vgg", "squeeze"], weights: str | None) -> nn.Module:
    """LPIPS (Zhang et al. 2018, https://arxiv.org/abs/1801.03924) with the linear layers that torchmetrics brings.

    Its network's weights are a file with a state_dict of torchvision's; None for torchvision's download.

    Raises:
        MisconfigurationException: The weights are missing, unreadable or another network's.
    """
    with isolated_rng(0, torch.device("cpu")):  # both networks draw weights first
        option, instead = "--quality.lpips_weights", "leave lpips out of --quality.metrics"
        backbone = pretrained(BACKBONES[net], weights, f"--quality.lpips_net={net}", option, instead)
        lpips = _NoTrainLpips(net=net, pnet_rand=True)
    # torchmetrics cuts the backbone's features into slices, whose layers keep their numbers as names.
    for part in lpips.net.modules():
        if isinstance(part, nn.Sequential):
            for number, layer in part.named_children():
                layer.load_state_dict(backbone.features[int(number)].state_dict())
    return lpips.requires_grad_(False).eval()


def _psnr(a: Tensor, b: Tensor) -> Tensor:
    return peak_signal_noise_ratio(a, b, data_range=255.0, reduction="none", dim=(1, 2, 3))


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    _, values = structural_similarity_index_measure(a, b, data_range=255.0, reduction="none", return_full_image=True)
    return values[..., 5:-5, 5:-5].mean((1, 2, 3))  # where no window reaches into torchmetrics' padding


def _ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    return multiscale_structural_similarity_index_measure(a, b, data_range=255.0, reduction="none")


def _lpips(a: Tensor, b: Tensor, network: nn.Module) -> Tensor:
    a, b = (images.expand(-1, 3, -1, -1).float().div(127.5).sub(1) for images in (a, b))
    return network(a, b).flatten().double()
