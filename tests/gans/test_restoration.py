"""The restoration GAN: its three stages, its critic, and the way from one to the next."""

import pytest
import torch
from conftest import changed, fit, images, small_translator, state, translator_batch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.nn.functional import softplus

from gans import Pix2Pix, RestorationGAN
from gans.parts.losses import Hinge
from gans.parts.penalties import R1


def test_it_begins_with_what_it_is_given_and_a_little():
    """The network adds to the image, whatever its size; nothing of it is flat in one place and not in another."""
    module = small_translator(RestorationGAN)
    grey = torch.full((1, 1, 61, 43), 0.3)
    mended = module.translate(grey)
    assert mended.shape == grey.shape
    assert module.translate(images(1, (1, 61, 43)) * 9).abs().max() == 1
    inside = module.generator(torch.full((1, 1, 160, 160), 0.3))[..., 64:-64, 64:-64]
    assert inside.std() <= 1e-3


def test_the_losses_are_the_lessons():
    """In float64: the mean of the critic's two losses; the generator's is adversarial + 50 * mean squared error."""
    module = small_translator(RestorationGAN).double()
    source, target = (part.double() for part in translator_batch(module, 3))
    fake = module.generator(source)
    of_real, of_fake = module.discriminator(target), module.discriminator(fake)
    assert of_real.shape[1] == 1
    assert of_real.shape[2] > 1  # patches
    d_loss, logs = module.discriminator_loss((source, target))
    torch.testing.assert_close(d_loss, (softplus(-of_real).mean() + softplus(of_fake).mean()) / 2, rtol=1e-3, atol=0)
    assert torch.equal(logs["loss/discriminator"], d_loss)
    g_loss, _ = module.generator_loss((source, target))
    content = (fake - target).square().mean()
    torch.testing.assert_close(g_loss, softplus(-of_fake).mean() + 50 * content, rtol=1e-3, atol=0)
    module.stage = "generator"
    torch.testing.assert_close(module.generator_loss((source, target))[0], content)


@pytest.mark.parametrize(
    ("stage", "trained"),
    [("generator", {"generator"}), ("critic", {"discriminator"}), ("both", {"generator", "discriminator"})],
)
def test_a_stage_trains_its_networks_alone(stage, trained, tmp_path):
    first = small_translator(RestorationGAN, stage="generator")
    fit(first, translator_batch(first, 4), max_steps=1).save_checkpoint(tmp_path / "1.ckpt")
    pretrained = str(tmp_path / "1.ckpt") if stage == "critic" else None
    module = small_translator(RestorationGAN, stage=stage, pretrained=pretrained)
    began = first if pretrained else module
    before = {name: state(getattr(began, name)) for name in ("generator", "discriminator")}
    trainer = fit(module, translator_batch(module, 16), max_steps=3)
    assert trainer.global_step == 3  # whichever is trained, its updates are counted
    for name, weights in before.items():
        network = getattr(module, name)
        moved = changed(weights, network) & {key for key, _ in network.named_parameters()}
        assert bool(moved) == (name in trained)
    assert set(module.players) == trained


def test_every_stage_begins_where_the_one_before_ended(tmp_path):
    still = {
        "generator_optimizer": lambda p: torch.optim.SGD(p, 0.0),
        "discriminator_optimizer": lambda p: torch.optim.SGD(p, 0.0),
    }
    first = small_translator(RestorationGAN, stage="generator")
    first.start_averaging()
    fit(first, translator_batch(first, 16), max_steps=3).save_checkpoint(tmp_path / "1.ckpt")
    second = small_translator(RestorationGAN, stage="critic", pretrained=str(tmp_path / "1.ckpt"))
    fit(second, translator_batch(first, 16), max_steps=3).save_checkpoint(tmp_path / "2.ckpt")
    third = small_translator(RestorationGAN, pretrained=str(tmp_path / "2.ckpt"), **still)
    third.start_averaging()
    fit(third, translator_batch(first, 16), max_steps=1)
    for network in (second.generator, third.generator, third.averaged_generator):
        assert not changed(state(first.averaged_generator), network)
    weights = {key for key, _ in third.discriminator.named_parameters()}
    assert not changed(state(second.discriminator), third.discriminator) & weights
    assert changed(state(first.discriminator), third.discriminator) & weights


