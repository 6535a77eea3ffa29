"""FID, KID, inception score and MiFID from one pass of a feature extractor over real and generated images."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from callbacks.checkpoints import mode_of
from callbacks.pictures.images import folder_of, step_of, to_uint8
from callbacks.pictures.randomness import isolated_rng
from callbacks.runs.files import unwritten, whole
from callbacks.runs.metrics_file import MetricsFile
from callbacks.runs.ranks import agreed
from callbacks.scores.classifier import check_classes, extractor_of
from callbacks.scores.collect import Collector, Reference, before, read_statistics, share, spread
from callbacks.scores.distances import frechet_distance, kernel_distance, memorization_distance
from callbacks.scores.features import Extractor, create, fingerprint, name_of, probe

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
        num_images: Annotated[int, "[0, inf)"] = 10_000,
        num_real: Annotated[int, "[2, inf)"] | None = None,
        real_statistics: str | None = None,
        batch_size: Annotated[int, "[1, inf)"] = 64,
        cache_dir: str = "~/.cache/gan-lab",
        seed: Annotated[int, "[0, 4294967295]"] = 0,
    ) -> None:
        if num_images < 0 or num_images == 1:
            raise MisconfigurationException(f"--score.num_images must be 0 or at least 2; got {num_images}")
        if num_real is not None and num_real < 2:
            raise MisconfigurationException(f"--score.num_real must be at least 2; got {num_real}")
        if batch_size < 1:
            raise MisconfigurationException(f"--score.batch_size must be at least 1; got {batch_size}")
        if seed < 0:
            raise MisconfigurationException(f"--score.seed must be 0 or more; got {seed}")
        if weights and features in ("pixels", "classifier"):
            raise MisconfigurationException(
                f"--score.weights={weights} is the file of a network's weights, and --score.features={features} has "
                "none: leave one of the two out"
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
        self._extractor: Extractor | None = None
        self._key = ""  # of what it computes
        self._dim = 0  # of its features
        self._real: dict[str, Reference] = {}  # by name of the data; on the first rank
        self._fake: Collector | None = None
        self._collector: Collector | None = None
        self._plan: list[Tensor] = []  # the batches of images that scores need, those to generate from first
        # A loader, Lightning's loop, and its number of batches before.
        self._restricted: tuple[Any, Any, int | float] | None = None
        self._timed = self._estimated = False

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

    def prepare(self, trainer: Trainer, data: Any) -> None:
        """Find what is missing before images are downloaded and resized, where somebody calls this before training."""
        if not self.num_images:
            return
        if self.features == "classifier":
            check_classes(data)
        elif trainer.local_rank == 0:  # which downloads for the others
            self._extractor = create(self.features, self.weights)
        if self.real_statistics and trainer.is_global_zero:
            read_statistics(self.real_statistics)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the extractor before anything is trained, so that what is missing is missed at once."""
        if not self.num_images or stage == "predict":
            return
        self._real.clear()
        self._extractor = extractor_of(trainer, self.features, self.weights, self.cache_dir, self._extractor).cpu()
        self._key = fingerprint(self._extractor)
        with agreed(trainer):
            self._dim, seconds = probe(self._extractor, self.features, getattr(pl_module, "image_shape", (3, 32, 32)))
            real = 0
            if self.real_statistics:
                self._real |= {"given": self._given()} if trainer.is_global_zero else {}
            elif hasattr(trainer.datamodule, "count"):
                real = trainer.datamodule.count(trainer.datamodule.val_split)
                self._check_count(real)
                real = min(self.num_real or real, real)
        if stage == "fit":
            pl_module.validates_last = True
        if real and trainer.is_global_zero:
            name = self._reference_name(trainer)
            file = self._cache_file(name)
            self._estimate(seconds, 0 if file and file.exists() else real, trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.num_images:
            if trainer.val_dataloaders is not None:
                self._count(trainer, trainer.val_dataloaders, trainer.num_val_batches[0])
            elif trainer.limit_val_batches and not trainer.enable_validation:
                check_loader(None)
            keep_best(trainer, self.monitor)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, pl_module, trainer.val_dataloaders)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, pl_module, trainer.test_dataloaders)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._fake is not None and (self._restricted or not self._plan):
            self._take(trainer, pl_module, batch, batch_idx)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fake is not None:
            if self._plan and not self._restricted:  # the batches were somebody else's
                self._go_through(trainer, pl_module)
            self._finish(trainer, pl_module)

    on_test_epoch_end = on_validation_epoch_end

    def on_exception(self, *_: Any) -> None:
        self._release()

    # What they do

    def _given(self) -> Reference:
        """The published statistics.

        Raises:
            MisconfigurationException: They are none, or not of such features.
        """
        assert self.real_statistics is not None
        mu, sigma = read_statistics(self.real_statistics)
        if len(mu) != self._dim:
            raise MisconfigurationException(
                f"--score.real_statistics={self.real_statistics} is of {len(mu)} features, but "
                f"--score.features={self.features} has {self._dim}: give statistics of the same features"
            )
        return Reference(mu, sigma, None, 0)

    def _check_count(self, available: int) -> None:
        if available < 2:  # one has no spread to compare
            raise MisconfigurationException(
                f"--score needs at least 2 real images to compare with, and there is {available}: give more, or leave "
                "scores out with --score.num_images=0"
            )

    def _begin(self, trainer: Trainer, module: LightningModule, loader: Any) -> None:
        if not self.num_images or trainer.sanity_checking:
            return
        assert self._extractor is not None
        self._extractor.to(module.device)
        loop = trainer._evaluation_loop
        every = self._count(trainer, loader, loop.max_batches[0])
        self._name = self._reference_name(trainer) if self._total == every else f"unnamed {self._total}"
        self._fake = Collector(self._extractor, self.num_images, self.batch_size, classify=True)
        self._finite = torch.ones((), dtype=torch.bool, device=module.device)
        self._collector = None
        if not self._known(trainer):
            count = min(self.num_real or self._distinct, self._distinct)
            self._collector = Collector(self._extractor, count, self.batch_size, classify=False)
        if not hasattr(loader, "restrict"):
            return
        # The same batches whether the real images are known or not, and so the same noise.
        fakes = spread(self.num_images, self._total).split(self._loader_batch)
        reals = spread(self._collector.count, self._distinct).split(self._loader_batch) if self._collector else ()
        self._fakes, self._plan = len(fakes), [*fakes, *reals]
        if not _watched(trainer, module):
            self._restricted = loader, loop, loop.max_batches[0]
            loader.restrict(self._plan)
            loop.max_batches[0] = loop._data_fetcher.length = len(loader)

    def _go_through(self, trainer: Trainer, module: LightningModule) -> None:
        """Take the batches of the plan beside Lightning's loop."""
        loader = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
        loader.restrict(self._plan)
        try:
            for number, batch in enumerate(loader):
                self._take(trainer, module, trainer.strategy.batch_to_device(batch, dataloader_idx=0), number)
        finally:
            loader.restrict(None)

    def _count(self, trainer: Trainer, loader: Any, batches: int | float) -> int:
        """Note how many images an evaluation goes through; all that the loader has."""
        check_loader(loader)
        self._loader_batch = loader.batch_size
        every = getattr(loader, "total", None) or len(loader.dataset)
        # The first rank may have a batch more than the others, and all must count the same images.
        seen = trainer.strategy.broadcast(int(batches)) * self._loader_batch * trainer.world_size
        self._total = min(every, seen)
        # Unpaired data goes through the domain with fewer images again; each real image counts once.
        self._distinct = min(getattr(loader, "distinct", every), self._total)
        if not self.real_statistics:
            self._check_count(self._distinct)
        return every

    def _known(self, trainer: Trainer) -> bool:
        """Whether the real images' statistics are known: to the first rank, whose disk decides for all."""
        if trainer.is_global_zero and self._name not in self._real:
            cached = Reference.load(self._cache_file(self._name), self._dim)
            self._real |= {} if cached is None else {self._name: cached}
        return trainer.strategy.broadcast(self._name in self._real)

    def _release(self) -> None:
        """Let the loader go through all images again."""
        if self._restricted is not None:
            loader, loop, batches = self._restricted
            loader.restrict(None)
            loop.max_batches[0] = batches
        self._restricted = self._fake = self._collector = None
        self._plan = []

    def _reference_name(self, trainer: Trainer) -> str:
        """What the real images are, as far as the data module can tell, and what looks at them."""
        if self.real_statistics:
            return "given"
        data = trainer.datamodule
        if not hasattr(data, "reference"):
            return f"unnamed {trainer.state.stage}"
        return f"{data.reference(data.val_split)}-{name_of(self.features)}-{self._key}-{self.num_real or 'all'}"

    def _cache_file(self, name: str) -> Path | None:
        return None if name.startswith(("given", "unnamed")) else self.cache_dir / f"{name}.npz"

    @torch.no_grad()
    def _take(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Score a batch: its real images if they are not known yet, and its share of generated ones."""
        assert self._fake is not None
        # Loaders deal whole batches to the ranks in turn, so this is where the batch stands among all.
        number = batch_idx * trainer.world_size + trainer.global_rank
        first, n = number * self._loader_batch, len(module.real(batch))
        if not self._plan:
            if self._collector is not None:
                chosen = [i for i in range(n) if share(first + i, 1, self._collector.count, self._distinct)]
                start = before(first, self._collector.count, self._distinct)
                self._collector.add(to_uint8(module.real(batch)[chosen]), start)
            start, n = before(first, self.num_images, self._total), share(first, n, self.num_images, self._total)
            self._draw(trainer, module, batch, number, start, n)
        elif number < self._fakes:
            self._draw(trainer, module, batch, number, first, n)
        else:
            assert self._collector is not None
            self._collector.add(to_uint8(module.real(batch)), first - self._fakes * self._loader_batch)

    def _draw(self, trainer: Trainer, module: LightningModule, batch: Any, number: int, start: int, count: int) -> None:
        """Score as many images made of a batch, which are numbers start, start + 1, ... of all."""
        assert self._fake is not None
        began = time.perf_counter()
        with isolated_rng(self.seed + number, module.device):
            made = 0
            while made < count:
                images = module.generate(_first(batch, count - made))
                self._finite &= images.isfinite().all()
                self._fake.add(to_uint8(images), start + made)
                made += len(images)
        if self._fake.extracted and not self._timed:
            self._timed = True
            seconds = (time.perf_counter() - began) / self._fake.extracted
            self._estimate(seconds, self._collector.count if self._collector else 0, trainer)

    def _estimate(self, seconds: float, real: int, trainer: Trainer) -> None:
        """Say, once and where it is long, how long scores take on a CPU: so many seconds an image."""
        fake = self.num_images
        each, once = (max(1, round(seconds * n / trainer.world_size / 60)) for n in (fake, real))
        long = seconds * (fake + real) / trainer.world_size > 30 and trainer.strategy.root_device.type == "cpu"
        if long and not self._estimated:
            self._estimated = True
            first = f", and {real:,} real ones {once} min more the first time" if real else ""
            rank_zero_info(
                f"scoring {fake:,} generated images in {self.features} features takes about {each} min here each "
                f"time{first}; --score.num_images and --score.num_real change that"
            )

    def _finish(self, trainer: Trainer, module: LightningModule) -> None:
        assert self._fake is not None
        if self._collector is not None:
            reference = self._collector.reference(trainer)
            if trainer.is_global_zero:
                reference.save(self._cache_file(self._name))
                self._real[self._name] = reference
        fake = self._fake.reference(trainer)
        finite = trainer.strategy.reduce_boolean_decision(bool(self._finite))
        found: tuple[dict[str, float], int] = ({}, 0)
        if trainer.is_global_zero:
            real = self._real[self._name]
            found = self._compute(real, fake, finite), real.count
        scores, count = trainer.strategy.broadcast(found)
        entry = {
            "step": step_of(trainer, module),
            "scores": scores,
            "protocol": {
                "features": self.features,
                "resize": self._extractor.resize if self._extractor else "",
                "generated_images": self.num_images,
                "real_images": count or self.real_statistics,
                "reference": self._name,
                "weights": "raw" if getattr(module, "averaged_generator", None) is None else "ema",
                "seed": self.seed,
            },
        }
        counts = {"score/generated_images": float(self.num_images), "score/real_images": float(count)}
        self._release()
        publish(trainer, module, "scores.json", entry, self.monitor, counts)

    def _compute(self, real: Reference, fake: Reference, finite: bool) -> dict[str, float]:
        names = self.names
        numbers = {"real": (real.mu, real.sigma), "generated": (fake.mu, fake.sigma)}
        wrong = [f"the {kind} images' features" for kind, parts in numbers.items() if not _all_finite(*parts)]
        if wrong := wrong if finite else ["the generated images' pixels"]:
            training = "" if "real" in wrong[0] else ": has training diverged?"
            rank_zero_warn(f"{wrong[0]} are not all finite numbers, so there is no score{training}")
            return {names["frechet"]: float("nan")}
        frechet = frechet_distance(real.mu, real.sigma, fake.mu, fake.sigma)
        scores = {names["frechet"]: frechet}
        if real.features is not None and fake.features is not None:
            features = real.features, fake.features
            scores[names["kernel"]] = kernel_distance(*features, seed=self.seed)
            # As the competition's code has it, whose addend keeps copies of the real images from dividing by zero.
            scores[names["memorization_frechet"]] = frechet / (memorization_distance(*features) + 1e-14)
        if fake.classes is not None:
            scores[names["classifier_score"]], scores[names["classifier_score"] + "_std"] = fake.classes.compute()
        return {name: float(score) for name, score in scores.items()}


def _first(batch: Any, n: int) -> Any:
    """The first n elements of a batch (the batch itself if it has no more)."""
    if isinstance(batch, Tensor):
        return batch[:n]
    parts = [part[:n] if isinstance(part, Tensor) else part for part in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else parts


def _all_finite(*tensors: Tensor) -> bool:
    return all(tensor.isfinite().all() for tensor in tensors)


def _watched(trainer: Trainer, module: LightningModule) -> bool:
    """Whether somebody else looks at the batches of this evaluation, and so needs all of them."""
    kind = "test" if trainer.testing else "validation"
    hooks = [f"on_{kind}_batch_start", f"on_{kind}_batch_end"]
    methods = [getattr(type(part), hook) for part in (*trainer.callbacks, module) for hook in hooks]
    methods.append(getattr(type(module), f"{kind}_step"))
    strangers = any(not method.__module__.startswith(BLIND) for method in methods)
    return strangers or any(getattr(callback, "needs_all", False) for callback in trainer.callbacks)


def check_loader(loader: Any) -> None:
    """Refuse validation data whose images cannot be counted, and shared out, before they come.

    Raises:
        MisconfigurationException: It is none, several loaders, or one that does not know how many images it has.
    """
    counted = hasattr(loader, "total") or hasattr(getattr(loader, "dataset", None), "__len__")
    if counted and isinstance(getattr(loader, "batch_size", None), int):
        return
    found = "there is none" if loader is None else f"got a {type(loader).__name__}"
    if isinstance(loader, list | tuple | dict):
        found = f"got {len(loader)} in a {type(loader).__name__}"
    elif hasattr(loader, "dataset"):
        found += f" of {type(loader.dataset).__name__} with " + ("a batch_sampler" if counted else "no length")
    raise MisconfigurationException(
        "Score compares with the images of one validation DataLoader that has a batch_size and a sized dataset; "
        f"{found}: give such a one, or leave scores out with --score.num_images=0"
    )


def keep_best(trainer: Trainer, name: str) -> None:
    """Let the loggers that summarise a run keep a score's best value; say where there will be none."""
    if not trainer.enable_validation:
        why = "--trainer.limit_val_batches is 0" if trainer.limit_val_batches == 0 else "there are no images for it"
        rank_zero_warn(f"nothing is scored, and no best checkpoint chosen, since there is no validation: {why}")
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
    if trainer.is_global_zero:
        if not trainer.fast_dev_run:
            record(folder_of(trainer) / file, entry, monitor)
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
