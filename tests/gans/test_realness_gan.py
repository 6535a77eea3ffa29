"""RealnessGAN: the networks of its official code, and what its learning depends on."""

import pytest
import torch
from conftest import small
from lightning.pytorch import Trainer
from torch import nn

from callbacks import Score
from datamodules import Digits
from gans import RealnessGAN
from gans.parts.losses import Realness
from gans.realness_gan import Resampled
from gans.training.optimizers import Adam


def test_the_discriminator_gives_51_outcomes_and_is_spectrally_normalised_without_batch_norm():
    module = RealnessGAN(image_shape=(1, 16, 16), width=4)
    assert module.discriminator(torch.zeros(3, 1, 16, 16)).shape == (3, 51)
    for layer in module.discriminator.modules():
        assert not isinstance(layer, nn.BatchNorm2d)
        if isinstance(layer, nn.Conv2d):
            assert nn.utils.parametrize.is_parametrized(layer, "weight")
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in module.generator.modules())


def test_outcomes_can_be_drawn_from_a_mean_and_a_variance_each():
    """The official code's re-parameterised head: mean + normal noise * exp(log-variance / 2)."""
    module = RealnessGAN(image_shape=(1, 16, 16), width=4, resample=True)
    real = torch.zeros(3, 1, 16, 16)
    assert module.discriminator(real).shape == (3, 51)
    assert module.discriminator[-3].weight.shape[0] == 102
    assert not torch.equal(*(module.judge(real).outputs for _ in range(2)))
    means = torch.tensor([[3.0, -1.0]]).expand(20_000, 2)
    drawn = Resampled()(torch.cat([means, torch.tensor([[0.25, 4.0]]).log().expand(20_000, 2)], 1))
    assert drawn.mean(0).tolist() == pytest.approx([3, -1], abs=0.05)
    assert drawn.std(0).tolist() == pytest.approx([0.5, 2], abs=0.03)
    module.discriminator_loss(real)[0].backward()
    for gradient in module.discriminator[-3].bias.grad.split(51):
        assert gradient.abs().sum() > 0


def test_anchors_are_drawn_anew_every_time_and_lie_at_two_ends():
    loss, like = Realness(51), torch.zeros(1, dtype=torch.float64)
    support = torch.linspace(-1, 1, 51, dtype=torch.float64)
    for anchor, end in ((loss.real_anchor, 1), (loss.fake_anchor, -1)):
        first, second = anchor(like), anchor(like)
        assert not torch.equal(first, second)
        assert first.sum().item() == pytest.approx(1)
        assert end * (first @ support).item() > 0.5
        assert first[-1 if end > 0 else 0] > 0.4  # half of the mass is piled up there


def distance(folder, steps=400, rate=2e-4, **kwargs):
    """Fréchet distance, in 8x8 pixels, of a small model trained on scikit-learn's digits."""
    torch.manual_seed(0)
    module = small(
        RealnessGAN,
        width=16,
        latent_dim=100,
        generator_optimizer=lambda p: Adam(p, lr=rate),
        discriminator_optimizer=lambda p: Adam(p, lr=rate),
        **kwargs,
    )
    score = Score(features="pixels", num_images=1000, cache_dir=str(folder / "cache"))
    trainer = Trainer(
        max_steps=steps,
        callbacks=[score],
        val_check_interval=steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, Digits(data_dir=str(folder), image_size=16, batch_size=32))
    return trainer.callback_metrics[score.monitor].item()


class OneAnchor(Realness):
    """The same anchor for real and generated images."""

    def real_anchor(self, like):
        return self.fake_anchor(like)


class Unshifted(Realness):
    """A bell and a flat distribution in the middle of the support."""

    def real_anchor(self, like):
        return torch.full((self.outcomes,), 1 / self.outcomes)

    def fake_anchor(self, like):
        samples = torch.randn(1000)
        counts = torch.histc(samples, self.outcomes)
        return counts / counts.sum()


@pytest.mark.slow
def test_what_lets_it_learn(tmp_path):
    """Two different anchors and a sufficient learning rate; where the anchors lie and the rest change the pace only."""
    untrained = distance(tmp_path, steps=1)
    reached = {
        "default": distance(tmp_path),
        "3 outcomes": distance(tmp_path, loss=Realness(3)),
        "basic objective": distance(tmp_path, loss=Realness(51, "basic")),
        "batch norm": distance(tmp_path, spectral_norm=False),
        "unshifted": distance(tmp_path, loss=Unshifted()),
        "one anchor": distance(tmp_path, loss=OneAnchor()),
        "rate 2e-5": distance(tmp_path, rate=2e-5),
    }
    for name, value in reached.items():
        print(f"{name:16} {value:6.3f}  {value / untrained:.2f} of the untrained generator's")
    for name in ("default", "3 outcomes", "basic objective", "batch norm", "unshifted"):
        assert reached[name] < 0.35 * untrained, name
    for name in ("one anchor", "rate 2e-5"):
        assert reached[name] > 0.6 * untrained, name