def test_networks_of_other_sizes_are_named(tmp_path):
    first = small_translator(RestorationGAN, stage="generator")
    fit(first, translator_batch(first, 4), max_steps=1).save_checkpoint(tmp_path / "1.ckpt")
    for other, name in (({"width": 8}, "generator"), ({"discriminator_width": 8}, "discriminator")):
        module = small_translator(RestorationGAN, stage="critic", pretrained=str(tmp_path / "1.ckpt"), **other)
        with pytest.raises(MisconfigurationException, match=rf"--model\.pretrained=.*1\.ckpt holds another {name}"):
            fit(module, translator_batch(module, 4), max_steps=1)
    with pytest.raises(MisconfigurationException, match=r"multiple of 8; got 33x32: set --data\.image_size"):
        RestorationGAN(image_shape=(3, 33, 32))


def test_a_stage_begins_from_the_one_before_or_says_so(tmp_path):
    first = small_translator(RestorationGAN, stage="generator")
    fit(first, translator_batch(first, 4), max_steps=1).save_checkpoint(tmp_path / "1.ckpt")
    alone = small_translator(RestorationGAN, stage="critic")
    with pytest.raises(MisconfigurationException, match=r"stage critic begins .*--model\.pretrained=.*stage generator"):
        fit(alone, translator_batch(alone, 4), max_steps=1)
    skipped = small_translator(RestorationGAN, pretrained=str(tmp_path / "1.ckpt"))
    with pytest.raises(MisconfigurationException, match=r"1\.ckpt is of stage generator.*--model\.stage=critic"):
        fit(skipped, translator_batch(skipped, 4), max_steps=1)
    with pytest.raises(MisconfigurationException, match=r"--ckpt_path is of stage generator.*--model\.stage=critic"):
        fit(small_translator(RestorationGAN), translator_batch(first, 4), max_steps=2, ckpt_path=tmp_path / "1.ckpt")
    both = small_translator(RestorationGAN)
    with pytest.warns(UserWarning, match=r"stage both begins with untrained networks.*stage critic"):
        fit(both, translator_batch(both, 4), max_steps=1)
    other = small_translator(Pix2Pix)
    fit(other, translator_batch(other, 4), max_steps=1).save_checkpoint(tmp_path / "2.ckpt")
    foreign = small_translator(RestorationGAN, pretrained=str(tmp_path / "2.ckpt"))
    gone = small_translator(RestorationGAN, pretrained="nowhere.ckpt")
    with pytest.raises(MisconfigurationException, match=r"--model\.pretrained=nowhere\.ckpt does not exist"):
        fit(gone, translator_batch(gone, 4), max_steps=1)
    with pytest.raises(MisconfigurationException, match=r"2\.ckpt holds a Pix2Pix, not a RestorationGAN"):
        fit(foreign, translator_batch(foreign, 4), max_steps=1)


def test_a_run_that_goes_on_does_not_start_from_another(tmp_path):
    first = small_translator(RestorationGAN, stage="generator")
    batch = translator_batch(first, 4)
    fit(first, batch, max_steps=1).save_checkpoint(tmp_path / "1.ckpt")
    second = small_translator(RestorationGAN, stage="critic", pretrained=str(tmp_path / "1.ckpt"))
    fit(second, batch, max_steps=1).save_checkpoint(tmp_path / "2.ckpt")
    for pretrained in (str(tmp_path / "1.ckpt"), None):  # as before, or not said
        again = small_translator(RestorationGAN, stage="critic", pretrained=pretrained)
        assert fit(again, batch, max_steps=2, ckpt_path=tmp_path / "2.ckpt").global_step == 2
    other = small_translator(RestorationGAN, stage="critic", pretrained="elsewhere.ckpt")
    with pytest.raises(MisconfigurationException, match=r"--model\.pretrained=elsewhere\.ckpt comes too late"):
        fit(other, batch, max_steps=3, ckpt_path=tmp_path / "2.ckpt")


@pytest.mark.parametrize(
    ("stage", "option", "value"),
    [
        ("generator", "n_critic", 2),
        ("generator", "critic_warm_up", 3),
        ("generator", "penalty", R1()),
        ("generator", "critic_threshold", 0.3),
        ("generator", "content_weight", 3.0),
        ("generator", "diff_augment", "color"),
        ("generator", "loss", Hinge()),
        ("critic", "critic_threshold", 0.3),
        ("critic", "content_weight", 3.0),
        ("critic", "content", "vgg54"),
        ("critic", "n_critic", 2),
        ("critic", "critic_warm_up", 3),
    ],
)
def test_what_a_stage_does_not_use_is_refused(stage, option, value):
    with pytest.raises(MisconfigurationException, match=rf"--model\.{option} has no effect .*{stage}"):
        small_translator(RestorationGAN, stage=stage, **{option: value})
