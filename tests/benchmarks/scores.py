"""What FID, KID, inception score and MiFID cost together, beside torchmetrics' metrics, and how much memory they take.

    python tests/benchmarks/scores.py [--counts 1000 10000] [--separate_all] [--memory_counts 1000 10000 100000]
    python tests/benchmarks/scores.py --cheap --separate_all --memory_counts

``Trainer.validate`` compares as many generated as real images, random ones at 32 px. The contenders, our Score and
torchmetrics' metrics, are callbacks that take turns on every batch of 64, so that a machine whose speed changes
disturbs all alike. All run one Inception network, ours with random weights, on the same images, which each generates
for itself. A second validation has a new Score alone, which finds what it needs of the real images in the first one's
cache file.

Seconds are processor time of all threads on a CPU, which other programs disturb less than time on the wall, and time on
the wall on a GPU: over all batches, the distances at the end (where Score also does its last incomplete batch) and the
cache file, without the making of networks. On a CPU, KID, inception score and MiFID have a turn at the smallest count
only, unless --separate_all is given.

With --cheap, features are 2,048 numbers of the image itself instead of Inception's, which shows what the scores cost
apart from Inception, and inception score, which is two sums a split, is left out.

Memory is the peak of a new process (and what PyTorch takes on its GPU) in a validation with such cheap features. Score
keeps sums for FID and up to 10,000 features of each kind for KID and MiFID.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from machine import machine, resident, synchronise
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance
from tqdm import tqdm

from callbacks import Score
from callbacks.pictures.images import to_uint8
from callbacks.pictures.randomness import isolated_rng
from callbacks.scores.features import Inception, create
from datamodules.images.loader import ImageBatch, Loader

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
BATCH = 64
SHAPE = (3, 32, 32)
DISTINCT = 10_000  # real images, whatever the count: more of them would be memory that is not Score's
COLUMNS = ("Images", "Contender", "Images through the network", "Seconds", "Of them at the end", "Beside FID alone")

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Data(LightningDataModule):
    """Random real images, as our data modules give them."""

    val_split = "val"

    def __init__(self, count: int) -> None:
        super().__init__()
        images = torch.randint(256, (DISTINCT, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        self.loader = Loader(images, None, BATCH, shuffle=False, chosen=torch.arange(count) % DISTINCT)

    def val_dataloader(self) -> Loader:
        return self.loader

    def on_after_batch_transfer(self, batch: ImageBatch, dataloader_idx: int) -> ImageBatch:
        return ImageBatch(batch.image.float() / 127.5 - 1, None)

    def reference(self, split: str) -> str:
        return f"random-{self.loader.total}"


class Noise(LightningModule):
    """Generates random images, which takes no time worth mentioning."""

    def __init__(self, bar: tqdm) -> None:
        super().__init__()
        self.bar = bar

    def generate(self, batch: ImageBatch) -> Tensor:
        return torch.rand(len(batch.image), *SHAPE, device=self.device) * 2 - 1

    def real(self, batch: ImageBatch) -> Tensor:
        return batch.image

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.bar.update(len(batch.image))


class Part(nn.Module):
    """The features or the logits of an extractor, as torchmetrics takes them."""

    num_features = 2048

    def __init__(self, extractor: nn.Module, name: str) -> None:
        super().__init__()
        self.extractor, self.name = extractor, name

    def forward(self, images: Tensor) -> Tensor:
        return getattr(self.extractor(images), self.name)


class Separate(Callback):
    """A metric of torchmetrics', of the images that Score sees."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric.to(DEVICE)

    def on_validation_batch_end(self, trainer: Trainer, module: Noise, outputs: Any, batch: Any, number: int) -> None:
        with isolated_rng(number, module.device):
            fake = to_uint8(module.generate(batch))
        if isinstance(self.metric, InceptionScore):
            self.metric.update(fake)
        else:
            self.metric.update(to_uint8(module.real(batch)), real=True)
            self.metric.update(fake, real=False)

    def on_validation_epoch_end(self, trainer: Trainer, module: Noise) -> None:
        self.value = self.metric.compute()


class Cost:
    """Seconds in a callback's hooks, those of them in its last one, and the images that went through Inception."""

    seen = 0  # images, by all contenders

    def __init__(self, callback: Callback) -> None:
        self.images, self.seconds, self.end = 0, 0.0, 0.0
        for hook in ("on_validation_epoch_start", "on_validation_batch_end", "on_validation_epoch_end"):
            setattr(callback, hook, partial(self._measure, getattr(callback, hook)))

    def _measure(self, hook: Callable[..., None], *args: Any) -> None:
        began, seen = clock(), Cost.seen
        hook(*args)
        self.end = clock() - began
        self.seconds += self.end
        self.images += Cost.seen - seen


def clock() -> float:
    synchronise()
    return time.perf_counter() if CUDA else time.process_time()


def count_images(module: nn.Module, inputs: tuple[Tensor], *_: Any) -> None:
    if isinstance(module, Inception | Pixels):
        Cost.seen += len(inputs[0])


