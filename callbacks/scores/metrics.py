"""Scores as small objects: each says what it needs of a pass over the images, and computes its number of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from callbacks.scores.collect import Collected
from callbacks.scores.distances import coverage, kernel_distance, memorization_distance
from callbacks.scores.features import made_of, name_of, text_of

Value = float | Tensor | tuple[float | Tensor, float | Tensor]


class Metric(ABC):
    """A number that says how good generated images are; a class on this one is a score of one's own.

    Attributes:
        name: What it is called; ``_FEATURES`` is appended where these are others than Inception's.
        published: What papers call it when the features are Inception's, where that is another name.
        higher_is_better: Whether the largest value is the best.
        needs: What it looks at: "moments" (``mu`` and ``sigma``), "features" (up to 10,000 of each kind of images),
            "classes" or "asked" (of generated images only, where the features come with logits, and the latter where
            the generator is told a class or a code).
        needs_real: Whether it compares with real images; if none of the scores does, none are looked at.
    """

    name: str
    published: str = ""
    higher_is_better: bool = False
    needs: tuple[str, ...] = ("features",)
    needs_real: bool = True

    @abstractmethod
    def compute(self, real: Collected, fake: Collected) -> Value:
        """The score, or the score and its standard deviation, which is called the same with ``_std`` behind it.

        Args:
            real: What was collected of the real images; None without ``needs_real``.
            fake: The same of the generated ones.
        """

    def called(self, features: str | nn.Module) -> str:
        """The name of the score in some features."""
        inception = isinstance(features, str) and features == "inception"
        return (self.published or self.name) if inception else f"{self.name}_{name_of(features)}"


class Frechet(Metric):
    """FID, in other features: see ``frechet_distance``."""

    name, published, needs = "frechet", "fid", ("moments",)

    def compute(self, real: Collected, fake: Collected) -> Value:
        return fake.frechet_to(real)


class Kernel(Metric):
    """KID, in other features: see ``kernel_distance``.

    Args:
        seed: Seed of the choice of subsets.
    """

    name, published = "kernel", "kid"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def compute(self, real: Collected, fake: Collected) -> Value:
        return kernel_distance(real.features, fake.features, seed=self.seed)


class MemorizationFrechet(Metric):
    """MiFID, in other features: the Fréchet distance divided by ``memorization_distance``."""

    name, published, needs = "memorization_frechet", "mifid", ("moments", "features")

    def compute(self, real: Collected, fake: Collected) -> Value:
        # As the competition's code has it, whose addend keeps copies of the real images from dividing by zero.
        return fake.frechet_to(real) / (memorization_distance(real.features, fake.features) + 1e-14)


class ClassifierScore(Metric):
    """The inception score, of other classifiers: see ``ClassSums``."""

    name, published, needs = "classifier_score", "inception_score", ("classes",)
    higher_is_better, needs_real = True, False

    def compute(self, real: Collected, fake: Collected) -> Value:
        return fake.classes.compute()


class Coverage(Metric):
    """How much of the real images there is among the generated ones: see ``coverage``."""

    name, higher_is_better = "coverage", True

    def compute(self, real: Collected, fake: Collected) -> Value:
        return coverage(real.features, fake.features)


class ClassAccuracy(Metric):
    """Share of generated images in which the features' classifier sees the class that was asked for.

    Codes are matched with a class each, one to one, as agrees best (InfoGAN, section 7.2, matches them likewise).
    """

    name, needs, higher_is_better, needs_real = "class_accuracy", ("asked",), True, False

    def compute(self, real: Collected, fake: Collected) -> Value:
        asked, seen = fake.asked
        counts = torch.zeros(int(fake.asked.max()) + 1, int(fake.asked.max()) + 1)
        counts.index_put_((asked, seen), torch.ones(len(asked)), accumulate=True)
        if not fake.coded:
            return counts.diagonal().sum() / len(asked)
        from scipy.optimize import linear_sum_assignment

        codes, classes = linear_sum_assignment(counts.numpy(), maximize=True)
        return counts[codes, classes].sum() / len(asked)


ALL = (Frechet, Kernel, MemorizationFrechet, ClassifierScore)  # of "all"
KNOWN: dict[str, type[Metric]] = {cls.name: cls for cls in (*ALL, Coverage, ClassAccuracy)}
PUBLISHED = {cls.published: cls for cls in ALL}


def select(metrics: Sequence[Metric | str], features: str | nn.Module, seed: int) -> dict[Metric, bool]:
    """The scores that ``--score.metrics`` asks for, each with whether it does so by name, and not by "all".

    Raises:
        MisconfigurationException: There is no such score, or not of such features, or one comes twice.
    """
    chosen: dict[Metric, bool] = {}
    of_all = [cls.name for cls in ALL]
    named = [(part, metric != "all") for metric in metrics for part in (of_all if metric == "all" else [metric])]
    for metric, asked in named:
        cls = (KNOWN | PUBLISHED).get(metric) if isinstance(metric, str) else None
        if isinstance(metric, str) and "." in metric:
            metric = made_of(metric, Metric, "--score.metrics")  # type: ignore[type-abstract]
        elif cls is not None:
            if metric in PUBLISHED and cls().called(features) != metric:
                raise MisconfigurationException(
                    f"--score.metrics={metric} is of Inception's features, and --score.features is "
                    f"{text_of(features)}: ask for {cls.name}, or take --score.features=inception"
                )
            metric = cls(seed) if issubclass(cls, Kernel) else cls()
        elif not isinstance(metric, Metric):
            raise MisconfigurationException(
                f"--score.metrics={metric} is no score: there are {', '.join(PUBLISHED)} of Inception's features, "
                f"{', '.join(KNOWN)} of any, all of these, and one's own by class path (package.module.Class, a "
                "callbacks.scores.Metric)"
            )
        if any(metric.name == other.name for other in chosen):
            raise MisconfigurationException(f"--score.metrics={metric.called(features)} must be there once")
        chosen[metric] = asked
    return chosen


def possible(metrics: dict[Metric, bool], features: str | nn.Module, lacking: dict[str, str]) -> dict[Metric, bool]:
    """Those of the scores that can be had.

    Args:
        metrics: What ``select`` gives.
        features: As in Score.
        lacking: By what there is not of "features" and "classes", why.

    Raises:
        MisconfigurationException: One that was asked for cannot be had.
    """
    for metric, asked in metrics.items():
        why = next((lacking[need] for need in metric.needs if need in lacking), "")
        if asked and why:
            raise MisconfigurationException(f"--score.metrics={metric.called(features)} must be left out: {why}")
    return {metric: asked for metric, asked in metrics.items() if not lacking.keys() & set(metric.needs)}


def needs(metrics: Iterable[Metric]) -> set[str]:
    """All that some scores look at."""
    return {need for metric in metrics for need in metric.needs}


def compute(
    metrics: Iterable[Metric], real: Collected | None, fake: Collected, features: str | nn.Module
) -> dict[str, float]:
    """The scores by name; where not all numbers are finite only the first, which is none, and a warning.

    Raises:
        MisconfigurationException: One of them cannot be computed.
    """
    for kind, part in (("real", real), ("generated", fake)):
        if part is not None and part.wrong:
            why = ": has training diverged?" if kind == "generated" else ""
            rank_zero_warn(f"the {kind} images' {part.wrong} are not all finite numbers, so there is no score{why}")
            return {next(iter(metrics)).called(features): float("nan")}
    scores: dict[str, float] = {}
    for metric in metrics:
        name = metric.called(features)
        try:
            value = metric.compute(real if metric.needs_real else None, fake)  # type: ignore[arg-type]
            both = value if isinstance(value, tuple) else (value,)
            scores |= zip((name, f"{name}_std"), map(float, both), strict=False)
        except Exception as error:  # of one's own; other ranks wait for what is said here
            raise MisconfigurationException(
                f"--score.metrics={name} cannot be computed ({type(error).__name__}: {error})"
            ) from error
    return scores
