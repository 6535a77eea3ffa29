"""FID, KID, inception score and MiFID from one pass of a feature extractor over real and generated images."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.checkpoints import mode_of
from callbacks.classifier import extractor_of
from callbacks.collect import Collector, Reference, before, read_statistics, share
from callbacks.distances import frechet_distance, kernel_distance, memorization_distance
from callbacks.features import Extractor, name_of
from callbacks.files import unwritten, whole
from callbacks.images import step_of, to_uint8
from callbacks.metrics_file import MetricsFile
from callbacks.randomness import isolated_rng


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
            a torchvision classifier such as "resnet18", or the class path of an nn.Module without arguments that turns
            uint8 images (N, 3, H, W) into features (N, D).
        weights: File with the extractor's weights; by default its library downloads them.
        num_images: Generated images to score; papers take 10,000 or 50,000. 0 scores nothing.
        num_real: Real images to compare with, spread evenly over the split; by default all of them.
        real_statistics: An .npz file with published statistics of the real images, mu and sigma, for the Fréchet
            distance; the scores that need real features (KID, MiFID) are then left out.
        batch_size: Images the extractor takes at a time.
        cache_dir: Folder that keeps statistics of real images for later runs.
        seed: Seed of the generated images and of KID's subsets.

    Raises:
        MisconfigurationException: An argument is out of range, or (before training) features or files are missing.
    """

    def __init__(
        self,
        features: str = "inception",
        weights: str | None = None,
        num_images: int = 10_000,
        num_real: int | None = None,
        real_statistics: str | None = None,
        batch_size: int = 64,
        cache_dir: str = "~/.cache/gan-lab",
        seed: int = 0,
    ) -> None:
        if num_images < 0 or num_images == 1:
            raise MisconfigurationException(f"--score.num_images must be 0 or at least 2; got {num_images}")
        if num_real is not None and num_real < 2:
            raise MisconfigurationException(f"--score.num_real must be at least 2; got {num_real}")
        self.features = features
        self.weights = weights
        self.num_images = num_images
        self.num_real = num_real
        self.real_statistics = real_statistics
        self.batch_size = batch_size
        self.cache_dir = Path(cache_dir).expanduser()
        self.seed = seed
        self._extractor: Extractor | None = None
        self._real: dict[str, Reference] = {}  # by name of the data
        self._fake: Collector | None = None
        self._collector: Collector | None = None
        self._estimated = False

    @property
    def names(self) -> dict[str, str]:
        """What the Fréchet and kernel distances, the classifier's and the memorization score are called."""
        kinds = ("frechet", "kernel", "classifier_score", "memorization_frechet")
        if self.features == "inception":
            return dict(zip(kinds, (f"score/{n}" for n in ("fid", "kid", "inception_score", "mifid")), strict=True))
        return {kind: f"score/{kind}_{name_of(self.features)}" for kind in kinds}

    @property
    def monitor(self) -> str:
        """Name of the Fréchet distance, by which checkpoints are chosen."""
        return self.names["frechet"]

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the extractor before anything is trained, so that what is missing is missed at once."""
        if not self.num_images or stage == "predict":
            return
        if self._extractor is None:
            extractor = self.features, self.weights, self.cache_dir
            if trainer.local_rank == 0:
                self._extractor = extractor_of(trainer, *extractor)
            trainer.strategy.barrier("score weights")
            self._extractor = self._extractor or extractor_of(trainer, *extractor)
        if self.real_statistics:
            mu, sigma = read_statistics(self.real_statistics)
            self._real["given"] = Reference(mu, sigma, None, 0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.num_images:
            keep_best(trainer, self.monitor)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # and so, unlike at max_steps alone, Lightning validates once more

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, pl_module, trainer.val_dataloaders, trainer.num_val_batches)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, pl_module, trainer.test_dataloaders, trainer.num_test_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._fake is not None:
            self._take(trainer, pl_module, batch, batch_idx)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fake is not None:
            self._finish(trainer, pl_module)

    on_test_epoch_end = on_validation_epoch_end

    # What they do

    def _begin(self, trainer: Trainer, module: LightningModule, loader: Any, batches: list[int | float]) -> None:
        if not self.num_images or trainer.sanity_checking:
            return
        assert self._extractor is not None
        self._extractor.to(module.device)
        self._loader_batch = loader.batch_size
        every = getattr(loader, "total", None) or len(loader.dataset)
        # The first rank may have a batch more than the others, and all must count the same images.
        seen = trainer.strategy.broadcast(int(batches[0])) * self._loader_batch * trainer.world_size
        self._total = min(every, seen)
        # Unpaired data goes through the domain with fewer images again; each real image counts once.
        self._distinct = min(getattr(loader, "distinct", every), self._total)
        self._name = self._reference_name(trainer) if self._total == every else f"unnamed {self._total}"
        self._fake = Collector(self._extractor, self.num_images, self.batch_size, classify=True)
        self._collector = None
        if self._name not in self._real and (cached := Reference.load(self._cache_file())) is not None:
            self._real[self._name] = cached
        if self._name not in self._real:
            count = min(self.num_real or self._distinct, self._distinct)
            self._collector = Collector(self._extractor, count, self.batch_size, classify=False)

    def _reference_name(self, trainer: Trainer) -> str:
        """What the real images are, as far as the data module can tell."""
        if self.real_statistics:
            return "given"
        data = trainer.datamodule
        if not hasattr(data, "reference"):
            return f"unnamed {trainer.state.stage}"
        name = f"{data.reference(data.val_split)}-{self.features}-{self.num_real or 'all'}"
        if self.weights:
            status = Path(self.weights).stat()
            name += f"-{status.st_size}-{status.st_mtime_ns}"
        return name

    def _cache_file(self) -> Path | None:
        return None if self._name.startswith(("given", "unnamed")) else self.cache_dir / f"{self._name}.npz"

    @torch.no_grad()
    def _take(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Score a batch: its real images if they are not known yet, and its share of generated ones."""
        assert self._fake is not None
        # Loaders deal whole batches to the ranks in turn, so this is where the batch stands among all images.
        number = batch_idx * trainer.world_size + trainer.global_rank
        real = module.real(batch)
        first = number * self._loader_batch
        if self._collector is not None:
            chosen = [i for i in range(len(real)) if share(first + i, 1, self._collector.count, self._distinct)]
            start = before(first, self._collector.count, self._distinct)
            self._collector.add(to_uint8(real[chosen]), start)
        count = share(first, len(real), self.num_images, self._total)
        start = before(first, self.num_images, self._total)
        began = time.perf_counter()
        with isolated_rng(self.seed + number, module.device):
            made = 0
            while made < count:
                images = module.generate(_first(batch, count - made))
                self._fake.add(to_uint8(images), start + made)
                made += len(images)
        if not self._estimated and self._fake.extracted:
            self._estimated = True
            self._estimate((time.perf_counter() - began) / self._fake.extracted, trainer, module)

    def _estimate(self, seconds: float, trainer: Trainer, module: LightningModule) -> None:
        images = self.num_images + (self._collector.count if self._collector else 0)
        minutes = seconds * images / trainer.world_size / 60
        if module.device.type == "cpu" and minutes > 0.5:
            rank_zero_info(
                f"scoring {images:,} images in {self.features} features takes about {minutes:.0f} min here each time; "
                "--score.num_images and --score.num_real change that"
            )

    def _finish(self, trainer: Trainer, module: LightningModule) -> None:
        assert self._fake is not None
        if self._collector is not None:
            reference = self._collector.reference(trainer)
            reference.save(self._cache_file() if trainer.is_global_zero else None)
            self._real[self._name] = reference
        real, fake = self._real[self._name], self._fake.reference(trainer)
        scores = trainer.strategy.broadcast(self._compute(real, fake) if trainer.is_global_zero else {})
        entry = {
            "step": step_of(trainer, module),
            "scores": scores,
            "protocol": {
                "features": self.features,
                "resize": self._extractor.resize if self._extractor else "",
                "generated_images": self.num_images,
                "real_images": real.count or self.real_statistics,
                "reference": self._name,
                "weights": "raw" if getattr(module, "averaged_generator", None) is None else "ema",
                "seed": self.seed,
            },
        }
        counts = {"score/generated_images": float(self.num_images), "score/real_images": float(real.count)}
        publish(trainer, module, "scores.json", entry, self.monitor, counts)
        self._fake = self._collector = None

    def _compute(self, real: "Reference", fake: "Reference") -> dict[str, float]:
        names = self.names
        if real.mu.shape != fake.mu.shape:
            given = f"--score.real_statistics={self.real_statistics}" if self.real_statistics else self._cache_file()
            instead = "give statistics of the same features" if self.real_statistics else "delete that file"
            raise MisconfigurationException(
                f"{given} is of {len(real.mu)} features, but --score.features={self.features} has {len(fake.mu)}: "
                f"{instead}"
            )
        if not (torch.isfinite(fake.mu).all() and torch.isfinite(real.mu).all()):
            rank_zero_warn(
                "the images' features are not all finite numbers, so there is no score: has training diverged?"
            )
            return {names["frechet"]: float("nan")}
        frechet = frechet_distance(real.mu, real.sigma, fake.mu, fake.sigma)
        scores = {names["frechet"]: frechet}
        if real.features is not None and fake.features is not None:
            scores[names["kernel"]] = kernel_distance(real.features, fake.features, seed=self.seed)
            scores[names["memorization_frechet"]] = frechet / memorization_distance(real.features, fake.features)
        if fake.classes is not None:
            scores[names["classifier_score"]], scores[names["classifier_score"] + "_std"] = fake.classes.compute()
        return {name: float(score) for name, score in scores.items()}