def random_inception(path: Path) -> None:
    """A file as the published one, of random weights that keep activations in range."""
    cls = feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    with patch.object(feature_extractor_inceptionv3, "load_state_dict_from_url"), patch.object(cls, "load_state_dict"):
        weights = cls("inception-v3-compat", ["2048"]).state_dict()
    for kernel in weights.values():
        if kernel.ndim == 4:
            nn.init.kaiming_normal_(kernel)
    torch.save(weights, path)


def validate(count: int, folder: str, callbacks: list[Callback]) -> float:
    """One validation with as many real and generated images; Score's Fréchet distance."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer("gpu" if CUDA else "cpu", devices=1, default_root_dir=folder, callbacks=callbacks, **quiet)
    # Score prints its scores, which would be in the middle of a table.
    with tqdm(total=count, desc="Validating", unit="img", leave=False) as bar, redirect_stdout(None):
        trainer.validate(Noise(bar), Data(count), verbose=False)
    return float(trainer.callback_metrics[callbacks[0].monitor])


def compare(count: int, separate: bool, cheap: bool, folder: str) -> tuple[dict[str, Cost], str]:
    """The costs of the contenders, and a line with FID as ours and torchmetrics' find it."""
    network: dict[str, Any] = {"features": "__main__.Pixels"}
    if not cheap:
        random_inception(weights := Path(folder) / "inception.pth")
        network = {"features": "inception", "weights": str(weights)}
    extractor = create(**{"weights": None} | network).to(DEVICE)
    extractor(torch.zeros(BATCH, *SHAPE, dtype=torch.uint8, device=DEVICE))  # a process's first batch takes longer
    ours = partial(Score, **network, num_images=count, batch_size=BATCH, cache_dir=folder)
    features, logits = Part(extractor, "features"), Part(extractor, "logits")
    metrics = {"FID alone": FrechetInceptionDistance(features)}
    if separate:
        metrics["KID"] = KernelInceptionDistance(features, subset_size=min(1000, count))
        if not cheap:
            metrics["inception score"] = InceptionScore(logits)
        metrics["MiFID"] = MemorizationInformedFrechetInceptionDistance(features)
    first = {"ours together": ours()} | {name: Separate(metric) for name, metric in metrics.items()}
    costs = {name: Cost(callback) for name, callback in first.items()}
    fid = validate(count, folder, list(first.values()))
    costs["ours together, real images cached"] = Cost(second := ours())
    validate(count, folder, [second])
    return costs, f"{count:,} images: FID is {fid:.5g} by ours, {first['FID alone'].value:.5g} by torchmetrics'"


class Pixels(nn.Module):
    """2,048 features that cost nothing."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :2048] / 255


def peak_memory(count: int) -> float:
    """MiB that this process has had at most, after a validation."""
    with TemporaryDirectory() as folder:
        validate(count, folder, [Score("__main__.Pixels", num_images=count, cache_dir=folder)])
    return resident("VmHWM") + torch.cuda.max_memory_allocated() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default=[1000, 10_000], type=int, nargs="*")
    parser.add_argument("--separate_all", action="store_true", help="all metrics of torchmetrics' at every count")
    parser.add_argument("--cheap", action="store_true", help="features that cost nothing instead of Inception's")
    parser.add_argument("--memory_counts", default=[1000, 10_000, 100_000], type=int, nargs="*")
    options = parser.parse_args()
    nn.modules.module.register_module_forward_hook(count_images)
    torch.manual_seed(0)
    table = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"] if options.counts else []
    for count in sorted(options.counts):
        separate = CUDA or options.separate_all or count == min(options.counts)
        with TemporaryDirectory() as folder:
            costs, fid = compare(count, separate, options.cheap, folder)
        rows = {name: (cost.images, cost.seconds, cost.end) for name, cost in costs.items()}
        alone = rows["FID alone"][1]
        print(fid)
        together = rows["ours together"][1]
        if options.cheap:
            print(f"ours together take {together - alone:.1f} s more than FID alone", flush=True)
        else:
            print(f"ours together / FID alone: {together / alone:.3f} (the bar is 1.10)", flush=True)
        if separate:
            theirs = [row for name, row in rows.items() if not name.startswith("ours")]
            rows["all of torchmetrics' separately"] = tuple(map(sum, zip(*theirs, strict=True)))
        else:
            print("KID, inception score and MiFID separately would take hours: see --separate_all")
        for name, (images, seconds, end) in rows.items():
            table.append(f"| {count:,} | {name} | {images:,} | {seconds:,.1f} | {end:,.1f} | {seconds / alone:.2f} |")
    table += ["", "| Images | Peak memory |", "|---|---|"] if options.memory_counts else []
    peaks = []
    for count in sorted(options.memory_counts):
        with get_context("spawn").Pool(1) as pool:  # a new process each, or the peak might be an earlier one's
            peaks.append(pool.apply(peak_memory, (count,)))
        table.append(f"| {count:,} | {peaks[-1]:,.0f} MiB |")
    if len(peaks) > 1:
        print(f"peak memory at the largest count / the one before: {peaks[-1] / peaks[-2]:.3f} (the bar is 1.05)")
    print(f"\n{machine()}, {torch.get_num_threads()} threads\n")
    print("\n".join(table))


if __name__ == "__main__":
    main()
