"""The mathematics of the scores, on features of images: plain functions of tensors, in float64."""

import torch
from torch import Tensor


class Moments:
    """Running sums, in float64, from which the mean and covariance of any number of features follow.

    Memory depends on the size of a feature only, not on how many there are.

    Args:
        dim: Size of a feature.
        device: Where the sums are kept; the CPU where the device has no float64 (Apple's MPS).
    """

    def __init__(self, dim: int, device: torch.device) -> None:
        device = torch.device("cpu") if device.type == "mps" else device
        # One tensor, so that ranks add theirs up in one all-reduce: [sum of x x^T; sum of x; count].
        self.sums = torch.zeros(dim + 2, dim, dtype=torch.float64, device=device)

    def update(self, features: Tensor) -> None:
        """Add features (N, dim)."""
        features = features.to(self.sums.device).double()  # in this order, or MPS would have to convert them
        self.sums[:-2].addmm_(features.T, features)
        self.sums[-2] += features.sum(0)
        self.sums[-1] += len(features)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean (dim,) and unbiased covariance (dim, dim)."""
        count, mean = self.sums[-1, 0], self.sums[-2] / self.sums[-1]
        covariance = (self.sums[:-2] - count * torch.outer(mean, mean)) / (count - 1)
        return mean, covariance


def frechet_distance(mu1: Tensor, sigma1: Tensor, mu2: Tensor, sigma2: Tensor) -> Tensor:
    """Squared Fréchet distance of two Gaussians: |mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)).

    FID is this distance of Inception features (Heusel et al. 1706.08500, equation 6). The last trace is the sum of the
    singular values of sigma1^(1/2) sigma2^(1/2), which stays accurate when there are fewer images than dimensions.

    Means are (D,), covariances (D, D).
    """
    cross = torch.linalg.svdvals(_root(sigma1) @ _root(sigma2)).sum()
    return (mu1 - mu2).square().sum() + sigma1.trace() + sigma2.trace() - 2 * cross


def _root(sigma: Tensor) -> Tensor:
    """Square root of a symmetric positive semi-definite matrix."""
    try:
        values, vectors = torch.linalg.eigh(sigma)
    except torch.linalg.LinAlgError:  # some libraries give up where many eigenvalues are equal, as of images much alike
        vectors, values, _ = torch.linalg.svd(sigma)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def kernel_distance(real: Tensor, fake: Tensor, subset_size: int = 1000, subsets: int = 100, seed: int = 0) -> Tensor:
    """Squared maximum mean discrepancy under the kernel (x.y / D + 1)^3, averaged over random subsets.

    KID is this distance of Inception features (Binkowski et al. 1801.01401, section 4). Where there are fewer images
    than a subset takes, the subsets have as many as there are; where every subset would be the whole, one is taken.

    Args:
        real: Features (N, D).
        fake: Features (M, D).
        subset_size: Features in a subset.
        subsets: Subsets to average over.
        seed: Seed of the choice of subsets.
    """
    size = min(subset_size, len(real), len(fake))
    if size == len(real) == len(fake):
        subsets = 1
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros((), dtype=torch.float64, device=real.device)
    for _ in range(subsets):
        x, y = (f[torch.randperm(len(f), generator=generator)[:size].to(f.device)].double() for f in (real, fake))
        xx, yy, xy = (_kernel(a, b) for a, b in ((x, x), (y, y), (x, y)))
        within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (size * (size - 1))
        total += within - 2 * xy.mean()
    return total / subsets


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def memorization_distance(real: Tensor, fake: Tensor, threshold: float = 0.1) -> Tensor:
    """Mean over generated images of the cosine distance to the nearest real one; 1 from the threshold upwards.

    MiFID is FID divided by this (Bai et al. 2106.03062, section 4.1, and the Kaggle competition it describes): 1 for a
    model that copies nothing, small for one that copies its training images. (torchmetrics looks from every real image
    for the nearest generated one instead.)

    Args:
        real: Features (N, D).
        fake: Features (M, D).
        threshold: Distance from which on nothing counts as copied.
    """
    real, fake = (f.double()[f.abs().sum(1) > 0] for f in (real, fake))
    if not len(real) or not len(fake):  # zero has no direction
        return torch.ones((), dtype=torch.float64, device=real.device)
    real, fake = (f / f.norm(dim=1, keepdim=True) for f in (real, fake))
    nearest = torch.cat([(1 - (part @ real.T).abs()).amin(1) for part in fake.split(1000)]).mean()
    return nearest if nearest < threshold else torch.ones_like(nearest)


def coverage(real: Tensor, fake: Tensor, nearest: int = 5) -> Tensor:
    """Share of real images that have a generated one as near as their own nearest ones (Naeem et al. 2002.09797).

    Equation 6, of as many of each, spread evenly: for images of one distribution it tends to 1 - 1 / 2^nearest, 0.97.

    Args:
        real: Features (N, D).
        fake: Features (M, D).
        nearest: k, which of a real image's neighbours is as near as a generated one must be.
    """
    size = min(len(real), len(fake))
    real, fake = (f[torch.arange(size) * len(f) // size].double() for f in (real, fake))
    covered = []
    for part in real.split(1000):
        radius = torch.cdist(part, real).kthvalue(min(nearest + 1, size), 1).values  # the first one is itself
        covered.append(torch.cdist(part, fake).amin(1) <= radius)
    return torch.cat(covered).double().mean()


class ClassSums:
    """Running sums for the inception score, exp(E KL(p(y|x) || p(y))), in splits (Salimans et al. 1606.03498).

    E KL = E sum_y p(y|x) log p(y|x) - sum_y p(y) log p(y), so two sums a split are all that is needed.

    Args:
        classes: How many classes there are.
        splits: Parts the images are divided into, in order; their scores are averaged.
        device: Where the sums are kept; the CPU where the device has no float64.
    """

    def __init__(self, classes: int, device: torch.device, splits: int = 10) -> None:
        device = torch.device("cpu") if device.type == "mps" else device
        # For every split: the sum of p(y|x) for every class, the sum of sum_y p log p, and the count.
        self.sums = torch.zeros(splits, classes + 2, dtype=torch.float64, device=device)

    def update(self, logits: Tensor, split: Tensor) -> None:
        """Add logits (N, classes) of images that belong to the given splits (N,)."""
        log_p = logits.to(self.sums.device).double().log_softmax(1)
        p = log_p.exp()
        rows = torch.cat([p, (p * log_p).sum(1, keepdim=True), torch.ones_like(p[:, :1])], 1)
        self.sums.index_add_(0, split.to(self.sums.device), rows)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the splits' scores; splits without an image do not count."""
        sums = self.sums[self.sums[:, -1] > 0]
        means = sums[:, :-1] / sums[:, -1:]
        p = means[:, :-1]
        scores = (means[:, -1] - torch.xlogy(p, p).sum(1)).exp()
        return scores.mean(), scores.std() if len(scores) > 1 else torch.zeros_like(scores[0])
