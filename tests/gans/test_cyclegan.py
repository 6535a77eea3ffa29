"""CycleGAN against its equations, and its pool of images."""

import pytest
import torch
from conftest import fit, images, small_translator, translator_batch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gans import CycleGAN
from gans.cyclegan import pooled


class ImagePool:
    """A pool as a CycleGAN keeps it, for 1x1 images."""

    def __init__(self, size):
        self.size, self.images = size, torch.empty(0, 1, 1, 1)

    def __call__(self, images):
        self.images, out = pooled(self.images, self.size, images)
        return out


def test_losses_are_the_papers():
    """Equation 3 with least squares (section 4) and the identity loss (5.2), in float64."""
    module = small_translator(CycleGAN, pool_size=0).double()
    a, b = batch = tuple(part.double() for part in translator_batch(module, 3))
    to_b, to_a = module.generator["a_to_b"], module.generator["b_to_a"]
    judge_a, judge_b = module.discriminator["a"], module.discriminator["b"]
    d_loss, _ = module.discriminator_loss(batch)
    of_a = ((judge_a(a) - 1) ** 2).mean() + (judge_a(to_a(b)) ** 2).mean()
    of_b = ((judge_b(b) - 1) ** 2).mean() + (judge_b(to_b(a)) ** 2).mean()
    torch.testing.assert_close(d_loss, (of_a + of_b) / 2)
    g_loss, _ = module.generator_loss(batch)
    adversarial = ((judge_b(to_b(a)) - 1) ** 2).mean() + ((judge_a(to_a(b)) - 1) ** 2).mean()
    cycle = (to_a(to_b(a)) - a).abs().mean() + (to_b(to_a(b)) - b).abs().mean()
    identity = (to_b(b) - b).abs().mean() + (to_a(a) - a).abs().mean()
    torch.testing.assert_close(g_loss, adversarial + 10 * cycle + 5 * identity)


def test_generate_goes_from_a_to_b():
    module = small_translator(CycleGAN)
    a, b = translator_batch(module, 2)
    with torch.no_grad():
        assert torch.equal(module.generate((a, b)), module.generator["a_to_b"](a))
        assert torch.equal(module.translate(b, to="a"), module.generator["b_to_a"](b))
    shown = module.shown((a, b))
    assert shown.shape[1] == 6
    assert torch.equal(shown[:, 2], module.translate(module.translate(a), to="a"))
    assert torch.equal(module.real((a, b)), b)


def numbered(*numbers):
    """1x1 images by which they can be told apart."""
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1)


def test_a_pool_lets_images_through_while_it_fills():
    pool = ImagePool(5)
    for start in (0, 2):
        assert torch.equal(pool(numbered(start, start + 1)), numbered(start, start + 1))
    out = pool(numbered(4, 5))  # the last place, and the first that may be exchanged
    assert out[0] == 4
    assert len(pool.images) == 5


def test_a_full_pool_exchanges_half_and_loses_nothing():
    pool = ImagePool(50)
    pool(numbered(*range(50)))
    exchanged = 0
    inside = set(range(50))
    for step in range(400):
        fresh = 50 + step
        (out,) = pool(numbered(fresh)).flatten().tolist()
        assert out == fresh or out in inside
        exchanged += out != fresh
        inside = set(pool.images.flatten().long().tolist())
        assert len(inside) == 50
        assert (fresh in inside) == (out != fresh)
    assert 160 < exchanged < 240  # half of 400, within four standard deviations


def test_a_batch_larger_than_the_pool_and_no_pool():
    assert torch.equal(ImagePool(0)(numbered(1, 2)), numbered(1, 2))
    pool = ImagePool(2)
    assert pool(numbered(*range(9))).shape == (9, 1, 1, 1)
    assert len(pool(numbered(*range(10, 19))).unique()) == 9


def test_the_pool_is_of_fakes_and_survives_a_checkpoint(tmp_path):
    module = small_translator(CycleGAN, pool_size=3)
    trainer = fit(module, translator_batch(module, 8), max_steps=2)
    assert module.rank_state["a"].shape == (3, 1, 32, 32)
    assert not module.rank_state["a"].requires_grad
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    kept = torch.load(tmp_path / "m.ckpt", weights_only=True)["gan"]["ranks"][0]["memory"]
    assert torch.equal(kept["b"], module.rank_state["b"])


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"image_shape": (1, 34, 32)}, "34x32"),
        ({"image_shape": (1, 16, 16)}, "16x16"),
        ({"pool_size": -1}, "pool_size"),
    ],
)
def test_bad_settings_are_named(settings, culprit):
    with pytest.raises(MisconfigurationException, match=culprit):
        small_translator(CycleGAN, **settings)


def test_other_weights_of_the_losses():
    module = small_translator(CycleGAN, identity_weight=0.0)
    _, logs = module.generator_loss((images(2, (1, 32, 32)), images(2, (1, 32, 32), 1)))
    assert "loss/identity" not in logs
