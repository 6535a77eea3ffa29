"""DiscoGAN against the official code's formula."""

import pytest
import torch
from conftest import fit, small_translator, translator_batch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from gans import DiscoGAN


def test_losses_are_the_official_codes():
    module = small_translator(DiscoGAN).double()
    a, b = batch = tuple(part.double() for part in translator_batch(module, 3))
    to_b, to_a = module.generator["a_to_b"], module.generator["b_to_a"]
    fake_a, fake_b = to_a(b), to_b(a)
    d_loss, _ = module.discriminator_loss(batch)
    g_loss, _ = module.generator_loss(batch)
    of_d, adversarial, matching = 0, 0, 0
    for domain, real, fake in (("a", a, fake_a), ("b", b, fake_b)):
        (real_logit, real_features), (fake_logit, fake_features) = map(module.discriminator[domain], (real, fake))
        of_d -= (torch.sigmoid(real_logit).log() + (1 - torch.sigmoid(fake_logit)).log()).mean()
        adversarial -= torch.sigmoid(fake_logit).log().mean()
        matching += sum(
            ((r.mean(0) - f.mean(0)) ** 2).mean() for r, f in zip(real_features, fake_features, strict=True)
        )
    assert len(real_features) == 3
    torch.testing.assert_close(d_loss, of_d)
    # Errors of pixels are those of [0, 1].
    cycle = sum((((x + 1) / 2 - (y + 1) / 2) ** 2).mean() for x, y in ((to_a(fake_b), a), (to_b(fake_a), b)))
    torch.testing.assert_close(g_loss, (0.1 * adversarial + 0.9 * matching) * 0.99 + 0.01 * cycle)


class Watch(Callback):
    """What was updated, and at which rate."""

    def __init__(self):
        self.seen = []

    def on_train_start(self, trainer, pl_module):
        self.before = self.weights(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *_):
        after = self.weights(pl_module)
        self.seen.append([not torch.equal(x, y) for x, y in zip(self.before, after, strict=True)])
        self.before = after

    def weights(self, module):
        return [next(net.parameters()).detach().clone() for net in (module.discriminator, module.generator)]


def test_discriminators_are_updated_before_every_second_generator_update():
    watch = Watch()
    trainer = fit(module := small_translator(DiscoGAN), translator_batch(module, 24), max_epochs=1, callbacks=[watch])
    assert watch.seen == [[True, True], [False, True]] * 3
    assert trainer.global_step == 6


def test_the_rate_changes_after_its_updates_of_either_kind():
    """The official loop: iterations 0, 3, 6 and so on train the discriminators, and the others the generators."""
    module, rates = small_translator(DiscoGAN, rate_steps=5), []
    loss = module.generator_loss
    module.generator_loss = lambda batch: rates.append(module.rate()) or loss(batch)
    fit(module, translator_batch(module, 24), max_epochs=1)
    official = [0.01 if iteration < 5 else 0.5 for iteration in range(9) if iteration % 3]
    assert rates == official == [0.01, 0.01, 0.01, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [({"image_shape": (1, 24, 24)}, "24x24"), ({"reconstruction_rate": (0.1, 1.5)}, "reconstruction_rate")],
)
def test_bad_settings_are_named(settings, culprit):
    with pytest.raises(MisconfigurationException, match=culprit):
        small_translator(DiscoGAN, **settings)
