"""The scores' mathematics, beside torchmetrics and a float64 SciPy reference on the same features."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.image.mifid import MemorizationInformedFrechetInceptionDistance

from callbacks.scores.distances import (
    ClassSums,
    Moments,
    coverage,
    frechet_distance,
    kernel_distance,
    memorization_distance,
)

CPU = torch.device("cpu")
DIM = 3 * 4 * 4


class Flat(nn.Module):
    """An extractor for torchmetrics: the pixels are the features."""

    num_features = DIM

    def forward(self, images):
        return images.flatten(1).double()


def pixels(n, seed, low=0, high=256):
    """n random images as uint8 (N, 3, 4, 4), brighter to the right so that two seeds differ in more than noise."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(low, high, (n, 3, 4, 4), generator=generator)
    return (noise * torch.linspace(0.2 + 0.1 * seed, 1, 4)).to(torch.uint8)


def moments(features):
    sums = Moments(features.shape[1], CPU)
    for part in features.split(7):
        sums.update(part)
    return sums.compute()


@pytest.fixture
def both():
    return pixels(150, 1), pixels(130, 3)


def test_moments_are_mean_and_unbiased_covariance():
    features = torch.randn(50, 6) * 3 + 100  # a large mean: sums of squares must not lose the variance
    mu, sigma = moments(features)
    assert mu.dtype == sigma.dtype == torch.float64
    np.testing.assert_allclose(mu, features.double().mean(0), rtol=1e-12)
    np.testing.assert_allclose(sigma, np.cov(features.double().numpy(), rowvar=False), rtol=1e-8, atol=1e-8)


def test_memory_does_not_grow_with_the_number_of_images():
    sums = Moments(6, CPU)
    sizes = []
    for _ in range(3):
        sums.update(torch.randn(100, 6))
        sizes.append(sums.sums.numel())
    assert sizes == [6 * 8] * 3


def test_sums_stay_on_the_cpu_where_the_device_has_no_float64():
    mps = torch.device("mps")
    assert Moments(4, mps).sums.device == CPU
    assert ClassSums(4, mps).sums.device == CPU


def test_frechet_equals_scipy(both):
    (mu1, sigma1), (mu2, sigma2) = (moments(images.flatten(1)) for images in both)
    root = scipy.linalg.sqrtm((sigma1 @ sigma2).numpy()).real
    expected = ((mu1 - mu2) ** 2).sum() + np.trace(sigma1 + sigma2 - 2 * root)
    assert float(frechet_distance(mu1, sigma1, mu2, sigma2)) == pytest.approx(float(expected), rel=1e-8)


def test_frechet_equals_torchmetrics(both):
    metric = FrechetInceptionDistance(feature=Flat())
    metric.set_dtype(torch.float64)
    for images, real in zip(both, (True, False), strict=True):
        metric.update(images, real=real)
    ours = frechet_distance(*moments(both[0].flatten(1)), *moments(both[1].flatten(1)))
    assert float(ours) == pytest.approx(float(metric.compute()), rel=1e-4)


def test_frechet_with_fewer_images_than_dimensions():
    """20 images in 200 dimensions, of which only 5 vary: the distance is that in the 5 (rotations change nothing)."""
    small = [torch.randn(20, 5, dtype=torch.float64) * (1 + i) + i for i in range(2)]
    turn = torch.linalg.qr(torch.randn(200, 200, dtype=torch.float64)).Q[:5]
    wide = [features @ turn for features in small]
    expected = frechet_distance(*moments(small[0]), *moments(small[1]))
    assert float(frechet_distance(*moments(wide[0]), *moments(wide[1]))) == pytest.approx(float(expected), rel=1e-6)


def test_frechet_of_the_same_images_is_zero(both):
    mu, sigma = moments(both[0].flatten(1))
    assert float(frechet_distance(mu, sigma, mu, sigma)) == pytest.approx(0, abs=1e-6 * float(sigma.trace()))


def test_kernel_equals_torchmetrics(both):
    """With one subset of everything, so that no choice differs."""
    real, fake = (images[:130] for images in both)
    metric = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=130)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    metric.set_dtype(torch.float64)
    ours = kernel_distance(real.flatten(1), fake.flatten(1))
    assert float(ours) == pytest.approx(float(metric.compute()[0]), rel=1e-4)


def test_kernel_by_hand():
    real, fake = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    within = sum(k(x[i], x[j]) for x in (real, fake) for i in range(5) for j in range(5) if i != j) / 20
    across = sum(k(a, b) for a in real for b in fake) / 25
    assert float(kernel_distance(real, fake)) == pytest.approx(float(within - 2 * across), rel=1e-12)


def test_kernel_subsets_average_to_the_whole_and_repeat():
    real, fake = torch.randn(300, 4, dtype=torch.float64), torch.randn(300, 4, dtype=torch.float64) + 1
    whole = float(kernel_distance(real, fake))
    parts = float(kernel_distance(real, fake, subset_size=50, subsets=400, seed=1))
    assert parts == pytest.approx(whole, rel=0.1)
    assert parts == float(kernel_distance(real, fake, subset_size=50, subsets=400, seed=1))
    assert parts != float(kernel_distance(real, fake, subset_size=50, subsets=400, seed=2))


