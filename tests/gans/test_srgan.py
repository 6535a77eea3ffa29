"""SRResNet and SRGAN: their losses, tiles, VGG19's features and the way from one to the other."""

import pytest
import torch
from conftest import fit, images, small_translator, translator_batch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.vgg import cfgs, make_layers

import gans.srgan
from gans import SRGAN, SRResNet
from gans.parts.features import VGG_LAYERS, VGGFeatures
from gans.parts.layers import SmoothShuffle


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_images_are_enlarged(scale):
    module = small_translator(SRResNet, scale=scale)
    assert module.translate(images(2, (1, 7, 5))).shape == (2, 1, 7 * scale, 5 * scale)


def test_the_network_gets_images_in_0_to_1():
    module = small_translator(SRResNet)
    seen = []
    module.generator.head[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    module.generator(torch.tensor([-1.0, 0.0, 1.0, 1.0]).view(1, 1, 2, 2))
    assert seen[0].flatten().tolist() == [0, 0.5, 1, 1]


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_an_untrained_generator_writes_no_pattern_into_a_flat_image(scale):
    """All pixels that sub-pixel convolutions make of one begin alike; otherwise the deviation is .02 to .04."""
    generator = SRResNet(image_shape=(3, 96, 96), scale=scale, width=32, blocks=2).generator.eval()
    with torch.no_grad():
        flat = generator(torch.zeros(1, 3, 40, 40))[..., 16 * scale : -16 * scale, 16 * scale : -16 * scale]
    assert (flat - flat.mean((2, 3), keepdim=True)).std() <= 1e-3
    doubling = generator.tail[0]
    assert len(doubling.weight[::4].unique(dim=0)) == 32  # but those of different features do not


def test_a_smooth_generator_writes_none_whatever_its_weights():
    """However different the four features of a sub-pixel convolution are; in a plain one they would be a grid."""
    for smooth in (True, False):
        generator = SRResNet(image_shape=(3, 96, 96), width=8, blocks=1, smooth=smooth).generator.eval()
        with torch.no_grad():
            for p in generator.parameters():
                p.add_(torch.randn_like(p) * 0.1)
            flat = generator(torch.zeros(1, 3, 40, 40))[..., 64:-64, 64:-64]
        assert ((flat - flat.mean((2, 3), keepdim=True)).std() <= 1e-4 * flat.abs().mean()) == smooth


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(("scale", "blocks"), [(2, 1), (4, 2)])
@pytest.mark.parametrize("size", [(32, 50), (90, 61)])
def test_tiles_have_no_seams(scale, blocks, size, smooth, monkeypatch):
    """Tile by tile, every pixel is what it is when the whole image is enlarged at once, also at the borders."""
    module = small_translator(SRResNet, scale=scale, blocks=blocks, smooth=smooth).eval()
    picture = images(1, (1, *size))
    monkeypatch.setattr(gans.srgan, "TILE", 16)
    calls = []
    module.generator.output.register_forward_hook(lambda *_: calls.append(1))
    tiled = module.translate(picture)
    assert len(calls) == -(-size[0] // 16) * -(-size[1] // 16)
    with torch.no_grad():
        whole = module.generator(picture).clamp(-1, 1)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)


def test_losses_are_the_papers():
    """Equation 3 with the pixels' error in the place of VGG's, in float64."""
    pretraining = small_translator(SRResNet).double()
    batch = tuple(part.double() for part in translator_batch(pretraining, 3))
    loss, _ = pretraining.generator_loss(batch)
    torch.testing.assert_close(loss, ((pretraining.generator(batch[0]) - batch[1]) ** 2).mean())
    module = small_translator(SRGAN).double()
    fake = module.generator(batch[0])
    real_p, fake_p = (torch.sigmoid(module.discriminator(image)) for image in (batch[1], fake))
    d_loss, _ = module.discriminator_loss(batch)
    torch.testing.assert_close(d_loss, -(real_p.log() + (1 - fake_p).log()).mean())
    g_loss, _ = module.generator_loss(batch)
    torch.testing.assert_close(g_loss, ((fake - batch[1]) ** 2).mean() - 1e-3 * fake_p.log().mean())


def test_the_discriminator_is_figure_4s():
    layers = list(SRGAN(image_shape=(3, 96, 96), content="mse").discriminator)
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [c.stride[0] for c in convolutions] == [1, 2] * 4
    assert [layer.out_features for layer in layers if isinstance(layer, nn.Linear)] == [1024, 1]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == 7


# VGG19


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """Random weights in torchvision's format, without those of the classifier, which are half a gigabyte."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({f"features.{key}": value for key, value in make_layers(cfgs["E"]).state_dict().items()}, path)
    return path


def test_features_are_those_after_the_activation():
    """phi_{2,2} and phi_{5,4}: the second convolution before the second pooling, the fourth before the fifth."""
    names = {}
    block, convolution = 1, 0
    for i, layer in enumerate(make_layers(cfgs["E"])):
        if isinstance(layer, nn.Conv2d):
            convolution += 1
        elif isinstance(layer, nn.ReLU):
            names[f"vgg{block}{convolution}"] = i + 1
        else:
            block, convolution = block + 1, 0
    assert {name: names[name] for name in VGG_LAYERS} == VGG_LAYERS


@pytest.mark.parametrize("layer", ["vgg22", "vgg54"])
def test_the_content_loss_by_hand(vgg_file, layer):
    module = small_translator(SRGAN, image_shape=(3, 32, 32), content=layer)
    module._features = [VGGFeatures(layer, str(vgg_file))]
    fake, real = images(2, (3, 32, 32), 1).requires_grad_(), images(2, (3, 32, 32), 2)
    network = make_layers(cfgs["E"])
    state = torch.load(vgg_file, weights_only=True)
    network.load_state_dict({key.removeprefix("features."): value for key, value in state.items()})
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def features(image):
        return network[: VGG_LAYERS[layer]].eval()(((image + 1) / 2 - mean) / std)

    loss = module.content_loss(fake, real)
    expected = ((features(fake) / 12.75 - features(real) / 12.75) ** 2).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-9)
    (gradient,) = torch.autograd.grad(loss, fake)  # a known port's has none
    assert gradient.abs().sum() > 0
    assert not any(p.requires_grad for p in module._features[0].parameters())


def test_vgg_is_trained_with_and_no_part_of_checkpoints(vgg_file, tmp_path):
    module = small_translator(SRGAN, image_shape=(3, 32, 32), content="vgg22", vgg_weights=str(vgg_file))
    trainer = fit(module, translator_batch(module, 4), max_steps=1)
    assert {key.split(".")[0] for key in module.state_dict()} == {"generator", "discriminator"}
    assert len(trainer.optimizers[1].param_groups[0]["params"]) == len(list(module.generator.parameters()))
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    vgg_file_gone = {"vgg_weights": "nowhere.pth"}  # needed to train, not to enlarge
    SRGAN.load_to_sample(tmp_path / "m.ckpt", **vgg_file_gone).translate(images(1, (3, 8, 8)))


def test_missing_and_wrong_weights_are_named(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    module = small_translator(SRGAN, image_shape=(3, 32, 32), content="vgg54")
    with pytest.raises(MisconfigurationException, match=r"vgg19-.*--model\.vgg_weights=FILE.*--model\.content=mse"):
        fit(module, translator_batch(module, 4), max_steps=1)
    torch.save({"layer": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(MisconfigurationException, match=r"other\.pth is no state_dict of torchvision's vgg19"):
        VGGFeatures("vgg22", str(tmp_path / "other.pth"))


# From SRResNet to SRGAN


@pytest.mark.parametrize("averaged", [False, True])
def test_finetuning_starts_from_the_pretrained_generator(averaged, tmp_path):
    first = small_translator(SRResNet)
    if averaged:
        first.start_averaging()
    trainer = fit(first, translator_batch(first, 8), max_steps=2)
    if averaged:
        with torch.no_grad():
            first.averaged_generator.output.bias.fill_(0.25)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    expected = first.averaged_generator if averaged else first.generator
    module = small_translator(SRGAN, pretrained=str(tmp_path / "first.ckpt"))
    module.start_averaging()
    still = {"generator_optimizer": lambda p: torch.optim.SGD(p, 0.0)}
    module.generator_optimizer = still["generator_optimizer"]
    fit(module, translator_batch(module, 4), max_steps=1)
    for network in (module.generator, module.averaged_generator):
        for a, b in zip(network.parameters(), expected.parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_resumed_run_does_not_start_again(tmp_path):
    first = small_translator(SRResNet)
    fit(first, translator_batch(first, 4), max_steps=1).save_checkpoint(tmp_path / "first.ckpt")
    module = small_translator(SRGAN, pretrained=str(tmp_path / "first.ckpt"))
    trainer = fit(module, translator_batch(module, 8), max_steps=2)
    trainer.save_checkpoint(tmp_path / "second.ckpt")
    (tmp_path / "first.ckpt").unlink()
    resumed = small_translator(SRGAN, pretrained=str(tmp_path / "first.ckpt"))
    loader = DataLoader(TensorDataset(*translator_batch(module, 12)), 4)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=3, max_epochs=-1, enable_model_summary=False, **quiet)
    trainer.fit(resumed, loader, ckpt_path=tmp_path / "second.ckpt")
    assert trainer.global_step == 3


def test_the_pretrained_generator_says_how_large_it_is(tmp_path):
    """So that its sizes need not be repeated; a checkpoint of the fine-tuned one is enough from then on."""
    first = small_translator(SRResNet, width=6, blocks=3, smooth=True)
    fit(first, translator_batch(first, 4), max_steps=1).save_checkpoint(tmp_path / "first.ckpt")
    sizes = {"image_shape": (1, 32, 32), "discriminator_width": 4, "content": "mse"}
    module = SRGAN(pretrained=str(tmp_path / "first.ckpt"), **sizes)
    assert (module.generator.output.in_channels, module.blocks) == (6, 3)
    assert any(isinstance(layer, SmoothShuffle) for layer in module.generator.modules())
    fit(module, translator_batch(module, 4), max_steps=1).save_checkpoint(tmp_path / "second.ckpt")
    (tmp_path / "first.ckpt").unlink()
    assert SRGAN.load_to_sample(tmp_path / "second.ckpt").blocks == 3
    assert SRGAN.load_to_sample(tmp_path / "second.ckpt").hparams["smooth"]
    assert SRGAN(pretrained=str(tmp_path / "second.ckpt"), **sizes).blocks == 3
    module = SRGAN(pretrained=str(tmp_path / "second.ckpt"), width=6, blocks=3, **sizes)
    with pytest.raises(MisconfigurationException, match=r"second\.ckpt has --model\.smooth=true: give it"):
        fit(module, translator_batch(module, 4), max_steps=1)
    module = SRGAN(pretrained=str(tmp_path / "second.ckpt"), width=6, blocks=3, smooth=False, **sizes)
    fit(module, translator_batch(module, 4), max_steps=1)
    assert SRGAN(pretrained="gone.ckpt", width=6, blocks=3, **sizes).blocks == 3  # nothing is read before training
    with pytest.raises(MisconfigurationException, match=r"--model\.pretrained=gone\.ckpt does not exist"):
        SRGAN(pretrained="gone.ckpt", **sizes)
    with pytest.raises(MisconfigurationException, match=r"--model\.pretrained=.* is a folder: give a checkpoint in it"):
        SRGAN(pretrained=str(tmp_path), **sizes)
    module = SRGAN(pretrained=str(tmp_path / "second.ckpt"), scale=2, **sizes)
    with pytest.raises(MisconfigurationException, match=r"scale 4.*scale 2.*give --data\.scale=4"):
        fit(module, translator_batch(module, 4), max_steps=1)
    assert SRGAN(**sizes).blocks == 16


def test_another_generator_or_none_is_named(tmp_path):
    first = small_translator(SRResNet, blocks=2)
    fit(first, translator_batch(first, 4), max_steps=1).save_checkpoint(tmp_path / "first.ckpt")
    module = small_translator(SRGAN, pretrained=str(tmp_path / "first.ckpt"))
    with pytest.raises(MisconfigurationException, match=r"--model\.pretrained=.*first\.ckpt.*blocks 2.*blocks 1"):
        fit(module, translator_batch(module, 4), max_steps=1)
    module = small_translator(SRGAN, pretrained="nowhere.ckpt")
    with pytest.raises(MisconfigurationException, match=r"--model\.pretrained=nowhere\.ckpt does not exist"):
        fit(module, translator_batch(module, 4), max_steps=1)


def test_scales_that_are_no_power_of_two_are_named():
    with pytest.raises(MisconfigurationException, match=r"--data\.scale must be 2, 4 or 8.*got 3"):
        SRResNet(image_shape=(3, 96, 96), scale=3)


def test_without_a_pretrained_generator_it_says_so():
    module = small_translator(SRGAN)
    with pytest.warns(UserWarning, match=r"SRGAN begins with an untrained generator.*--model\.pretrained="):
        fit(module, translator_batch(module, 4), max_steps=1)