def _first(batch: Any, n: int) -> Any:
    """The first n elements of a batch (the batch itself if it has no more)."""
    if isinstance(batch, Tensor):
        return batch[:n]
    parts = [part[:n] if isinstance(part, Tensor) else part for part in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else parts


def keep_best(trainer: Trainer, name: str) -> None:
    """Let the loggers that summarise a run keep a score's best value."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, WandbLogger):
            logger.experiment.define_metric(name, step_metric="trainer/global_step", summary=mode_of(name))


def publish(
    trainer: Trainer, module: LightningModule, file: str, entry: dict[str, Any], monitor: str, counts: dict[str, float]
) -> None:
    """Give a moment's scores to Lightning, the console, a file in the run folder and the loggers; on every rank.

    ``trainer.validate`` and ``trainer.test`` return them, with the counts and the step.

    Args:
        trainer: The trainer.
        module: The module, in a hook that may log.
        file: Name of the file.
        entry: The "step", the "scores" by name (equal on all ranks) and the "protocol", all they depend on.
        monitor: Name of the score by which the best moment is chosen.
        counts: What the loggers get beside the scores.
    """
    step, scores = entry["step"], entry["scores"]
    fitting = trainer.state.fn == TrainerFn.FITTING
    # Lightning returns what it sends to the loggers itself, which it does at the step among them.
    logged = scores if fitting else {"step": float(step)} | scores | counts
    module.log_dict(logged, logger=not fitting, sync_dist=trainer.world_size > 1)
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    if trainer.is_global_zero:
        if not trainer.fast_dev_run:
            record(folder / file, entry, monitor)
        line = "  ".join(f"{name} {value:.5g}" for name, value in scores.items())
        show = trainer.progress_bar_callback.print if trainer.progress_bar_callback else print
        show(f"step {step:,}  {line}")
    protocol = {f"{monitor.partition('/')[0]}_protocol": entry["protocol"]}
    for logger in trainer.loggers:
        if fitting:
            logger.log_metrics(scores | counts, step=step)
        elif isinstance(logger, MetricsFile):
            logger.cut(logger.rows)  # nothing is written again
        if trainer.is_global_zero and isinstance(logger, WandbLogger):
            logger.experiment.config.update(protocol, allow_val_change=True)


def record(path: Path, entry: dict[str, Any], monitor: str) -> None:
    """Add a moment's scores to a run's file of them, in order of steps; they replace those of the same step.

    Args:
        path: The file, which holds the "history", the "best" moment by the "monitor" and the "final" one.
        entry: The "step", the "scores" by name, and what they depend on.
        monitor: Name of the score that chooses the best.
    """
    try:
        history = [old for old in _read(path)[0] if old["step"] != entry["step"]]
        _write(path, sorted([*history, entry], key=lambda e: e["step"]), monitor)
    except OSError as error:
        unwritten(path.name, path, error)


def keep_until(path: Path, step: int, inclusive: bool) -> None:
    """Cut a run's file of scores, if there is one, back to a step that training goes on from.

    Args:
        path: The file; it is removed where nothing is left.
        step: The step.
        inclusive: Whether the scores of the step itself stay.
    """
    try:
        history, monitor = _read(path)
        kept = [entry for entry in history if entry["step"] < step + inclusive]
        if not kept:
            path.unlink(missing_ok=True)
        elif kept != history:
            _write(path, kept, monitor)
    except OSError as error:
        unwritten(path.name, path, error)


def _read(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The history in a file of scores and the name of the monitor; a damaged file is put aside."""
    if not path.exists():
        return [], ""
    try:
        content = json.loads(path.read_bytes())
        history = content["history"]
        right = isinstance(history, list) and all(
            type(entry["step"]) is int and isinstance(entry["scores"], dict) for entry in history
        )
        # Files of earlier versions do not name it, but it was always the first.
        monitor = content.get("monitor") or next((name for entry in history[-1:] for name in entry["scores"]), "")
    except (ValueError, TypeError, KeyError, AttributeError):
        right = False
    if right:
        return history, monitor
    damaged = path.with_name(f"{path.name}.damaged")
    path.replace(damaged)
    rank_zero_warn(f"{path} is damaged: it is kept as {damaged.name}, and a new one begun")
    return [], ""


def _write(path: Path, history: list[dict[str, Any]], monitor: str) -> None:
    def value(entry: dict[str, Any]) -> Any:
        return entry["scores"].get(monitor)

    # Entries that were scored in other features have no such value.
    finite = [e for e in history if isinstance(value(e), int | float) and value(e) == value(e)]
    best = (max if mode_of(monitor) == "max" else min)(finite, key=value, default=None)
    content = {"monitor": monitor, "best": best, "final": history[-1], "history": history}
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2))