def test_memorization_looks_from_generated_to_real_images():
    """One copied image among the generated ones counts; a real image that was copied often does not count more."""
    real = torch.eye(8, dtype=torch.float64)
    assert float(memorization_distance(real, real)) == pytest.approx(0, abs=1e-12)
    mixed = torch.eye(4, dtype=torch.float64).repeat_interleave(2, 1)  # each halfway between two real images
    assert float(memorization_distance(real, mixed, threshold=2)) == pytest.approx(1 - 0.5**0.5)
    copies = real[:1].repeat(5, 1)
    assert float(memorization_distance(real, copies)) == pytest.approx(0, abs=1e-12)
    assert float(memorization_distance(copies, real, threshold=2)) == pytest.approx(7 / 8)


def test_memorization_above_the_threshold_counts_as_one():
    real, fake = torch.eye(4, dtype=torch.float64), torch.ones(2, 4, dtype=torch.float64)
    assert float(memorization_distance(real, fake, threshold=0.4)) == 1
    assert float(memorization_distance(real, fake, threshold=0.6)) == pytest.approx(0.5)


def test_mifid_equals_torchmetrics_with_its_sides_exchanged(both):
    real, fake = both[0], (both[0][:130].int() + torch.randint(0, 9, (130, 3, 4, 4))).clamp(0, 255).to(torch.uint8)
    metric = MemorizationInformedFrechetInceptionDistance(feature=Flat(), cosine_distance_eps=0.1)
    metric.set_dtype(torch.float64)
    metric.update(fake, real=True)
    metric.update(real, real=False)
    frechet = frechet_distance(*moments(real.flatten(1)), *moments(fake.flatten(1)))
    memorization = memorization_distance(real.flatten(1), fake.flatten(1))
    assert memorization < 0.1
    assert float(frechet / memorization) == pytest.approx(float(metric.compute()), rel=1e-4)


def test_inception_score_equals_torchmetrics():
    """In one split: torchmetrics shuffles before it splits."""
    logits = torch.randn(60, 48) * 2

    class Logits(nn.Module):
        def forward(self, images):
            return logits

    metric = InceptionScore(feature=Logits(), splits=1)
    metric.update(torch.zeros(60, 3, 4, 4, dtype=torch.uint8))
    sums = ClassSums(48, CPU, splits=1)
    for part in logits.split(13):
        sums.update(part, torch.zeros(len(part), dtype=torch.long))
    assert float(sums.compute()[0]) == pytest.approx(float(metric.compute()[0]), rel=1e-4)


def test_inception_score_by_hand_in_splits():
    logits = torch.randn(10, 4, dtype=torch.float64)
    split = torch.tensor([0] * 6 + [1] * 4)
    sums = ClassSums(4, CPU, splits=3)  # nothing falls into the third
    sums.update(logits, split)
    scores = []
    for part in (logits[:6], logits[6:]):
        p = part.softmax(1)
        scores.append(float((p * (p / p.mean(0)).log()).sum(1).mean().exp()))
    mean, std = sums.compute()
    assert float(mean) == pytest.approx(np.mean(scores), rel=1e-12)
    assert float(std) == pytest.approx(np.std(scores, ddof=1), rel=1e-9)


def test_inception_score_of_certain_and_varied_predictions_is_the_number_of_classes():
    sums = ClassSums(5, CPU, splits=1)
    sums.update(torch.eye(5) * 100, torch.zeros(5, dtype=torch.long))
    assert float(sums.compute()[0]) == pytest.approx(5)


@pytest.mark.parametrize("value", [0.0, 0.3, 255.0])
def test_images_that_are_all_the_same_have_distances(value):
    """Of black ones the features may be zero, which have no direction."""
    same, others = torch.full((20, 6), value), torch.rand(30, 6)
    for a, b in ((same, same), (same, others), (others, same)):
        frechet = frechet_distance(*moments(a), *moments(b))
        expected = (a.mean(0) - b.mean(0)).square().sum() + (0 if a is b else others.T.cov().trace())
        assert frechet.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-9)
        assert kernel_distance(a, b).isfinite()
        assert 0 <= memorization_distance(a, b) <= 1


def test_a_library_that_finds_no_eigenvalues_does_not_matter(both, monkeypatch):
    """Some give up on covariances of images that are much alike, many of whose eigenvalues are zero."""
    statistics = [part for images in both for part in moments(images.flatten(1).double())]
    expected = frechet_distance(*statistics)

    def gives_up(_):
        raise torch.linalg.LinAlgError

    monkeypatch.setattr(torch.linalg, "eigh", gives_up)
    assert frechet_distance(*statistics).item() == pytest.approx(expected.item(), rel=1e-9)


# Coverage


def test_coverage_by_hand():
    """Of each real point the second nearest other is as far as the radius goes."""
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    radii = (2.0, 1.0, 2.0, 9.0)
    fake = torch.tensor([[-1.5], [4.5], [30.0], [3.1]])
    nearest = [min(abs(float(f - r)) for f in fake) for r in real]
    expected = sum(n <= radius for n, radius in zip(nearest, radii, strict=True)) / 4
    assert expected == 0.75
    assert float(coverage(real, fake, nearest=2)) == expected


def test_coverage_of_the_same_distribution_of_a_part_and_of_nothing():
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(n, 8, generator=generator) for n in (4000, 1500))
    assert float(coverage(real, fake)) == pytest.approx(1 - 1 / 2**5, abs=0.02)
    assert float(coverage(real, real)) == 1
    assert float(coverage(real, fake[:1].expand(1500, -1))) < 0.05
    assert float(coverage(real, fake + 100)) == 0
    real[2000:, 0] += 100  # of two kinds of images one is not generated
    assert float(coverage(real, fake)) == pytest.approx(0.5, abs=0.02)
