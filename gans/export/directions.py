"""Directions in which a generator's images vary most (Härkönen et al., GANSpace, 2020, arXiv 2004.02546)."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from gans.parts.style import StyleGenerator

SAMPLES = 4_000


def directions(model: Any, count: int = 8) -> Tensor:
    """The first directions of variation of a GAN that turns noise into images, (K, D), K at most ``count``.

    Each is a step of one standard deviation: in w of a GAN with a mapping network, along the principal components of w
    (section 3.1); otherwise in the noise, of which the first layer is a linear function, so that the regression of the
    noise on the principal components of that layer's features (section 3.2) gives this layer's right singular vectors.
    Codes before the noise stay as they are, and so do classes.

    Args:
        model: A Sampler.
        count: How many.
    """
    with torch.random.fork_rng([]), torch.no_grad(), model.sampling() as generator:
        torch.manual_seed(0)
        noise = model.noise(SAMPLES)
        if isinstance(generator, StyleGenerator):
            w = generator.mapping(noise).double()
            return principal(torch.cov(w.T), count).float()
        codes = noise.shape[1] - model.latent_dim
        noise[:, :codes] = noise[:1, :codes]
        classes = (torch.zeros(SAMPLES, dtype=torch.long, device=noise.device),) if model.num_classes else ()
        features, z = first_features(generator, noise, *classes).double(), noise[:, codes:].double()
        weights = torch.linalg.lstsq(z - z.mean(0), features - features.mean(0)).solution
        vectors = nn.functional.normalize(principal(weights @ weights.T, count))
        return (z.std() * vectors).float()


def principal(covariance: Tensor, count: int) -> Tensor:
    """The first eigenvectors (K, D) of a covariance (D, D), each as long as the root of its eigenvalue.

    Those of eigenvalue 0 are left out. Each has the sign with which its largest entry is positive.
    """
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0)[:count], vectors.T.flip(0)[:count]
    vectors = vectors * vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()
    return (values.clamp(min=0).sqrt()[:, None] * vectors)[values > 1e-9 * values[0]]


class _Reached(Exception):
    """The layer that was waited for has been computed; the others need not be."""


def first_features(generator: nn.Module, noise: Tensor, *classes: Tensor) -> Tensor:
    """What the first layer with weights that the noise reaches makes of noise (N, D), as vectors (N, F)."""
    layers = [m for m in generator.modules() if isinstance(w := getattr(m, "weight", None), Tensor) and w.dim() > 1]
    found: list[Tensor] = []

    def look(_: nn.Module, __: Any, output: Tensor) -> None:
        if not torch.equal(output[0], output[1]):
            found.append(output.flatten(1).float())
            raise _Reached

    handles = [layer.register_forward_hook(look) for layer in layers]
    try:
        for part in zip(noise.split(1000), *(c.split(1000) for c in classes), strict=True):
            with suppress(_Reached):
                generator(*part)
        return torch.cat(found)
    finally:
        for handle in handles:
            handle.remove()
