"""FID, KID, inception score, MiFID and scores of one's own, from one pass of a feature extractor."""

import time
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from callbacks.command_line.annotations import check_ranges
from callbacks.pictures.images import step_of, validation_batches
from callbacks.pictures.randomness import isolated_rng
from callbacks.runs.ranks import agreed
from callbacks.scores.classifier import check_classes, extractor_of
from callbacks.scores.collect import OF_REAL, Collected, Collector, read_statistics
from callbacks.scores.features import Extractor, create, fingerprint, name_of, probe, text_of
from callbacks.scores.history import Mode, keep_best, publish
from callbacks.scores.metrics import Metric, compute, needs, possible, select
from callbacks.scores.passes import Extent, Pass, check_count, check_loader, drawing, extent_of

# Where hooks look at no batch of an evaluation, unless they say so.
BLIND = ("callbacks.", "gans.training.module", "gans.training.adversarial", "lightning.")


class Score(Callback):
    """Compare generated with real images whenever Lightning validates or tests.

    Only Inception features give ``score/fid``, ``score/kid``, ``score/inception_score`` and ``score/mifid``. With
    other features the same distances are called ``score/frechet_NAME``, ``score/kernel_NAME``,
    ``score/classifier_score_NAME`` (classifiers only) and ``score/memorization_frechet_NAME``, because their values
    can be compared with no published FID.

    Scores go to the loggers, to the console and, with everything they depend on, to ``scores.json`` in the run folder.
    They are the same for any number of devices, and drawing images for them leaves the training's random state alone.

    Args:
        features: "inception", "pixels", "classifier" (a small one, trained once on the data's own classes), the name of
            a torchvision classifier such as "resnet18", or an nn.Module, also by class path if it has no arguments,
            that turns uint8 images (N, 3, H, W) into features (N, D).
        weights: File with the extractor's weights; by default its library downloads them.
        num_images: Generated images to score; papers take 10,000 or 50,000. 0 scores nothing.
        num_real: Real images to compare with, spread evenly over the split; by default all of them.
        real_statistics: An .npz file with published statistics of the real images, mu and sigma, for the Fréchet
            distance; the scores that need real features (KID, MiFID) are then left out.
        batch_size: Images the extractor takes at a time.
        cache_dir: Folder that keeps statistics of real images for later runs.
        seed: Seed of the generated images and of KID's subsets.
        metrics: Some of fid, kid, mifid and inception_score (of other features than Inception's frechet, kernel,
            memorization_frechet and classifier_score), all of these that can be had ("all"), coverage, class_accuracy,
            and scores of one's own (on ``callbacks.scores.Metric``, by class path); the first chooses the best
            checkpoint.

    Raises:
        MisconfigurationException: An argument is out of range, there is no such score, or (before training) features or
            files are missing.
    """

    def __init__(
        self,
        features: str | nn.Module = "inception",
        weights: str | None = None,
        num_images: Annotated[int, "[0, inf)"] = 10_000,
        num_real: Annotated[int, "[2, inf)"] | None = None,
        real_statistics: str | None = None,
        batch_size: Annotated[int, "[1, inf)"] = 64,
        cache_dir: str = "~/.cache/gan-lab",
        seed: Annotated[int, "[0, 4294967295]"] = 0,
        metrics: list[Metric | str] = ["all"],  # noqa: B006
    ) -> None:
        if num_images == 1:
            raise MisconfigurationException(f"--score.num_images must be 0 or at least 2; got {num_images}")
        if weights and (isinstance(features, nn.Module) or features in ("pixels", "classifier")):
            raise MisconfigurationException(
                f"--score.weights={weights} is the file of a network's weights, and "
                f"--score.features={text_of(features)} has none to load: leave one of the two out"
            )
        self.features = features
        self.weights = weights
        self.num_images = num_images
        self.num_real = num_real
        self.real_statistics = real_statistics
        self.batch_size = batch_size
        self.cache_dir = Path(cache_dir).expanduser()
        if next((path for path in (self.cache_dir, *self.cache_dir.parents) if path.exists()), Path("/")).is_file():
            raise MisconfigurationException(f"--score.cache_dir={cache_dir} is, or lies in, a file: name a folder")
        self.seed = seed
        check_ranges("score", Score, self)
        self.metrics = select(metrics, features, seed)
        self._extractor: Extractor | None = None
        self._key = ""  # of what it computes
        self._dim = 0  # of its features
        self._known: dict[str, Collected] = {}  # of real images, by their name; on the first rank
        self._pass: Pass | None = None  # of the evaluation that is under way
        # A loader, Lightning's loop, and its number of batches before.
        self._restricted: tuple[Any, Any, int | float] | None = None
        self._timed = self._estimated = False
        self._extraction = 0.0  # seconds that it takes of a validation, on a CPU

    @property
    def directions(self) -> dict[str, Mode]:
        """Names of the scores, each with whether its smallest or largest value is the best."""
        metrics = self.metrics if self.num_images else {}
        return {f"score/{m.called(self.features)}": "max" if m.higher_is_better else "min" for m in metrics}

    @property
    def monitor(self) -> str | None:
        """Name of the first score, by which checkpoints are chosen; None if there is none."""
        return next(iter(self.directions), None)

    # Lightning's hooks

    def prepare(self, trainer: Trainer, data: Any) -> None:
        """Find what is missing before images are downloaded and resized, where somebody calls this before training."""
        if not self.directions:
            return
        if self.features == "classifier":
            check_classes(data)
        elif trainer.local_rank == 0:  # which downloads for the others
            self._extractor = create(self.features, self.weights)
        if self.real_statistics and trainer.is_global_zero:
            read_statistics(self.real_statistics)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the extractor before anything is trained, so that what is missing is missed at once."""
        if not self.directions or stage == "predict":
            return
        self._known.clear()
        self._extractor = extractor_of(trainer, self.features, self.weights, self.cache_dir, self._extractor).cpu()
        self._key = fingerprint(self._extractor)
        with agreed(trainer):
            shape = getattr(pl_module, "image_shape", (3, 32, 32))
            self._dim, logits, seconds = probe(self._extractor, self.features, shape)
            lacking = {} if getattr(pl_module, "asks", "") else {"asked": "the generator is not told a class"}
            if not logits:
                blind = f"--score.features={text_of(self.features)} tells no classes apart"
                lacking |= {"classes": blind, "asked": blind}
            if self.real_statistics:
                lacking["features"] = f"--score.real_statistics={self.real_statistics} has no features of real images"
            self.metrics = possible(self.metrics, self.features, lacking)
            real = 0
            if self.real_statistics and trainer.is_global_zero:
                mu, sigma = read_statistics(self.real_statistics)
                if len(mu) != self._dim:
                    raise MisconfigurationException(
                        f"--score.real_statistics={self.real_statistics} is of {len(mu)} features, but --score.features"
                        f"={text_of(self.features)} has {self._dim}: give statistics of the same features"
                    )
                self._known["given"] = Collected(0, mu, sigma)
            elif not self.real_statistics and hasattr(trainer.datamodule, "count") and self._compares:
                real = trainer.datamodule.count(trainer.datamodule.val_split)
                check_count(real)
                real = min(self.num_real or real, real)
        if stage == "fit":
            pl_module.validates_last = True  # type: ignore[assignment]
        if real and trainer.is_global_zero:
            name = self._reference_name(trainer)
            file = self._cache_file(name)
            new = 0 if file and file.exists() else real
            if trainer.strategy.root_device.type == "cpu":
                self._extraction = seconds * (self.num_images + new) / trainer.world_size
            self._estimate(seconds, new, trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.directions:
            if trainer.val_dataloaders is not None:
                self._extent(trainer, trainer.val_dataloaders, trainer.num_val_batches[0])
            elif trainer.limit_val_batches and not trainer.enable_validation:
                check_loader(None)
            keep_best(trainer, self.directions)

    def shortest(self, trainer: Trainer, module: Any) -> float:
        """About how many seconds a validation takes at least, by the second of two batches that are generated."""
        if not self.directions or trainer.val_dataloaders is None:
            return 0.0
        batch = next(validation_batches(trainer))
        for _ in range(2):
            began = time.perf_counter()
            with isolated_rng(self.seed, module.device), torch.no_grad():
                images = module.generate(batch)
                images.sum().item()  # waits for the device
            seconds = (time.perf_counter() - began) / len(images)
        return seconds * self.num_images / trainer.world_size + self._extraction

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, pl_module, trainer.val_dataloaders)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, pl_module, trainer.test_dataloaders)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._pass is None or (self._pass.plan and not self._restricted):
            return
        began = time.perf_counter()
        self._pass.take(batch, batch_idx)
        of_fake, of_real = self._pass.of_fake, self._pass.of_real
        if of_fake.extracted and not self._timed:
            self._timed = True
            seconds = (time.perf_counter() - began) / (of_fake.extracted + (of_real.extracted if of_real else 0))
            self._estimate(seconds, of_real.count if of_real else 0, trainer)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._pass is not None:
            if self._pass.plan and not self._restricted:  # the batches were somebody else's
                self._pass.go_through(lambda batch: trainer.strategy.batch_to_device(batch, dataloader_idx=0))
            self._finish(trainer, pl_module, self._pass)

    on_test_epoch_end = on_validation_epoch_end

    def on_exception(self, *_: Any) -> None:
        self._release()

    # What they do

    @property
    def _compares(self) -> bool:
        """Whether any of the scores looks at real images."""
        return any(metric.needs_real for metric in self.metrics)

    def _begin(self, trainer: Trainer, module: Any, loader: Any) -> None:
        if not self.directions or trainer.sanity_checking:
            return
        assert self._extractor is not None
        self._extractor.to(module.device)
        loop = trainer._evaluation_loop
        extent = self._extent(trainer, loader, loop.max_batches[0])
        whole = extent.total == extent_of(loader).total
        self._name = self._reference_name(trainer) if whole else f"unnamed {extent.total}"
        coded = getattr(module, "asks", "") == "code"
        of_fake = Collector(self._extractor, self.num_images, self.batch_size, needs(self.metrics), coded)
        of_real = None
        if self._compares and not self._is_known(trainer):
            count = min(self.num_real or extent.distinct, extent.distinct)
            of_real = Collector(self._extractor, count, self.batch_size, OF_REAL)
        ranks = trainer.global_rank, trainer.world_size
        self._pass = Pass(drawing(module), module.real, of_fake, of_real, extent, loader, self.seed, *ranks)
        if self._pass.plan and not _watched(trainer, module):
            self._restricted = loader, loop, loop.max_batches[0]
            loader.restrict(self._pass.plan)
            loop.max_batches[0] = loop._data_fetcher.length = len(loader)

    def _extent(self, trainer: Trainer, loader: Any, batches: int | float) -> Extent:
        """How many images an evaluation of so many batches on the first rank goes through."""
        check_loader(loader)
        # The first rank may have a batch more than the others, and all must count the same images.
        seen = trainer.strategy.broadcast(int(batches)) * loader.batch_size * trainer.world_size
        extent = extent_of(loader, seen)
        if self._compares and not self.real_statistics:
            check_count(extent.distinct)
        return extent

    def _is_known(self, trainer: Trainer) -> bool:
        """Whether the real images' statistics are known: to the first rank, whose disk decides for all."""
        if trainer.is_global_zero and self._name not in self._known:
            cached = Collected.load(self._cache_file(self._name), self._dim)
            self._known |= {} if cached is None else {self._name: cached}
        return trainer.strategy.broadcast(self._name in self._known)

    def _release(self) -> None:
        """Let the loader go through all images again."""
        if self._restricted is not None:
            loader, loop, batches = self._restricted
            loader.restrict(None)
            loop.max_batches[0] = batches
        self._restricted = self._pass = None

    def _reference_name(self, trainer: Trainer) -> str:
        """What the real images are, as far as the data module can tell, and what looks at them."""
        if self.real_statistics:
            return "given"
        data = trainer.datamodule
        if not hasattr(data, "reference"):
            return f"unnamed {trainer.state.stage}"
        return f"{data.reference(data.val_split)}-{name_of(self.features)}-{self._key}-{self.num_real or 'all'}"

    def _cache_file(self, name: str) -> Path | None:
        """Where statistics are kept; a module's are not, because what it was made with has no name."""
        kept = isinstance(self.features, str) and not name.startswith(("given", "unnamed"))
        return self.cache_dir / f"{name}.npz" if kept else None

    def _estimate(self, seconds: float, real: int, trainer: Trainer) -> None:
        """Say, once and where it is long, how long scores take on a CPU: so many seconds an image."""
        fake = self.num_images
        each, once = (max(1, round(seconds * n / trainer.world_size / 60)) for n in (fake, real))
        long = seconds * (fake + real) / trainer.world_size > 30 and trainer.strategy.root_device.type == "cpu"
        if long and not self._estimated:
            self._estimated = True
            first = f", and {real:,} real ones {once} min more the first time" if real else ""
            rank_zero_info(
                f"scoring {fake:,} generated images in {text_of(self.features)} features takes about {each} min here "
                f"each time{first}; --score.num_images and --score.num_real change that"
            )

    def _finish(self, trainer: Trainer, module: LightningModule, done: Pass) -> None:
        assert self._extractor is not None
        if done.of_real is not None:
            reference = done.of_real.collected(trainer)
            if trainer.is_global_zero:
                reference.save(self._cache_file(self._name))
                self._known[self._name] = reference
        fake = done.of_fake.collected(trainer)
        found: tuple[dict[str, float], int] = ({}, 0)
        with agreed(trainer):
            if trainer.is_global_zero:
                real = self._known.get(self._name)
                scores = compute(self.metrics, real, fake, self.features)
                found = {f"score/{name}": value for name, value in scores.items()}, real.count if real else 0
        scores, count = trainer.strategy.broadcast(found)
        entry = {
            "step": step_of(trainer, module),
            "scores": scores,
            "protocol": {
                "features": text_of(self.features),
                "resize": self._extractor.resize,
                "generated_images": self.num_images,
                "real_images": count or self.real_statistics,
                "reference": self._name,
                "weights": "raw" if getattr(module, "averaged_generator", None) is None else "ema",
                "seed": self.seed,
            },
        }
        counts = {"score/generated_images": float(self.num_images), "score/real_images": float(count)}
        self._release()
        publish(trainer, module, "scores.json", entry, self.directions, counts)


def _watched(trainer: Trainer, module: LightningModule) -> bool:
    """Whether somebody else looks at the batches of this evaluation, and so needs all of them."""
    kind = "test" if trainer.testing else "validation"
    hooks = [f"on_{kind}_batch_start", f"on_{kind}_batch_end"]
    methods = [getattr(type(part), hook) for part in (*trainer.callbacks, module) for hook in hooks]
    methods.append(getattr(type(module), f"{kind}_step"))
    strangers = any(not method.__module__.startswith(BLIND) for method in methods)
    return strangers or any(getattr(callback, "needs_all", False) for callback in trainer.callbacks)
