"""StyleGAN against the paper and the official code; StyleDCGAN, its fusion with DCGAN."""

import copy
from itertools import pairwise
from math import sqrt

import pytest
import torch
from conftest import batch, fit, images, small
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, leaky_relu, softplus
from torch.utils.data import DataLoader

from gans import DCGAN, StyleDCGAN, StyleGAN
from gans.parts.losses import Realness
from gans.parts.style import AdaIN, Blur, DownConv2d, Mapping, UpConv2d, equalised
from gans.stylegan import Discriminator, Generator, Growth, Layer


def up(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def randomised(network):
    """In float64, with every weight and bias away from its initial value."""
    network = network.double()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return network


def count(network):
    return sum(p.numel() for p in network.parameters())


# Layers


@pytest.mark.parametrize(("gain", "rate"), [(sqrt(2), 1.0), (1.0, 1.0), (sqrt(2), 0.01)])
def test_equalised_learning_rate(gain, rate):
    layer = equalised(nn.Linear(300, 200), gain, rate).double()
    weight = layer.parametrizations.weight.original
    assert weight.std().item() == pytest.approx(1 / rate, rel=0.02)
    bias = layer.parametrizations.bias.original if rate != 1 else layer.bias
    assert not bias.any()
    nn.init.normal_(bias)
    x = torch.randn(5, 300).double()
    he = gain / sqrt(300)
    torch.testing.assert_close(layer(x), x @ (weight * he * rate).T + bias * rate)
    conv = equalised(nn.Conv2d(3, 4, 3), gain, rate)
    original = conv.parametrizations.weight.original
    torch.testing.assert_close(conv.weight, original * gain / sqrt(27) * rate)


def test_spectral_norm_comes_after_the_equalised_learning_rate():
    discriminator = small(StyleGAN, spectral_norm=True).discriminator
    for _ in range(30):  # power iterations
        discriminator(images(4))
    norms = [
        torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
        for layer in discriminator.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    assert norms == pytest.approx([1.0] * len(norms), rel=0.02)


def test_mapping_network():
    mapping = randomised(Mapping(16, 3))
    linears = [layer for layer in mapping if isinstance(layer, nn.Linear)]
    assert len(linears) == 3
    z = torch.randn(5, 16).double()
    x = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for layer in linears:
        weight, bias = layer.parametrizations.weight.original, layer.parametrizations.bias.original
        x = leaky_relu(x @ weight.T * (sqrt(2) / 4 * 0.01) + bias * 0.01, 0.2)
    torch.testing.assert_close(mapping(z), x)
    torch.testing.assert_close(mapping(7 * z), mapping(z), rtol=1e-6, atol=1e-6)


def test_blur_is_the_outer_product_of_1_2_1():
    x = torch.randn(2, 3, 8, 8).double()
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).double() / 16
    expected = torch.stack([conv2d(x[:, i : i + 1], kernel[None, None], padding=1)[:, 0] for i in range(3)], 1)
    torch.testing.assert_close(Blur(3).double()(x), expected)


def test_resampling_convolutions_equal_their_two_steps():
    x = torch.randn(2, 3, 8, 8).double()
    conv = UpConv2d(3, 5, 3, bias=False).double()
    torch.testing.assert_close(conv(x), conv2d(up(x), conv.weight.flip(2, 3), padding=1))
    conv = DownConv2d(3, 5, 3).double()
    torch.testing.assert_close(conv(x), avg_pool2d(conv2d(x, conv.weight, conv.bias, padding=1), 2))


def test_blur_comes_after_upsampling_and_before_downsampling():
    module = small(StyleGAN)
    for layer in module.generator.body[2::2]:
        assert isinstance(layer.conv[0], UpConv2d)
        assert isinstance(layer.conv[1], Blur)
    for block in module.discriminator.body:
        blurs = [i for i, part in enumerate(block) if isinstance(part, Blur)]
        assert len(blurs) == 1
        assert isinstance(block[blurs[0] + 1], DownConv2d)


def test_adain_sets_mean_and_deviation():
    adain = randomised(AdaIN(3, 8))
    w = torch.randn(4, 8).double()
    y = adain(5 * torch.randn(4, 3, 16, 16).double() + 2, w)
    scale, shift = adain.style(w).unflatten(1, (2, 3)).unbind(1)
    torch.testing.assert_close(y.mean((2, 3)), shift)
    torch.testing.assert_close(y.std((2, 3), correction=0), (scale + 1).abs())
    assert adain.style.parametrizations.weight[0].factor == pytest.approx(1 / sqrt(8))


def test_the_order_within_a_layer():
    layer = randomised(Layer(equalised(nn.Conv2d(3, 5, 3, padding=1, bias=False)), 5, 8, 6)).eval()
    x, w = torch.randn(2, 3, 8, 8).double(), torch.randn(2, 6).double()
    y = conv2d(x, layer.conv.weight, padding=1) + layer.fixed_noise * layer.noise_weight
    y = leaky_relu(y + layer.bias, 0.2)
    y = y - y.mean((2, 3), keepdim=True)
    y = y / (y.square().mean((2, 3), keepdim=True) + 1e-8).sqrt()
    scale, shift = layer.adain.style(w)[:, :, None, None].split(5, 1)
    torch.testing.assert_close(layer(x, w), y * (scale + 1) + shift)


def test_noise_is_one_value_a_pixel_with_a_weight_a_channel():
    layer = Layer(nn.Identity(), 5, 8, 6)
    assert not layer.noise_weight.any()
    layer.adain.forward = lambda x, _: x
    zeros = torch.zeros(3, 5, 8, 8)
    with torch.no_grad():
        assert not layer(zeros, None).any()
        layer.noise_weight.copy_(torch.arange(1.0, 6.0)[:, None, None])
        x = layer(zeros, None)
        noise = torch.where(x < 0, x / 0.2, x) / layer.noise_weight
        torch.testing.assert_close(noise, noise[:, :1].expand_as(noise))
        assert not torch.equal(noise[0], noise[1])  # every image has its own
        assert not torch.equal(layer(zeros, None), x)  # and every time another one
        layer.eval()
        torch.testing.assert_close(layer(zeros, None), layer(zeros, None))


@pytest.mark.parametrize(
    ("n", "largest", "group"), [(8, 4, 4), (4, 4, 4), (6, 4, 3), (2, 4, 2), (1, 4, 1), (5, 4, 1), (64, 32, 32)]
)
def test_minibatch_deviation(n, largest, group):
    x = torch.randn(n, 3, 4, 4).double()
    y = small(StyleGAN, deviation_group=largest).discriminator.head[0](x)
    assert torch.equal(y[:, :3], x)
    for i in range(n // group):  # image i is in a group with i + n / group, ...
        members = torch.arange(i, n, n // group)
        deviation = ((x[members] - x[members].mean(0)).square().mean(0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(y[members, 3], deviation.expand(group, 4, 4))


# Networks


def test_parameter_counts_of_the_official_code():
    """At 1024 px with 16 channels at the image; the official code's lists of layers give these totals."""
    with torch.device("meta"):
        assert count(Generator(3, 1024, 512, 16, grow_images=1, mapping_layers=8)) == 26_219_627
        assert count(Discriminator(3, 1024, 16, grow_images=1)) == 23_087_249


def test_the_constant_learns_as_fast_as_the_rest():
    """A flat one, divided by its deviation of 0, had a gradient ten thousand times as large."""
    module = StyleGAN((1, 16, 16), width=16, latent_dim=32, mapping_layers=2)
    loss, _ = module.generator_loss(images(8))
    loss.backward()
    gradients = {name: p.grad.square().mean().sqrt() for name, p in module.generator.named_parameters()}
    others = torch.stack([size for name, size in gradients.items() if name != "const"])
    assert others.median() / 30 < gradients["const"] < others.max()
    assert module.generator.const.std().item() == pytest.approx(1, abs=0.15)


def test_images_can_be_flat():
    """Exactly -1, as MNIST's background is, and never beyond."""
    module = small(StyleGAN)
    with torch.no_grad():
        module.generator.to_image[-1][0].bias.fill_(-20.0)
        assert (module.generator(module.noise(2)) == -1).all()


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_power_of_two(size, channels):
    module = StyleGAN(image_shape=(channels, size, size), width=2, latent_dim=8)
    picture = module.generator(module.noise(2))
    assert picture.shape == (2, channels, size, size)
    assert module.discriminator(picture).shape == (2,)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (3, 512, 512), (3, 32, 64)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(MisconfigurationException, match=rf"{shape[1]}x{shape[2]}.*--data.image_size"):
        StyleGAN(image_shape=shape)


@pytest.mark.parametrize(
    "setting",
    [
        {"mapping_layers": 0},
        {"style_mixing": 1.1},
        {"style_mixing": -0.1},
        {"grow_images": -1},
        {"deviation_group": 0},
    ],
)
def test_bad_settings_are_named(setting):
    with pytest.raises(MisconfigurationException, match=f"--model.{next(iter(setting))}"):
        small(StyleGAN, **setting)


def test_outcomes_of_the_loss():
    module = small(StyleGAN, loss=Realness(outcomes=7))
    assert module.discriminator(images(3)).shape == (3, 7)
    module.discriminator_loss(batch(4))[0].backward()
    module.generator_loss(batch(4))[0].backward()


# Styles


def test_mean_of_w_is_tracked_in_training_only():
    module = small(StyleGAN, style_mixing=0.0)
    generator = randomised(module.generator)
    before = generator.w_mean.clone()
    z = torch.randn(6, 8).double()
    generator.eval()(z)
    assert torch.equal(generator.w_mean, before)
    generator.train()(z)
    torch.testing.assert_close(generator.w_mean, 0.995 * before + 0.005 * generator.mapping(z).mean(0))


def styles_used(generator, z):
    """The w (N, layers, latent_dim) that the layers get."""
    used = []
    hooks = [layer.register_forward_pre_hook(lambda _, args: used.append(args[1].detach())) for layer in generator.body]
    generator(z)
    for hook in hooks:
        hook.remove()
    return torch.stack(used, 1)


def test_styles_are_mixed_from_a_random_layer_on():
    generator = small(StyleGAN).generator
    z = torch.randn(2, 8)
    own = generator.mapping(z).detach()
    cutoffs = []
    for _ in range(300):
        used = styles_used(generator, z)
        same = [torch.equal(used[:, i], own) for i in range(6)]
        cutoffs.append(sum(same))
        assert same == sorted(same, reverse=True)  # first the own w, then the other one
        assert all(torch.equal(used[:, i], used[:, -1]) for i in range(sum(same), 6))
    assert set(cutoffs) == {1, 2, 3, 4, 5, 6}
    assert sum(c < 6 for c in cutoffs) / 300 == pytest.approx(0.9, abs=0.05)
    shares = [cutoffs.count(c) / 300 for c in range(1, 6)]
    assert shares == pytest.approx([0.18] * 5, abs=0.07)
    generator.eval()
    assert torch.equal(styles_used(generator, z), own[:, None].expand(-1, 6, -1))
    generator.train().style_mixing = 0.0
    assert torch.equal(styles_used(generator, z), own[:, None].expand(-1, 6, -1))


def test_truncation_of_the_first_eight_layers_in_evaluation_only():
    module = small(StyleGAN, image_shape=(1, 64, 64), truncation=0.7, style_mixing=0.0)
    generator = module.generator
    generator.w_mean.normal_()
    z = torch.randn(2, 8)
    w = generator.mapping(z).detach()
    mean = generator.w_mean.clone()
    assert torch.equal(styles_used(generator, z), w[:, None].expand(-1, 10, -1))
    generator.w_mean.copy_(mean)
    used = styles_used(generator.eval(), z)
    torch.testing.assert_close(used[:, :8], (mean + 0.7 * (w - mean))[:, None].expand(-1, 8, -1))
    assert torch.equal(used[:, 8:], w[:, None].expand(-1, 2, -1))


def test_scores_are_not_truncated_by_default():
    assert small(StyleGAN).generator.truncation == 1
    module, noise = small(StyleGAN), torch.randn(2, 8)
    module.generator.w_mean.normal_()
    truncated = StyleGAN(image_shape=(1, 16, 16), width=4, latent_dim=8, truncation=0.7)
    truncated.load_state_dict(module.state_dict())
    assert not torch.equal(truncated.sample_from(noise), module.sample_from(noise))


# Training


def test_the_discriminators_loss_is_logistic_with_r1():
    module = small(StyleGAN).double()
    real = images(4).double()
    torch.manual_seed(5)
    loss, _ = module.discriminator_loss(real)
    torch.manual_seed(5)
    fake = module.generator(module.noise(4)).detach()
    x = real.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(module.discriminator(x).sum(), x)
    r1 = 0.0002 * 16**2 / 32 / 2 * gradient.square().sum((1, 2, 3)).mean()
    expected = softplus(-module.discriminator(real)).mean() + softplus(module.discriminator(fake)).mean() + r1
    torch.testing.assert_close(loss, expected)
    assert r1 > 0


def test_optimizers_are_the_papers():
    for optimizer in small(StyleGAN).configure_optimizers()[0]:
        assert optimizer.defaults["lr"] == 1e-3
        assert optimizer.defaults["betas"] == (0.0, 0.99)


def test_scores_see_fresh_noise_and_the_same_z_gives_the_same_image():
    """An image has its own noise in every layer, and the mode is what it was."""
    module = small(StyleGAN, style_mixing=0.0)
    with torch.no_grad():
        for layer in module.generator.body:
            layer.noise_weight.fill_(1.0)
    z = torch.randn(1, 8).expand(3, 8)
    module.noise = lambda n: z[:n]
    scored = module.generate(images(3))
    assert not torch.allclose(scored[0], scored[1], atol=1e-3)
    assert not torch.allclose(module.generate(images(3)), scored, atol=1e-3)
    assert all(part.training for part in module.generator.modules())
    assert not module.generator.w_mean.any()
    shown = module.sample_from(z)
    assert torch.equal(shown, module.sample_from(z))
    torch.testing.assert_close(shown[0], shown[1])


# Growing


def test_the_schedule_in_images():
    growth = Growth(32, 100)
    levels = {0: (2, 0), 100: (2, 0), 101: (3, 0.99), 150: (3, 0.5), 199: (3, 0.01), 200: (3, 0), 300: (3, 0)}
    levels |= {325: (4, 0.75), 400: (4, 0), 10**9: (4, 0)}
    for growth.seen, (sizes, fade) in levels.items():
        assert growth.level() == (sizes, pytest.approx(fade)), growth.seen
    assert Growth(32, 0).level() == (4, 0)


def grow(module, seen):
    module.images_seen = seen
    module.restored()


def growing(seen, **kwargs):
    module = small(StyleGAN, image_shape=(1, 32, 32), grow_images=100, **kwargs).double()
    module.generator.eval()
    grow(module, seen)
    return module


def test_at_first_pictures_are_8x8():
    module = growing(0)
    picture = module.generator(torch.randn(2, 8).double())
    assert picture.shape == (2, 1, 32, 32)
    assert torch.equal(picture, interpolate(picture[:, :, ::4, ::4], scale_factor=4))
    assert picture[0].unique().numel() > 32
    assert module.generator.active_layers() == 4


def test_the_generator_fades_a_size_in():
    module = growing(175)  # 8x8 counts a quarter, 16x16 three quarters
    z = torch.randn(2, 8).double()
    faded = module.generator(z)
    grow(module, 100)
    small_picture = module.generator(z)
    grow(module, 200)
    torch.testing.assert_close(faded, 0.25 * small_picture + 0.75 * module.generator(z))


def test_the_discriminator_fades_a_size_in():
    d = growing(175).discriminator
    x = torch.randn(3, 1, 32, 32).double()
    half, quarter = avg_pool2d(x, 2), avg_pool2d(x, 4)
    features = 0.75 * d.body[1](d.from_image[2](half)) + 0.25 * d.from_image[1](quarter)
    torch.testing.assert_close(d(x), d.head(d.body[0](features)))


@pytest.mark.parametrize(("seen", "block"), [(0, 4), (175, 2), (250, 2), (350, 1)])
def test_the_discriminator_sees_no_detail_beyond_its_size(seen, block):
    module = growing(seen)
    x = torch.randn(3, 1, 32, 32).double()
    detail = torch.randn(3, 1, 32, 32).double()
    detail -= interpolate(avg_pool2d(detail, block), scale_factor=block)
    assert torch.allclose(module.discriminator(x), module.discriminator(x + detail), atol=1e-10)
    finer = interpolate(torch.randn(3, 1, 32 // block, 32 // block).double(), scale_factor=block)
    assert not torch.allclose(module.discriminator(x), module.discriminator(x + finer), atol=1e-6)


def test_real_images_fade_like_generated_ones():
    x = torch.randn(3, 1, 32, 32).double()
    labels = torch.arange(3)
    blended, same = growing(175).blended((x, labels))
    half, quarter = avg_pool2d(x, 2), avg_pool2d(x, 4)
    torch.testing.assert_close(blended, up(0.75 * half + 0.25 * up(quarter)))
    assert same is labels
    assert growing(50).blended(x) is x
    module = growing(175)
    seen = []
    module.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    module.discriminator_loss(x)
    module.verdicts(x)
    assert len(seen) == 4  # real, also for R1, and generated, and both again for the verdicts
    for shown in (seen[0], seen[2]):
        torch.testing.assert_close(shown, blended)


def test_growing_resumes_where_it_stopped(tmp_path):
    def grown():
        return small(StyleGAN, grow_images=8)  # 16 px: 8 images at 8x8, then 8 while 16x16 fades in

    data = images(32)
    module = grown()
    module.start_averaging()
    trainer = fit(module, data, max_steps=3)
    assert [n.growth.level() for n in (module.generator, module.discriminator, module.averaged_generator)] == [
        (3, 0.5)
    ] * 3
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    loaded = StyleGAN.load_to_sample(tmp_path / "m.ckpt")
    for network in (loaded.generator, loaded.discriminator, loaded.averaged_generator):
        assert network.growth.level() == (3, 0.5)
    noise = module.noise(3)
    assert torch.equal(loaded.sample_from(noise), module.sample_from(noise))
    resumed = grown()
    resumed.start_averaging()
    trainer = Trainer(max_steps=4, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(resumed, DataLoader(data, batch_size=4), ckpt_path=tmp_path / "m.ckpt", weights_only=True)
    assert resumed.images_seen == 16
    assert resumed.generator.growth.seen == resumed.averaged_generator.growth.seen == 16
    assert resumed.discriminator.growth.level() == (3, 0)


def test_optimizers_start_anew_where_a_size_comes_in_and_where_it_is_there(tmp_path):
    """As in the official code; and a run that is resumed there ends in the same weights."""

    class Steps(Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, trainer, *_):
            states = [next(iter(o.state.values()), {"step": 0}) for o in trainer.optimizers]
            self.seen.append([int(state["step"]) for state in states])

    def trained(steps, path=None, **kwargs):
        seed_everything(0)
        module = small(StyleGAN, grow_images=8)  # 2 steps of 4 images at 8x8, and 2 while 16x16 fades in
        trainer = Trainer(max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, **kwargs)
        data = DataLoader(images(4).repeat(8, 1, 1, 1), 4)  # which is the same wherever it goes on
        trainer.fit(module, data, ckpt_path=path, weights_only=True)
        return trainer, module.state_dict()

    steps = Steps()
    _, whole = trained(6, callbacks=[steps])
    # Fading begins with the first image after the eighth, and ends with the sixteenth.
    assert steps.seen == [[1, 1], [2, 2], [0, 0], [0, 0], [1, 1], [2, 2]]
    for stop in (2, 3, 4):
        trained(stop)[0].save_checkpoint(tmp_path / "m.ckpt")
        _, resumed = trained(6, tmp_path / "m.ckpt")
        assert all(torch.equal(resumed[name], value) for name, value in whole.items()), stop


def test_all_layers_train_once_grown():
    module = small(StyleGAN, grow_images=4)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    fit(module, images(32), max_steps=1)
    new = {name for name, p in module.named_parameters() if torch.equal(p, before[name])}
    assert any("body.4" in name for name in new)  # 16x16 is still out of use
    fit(module, images(32), max_steps=4)
    still = {name for name, p in module.named_parameters() if torch.equal(p, before[name])}
    assert {name.split(".")[1] for name in still} <= {"to_image", "from_image"}  # that of 4x4 is never used


# Views


@pytest.mark.parametrize("cls", [StyleGAN, StyleDCGAN])
def test_views(cls):
    module = small(cls, image_shape=(1, 32, 32))
    module.generator.w_mean.normal_(0, 0.1)
    state = copy.deepcopy(module.state_dict())
    views = module.views(5)
    assert {"interpolation_linear", "interpolation_spherical", "interpolation_w", "truncation"} < views.keys()
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in state.items())
    for name, pictures in views.items():
        assert pictures.shape[1:] == (5, 1, 32, 32), name
        assert pictures.abs().max() <= 1
    with module.sampling() as generator:
        average = generator.synthesis(generator.w_mean[None]).clamp(-1, 1)
    torch.testing.assert_close(views["truncation"][:, 2], average.expand(4, -1, -1, -1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(views["truncation"][:, 0], views["interpolation_w"][:, 0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("cls", "coarse"), [(StyleGAN, 4), (StyleDCGAN, 1)])
def test_style_mixing_view(cls, coarse):
    module = small(cls, image_shape=(1, 32, 32))
    drawn = []
    with module.sampling() as generator:
        synthesis = generator.synthesis
        generator.synthesis = lambda w: drawn.append(w) or synthesis(w)
        sheet = module.views(3)["style_mixing"]
        del generator.synthesis
    assert sheet.shape == (5, 3, 1, 32, 32)
    assert (sheet[0, 0] == -1).all()
    left, mixed = next((a, b) for a, b in pairwise(drawn) if len(b) == 8 and len(a) == 4)
    top = next(w for w in drawn if len(w) == 2)
    for row in range(4):
        for column in range(2):
            w = mixed[2 * row + column]
            assert torch.equal(w[:coarse], left[row].expand(coarse, -1))
            assert torch.equal(w[coarse:], top[column].expand(len(w) - coarse, -1))
            with module.sampling() as generator:
                picture = generator.synthesis(w[None])[0].clamp(-1, 1)
            torch.testing.assert_close(sheet[row + 1, column + 1], picture, atol=1e-4, rtol=1e-4)


# The fusion


def test_the_fusion_has_dcgans_layers_with_adain_for_batch_norm():
    module, dcgan = small(StyleDCGAN, image_shape=(3, 64, 64)), small(DCGAN, image_shape=(3, 64, 64))
    norms = sum(count(layer) for layer in dcgan.generator if isinstance(layer, nn.BatchNorm2d))
    styles = count(module.generator.adain) + count(module.generator.mapping)
    assert count(module.generator) - styles == count(dcgan.generator) - norms
    assert count(module.generator.mapping) == 8 * (8 * 8 + 8)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in module.generator.modules())
    assert {n: p.shape for n, p in module.discriminator.named_parameters()} == {
        n: p.shape for n, p in dcgan.discriminator.named_parameters()
    }
    assert module.penalty is None
    for optimizer in module.configure_optimizers()[0]:
        assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (2e-4, (0.5, 0.999))


def test_the_fusions_images_come_from_w():
    generator = randomised(small(StyleDCGAN).generator).eval()
    w = torch.randn(2, 8).double()
    x = w[:, :, None, None]
    for conv, adain in zip(generator.body, generator.adain, strict=True):
        x = adain(conv(x), w).relu()
    torch.testing.assert_close(generator.synthesis(w), generator.end(x))
    assert generator.end[-1](torch.tensor(9.0)) < 1


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_fusion_trains(spectral_norm):
    module = small(StyleDCGAN, spectral_norm=spectral_norm)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    fit(module, max_steps=2)
    assert all(not torch.equal(p, before[name]) for name, p in module.named_parameters())
    assert module.generator.w_mean.any()
