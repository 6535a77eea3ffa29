"""R3GAN against its paper and official code."""

import math

import lightning
import pytest
import torch
from conftest import batch, changed, fit, losses, small
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d

from datamodules import Digits
from gans import R3GAN
from gans.parts.losses import RelativisticPairs
from gans.parts.penalties import R1, R2
from gans.r3gan import Block


def test_the_papers_networks():
    """Channels at every size, groups of 16, 2 blocks a size, and the parameters of the official CIFAR-10 networks."""
    cases = {32: (768, [768] * 4), 64: (384, [768] * 4 + [384]), 256: (96, [768] * 4 + [384, 192, 96])}
    for size, (width, widths) in cases.items():
        with torch.device("meta"):
            module = R3GAN(image_shape=(3, size, size), width=width)
        for network, order in ((module.generator, widths), (module.discriminator, widths[::-1])):
            blocks = [layer for layer in network.modules() if isinstance(layer, Block)]
            assert [block.layers[0].in_channels for block in blocks] == [w for w in order for _ in range(2)]
            for block in blocks:
                first, _, middle, _, last = block.layers
                assert first.out_channels == middle.out_channels == last.in_channels == 2 * first.in_channels
                assert middle.in_channels // middle.groups == 16
    with torch.device("meta"):
        module = R3GAN(image_shape=(3, 32, 32), num_classes=10)
    counts = [sum(p.numel() for p in net.parameters()) for net in (module.generator, module.discriminator)]
    block = 2 * 768 * 1536 + 1536 * 16 * 9 + 2 * 1536
    assert counts[0] == 8 * block + 768 * (16 + 128 + 3) + 10 * 64
    assert counts[1] == 8 * block + 768 * (3 + 16 + 768) + 10 * 768


def test_weights_begin_as_in_the_official_code():
    """He's deviation for leaky ReLU times L^(-1/4) for L blocks; the last convolution of a block at 0, and no norm."""
    torch.manual_seed(0)
    module = R3GAN(image_shape=(3, 32, 32), width=64, max_width=64, num_classes=10)
    for network in (module.generator, module.discriminator):
        assert not [layer for layer in network.modules() if "norm" in type(layer).__name__.lower()]
        for name, p in network.named_parameters():
            if name.endswith("bias") or name.endswith("layers.4.weight"):
                assert not p.any(), name
            elif "layers" in name:
                expected = math.sqrt(2 / 1.04) * 8**-0.25 / math.sqrt(p[0].numel())
                assert p.std().item() == pytest.approx(expected, rel=0.1), name
            elif name.endswith("pictures"):
                assert p.std().item() == pytest.approx(1, rel=0.1)
            elif name != "embedding.weight" and p.numel() > 500:
                assert p.std().item() == pytest.approx(p[0].numel() ** -0.5, rel=0.1), name
    assert module.generator.embedding.weight.std().item() == pytest.approx(10**-0.5, rel=0.1)
    assert module.discriminator.embedding.weight.std().item() == pytest.approx((10 * 64) ** -0.5, rel=0.1)


def test_a_new_block_changes_nothing_and_then_adds_what_its_layers_make():
    block, x = Block(8, 4).double(), torch.randn(2, 8, 5, 5, dtype=torch.float64)
    assert torch.equal(block(x), x)
    nn.init.normal_(block.layers[4].weight)
    torch.testing.assert_close(block(x) - x, block.layers(x))


def test_resampling_is_the_official_kernels():
    """[1, 3, 3, 1] both ways: [1, 2, 1] and the two pixels that are repeated or averaged; zeros around the image."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
    kernel = line.outer(line)[None, None] / 64
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    module = small(R3GAN, max_width=8, num_classes=0).double()
    up, down = (
        next(i for i, layer in enumerate(network.body) if isinstance(layer, kind))
        for network, kind in ((module.generator, nn.Upsample), (module.discriminator, nn.AvgPool2d))
    )
    enlarge, reduce = module.generator.body[up : up + 2], module.discriminator.body[down - 1 : down + 1]
    features = x.expand(-1, 8, -1, -1)
    torch.testing.assert_close(enlarge(features)[:, :1], conv_transpose2d(x, 4 * kernel, stride=2, padding=1))
    torch.testing.assert_close(reduce(features)[:, :1], conv2d(x, kernel, stride=2, padding=1))


def test_classes_are_appended_to_the_noise_and_multiplied_with_the_features():
    module, (images, labels) = small(R3GAN), batch(4)
    for p in module.parameters():
        nn.init.normal_(p)
    z = torch.randn(4, 8)
    joint = torch.cat([z, module.generator.embedding.weight[labels]], 1)
    assert torch.equal(module.generator(z, labels), module.generator.body(joint))
    found = module.discriminator.end(module.discriminator.body(images))
    expected = torch.einsum("ni,ni->n", found, module.discriminator.embedding.weight[labels])
    torch.testing.assert_close(module.discriminator(images, labels), expected)
    without = small(R3GAN, num_classes=0)
    assert without.discriminator(images).shape == (4,)
    assert without.fakes(batch(4))[0].shape == (4, 1, 16, 16)


def test_images_are_bounded_by_a_tanh_only_where_it_is_asked_for():
    for tanh in (False, True):
        module = small(R3GAN, tanh=tanh)
        for p in module.generator.parameters():
            nn.init.normal_(p)
        largest = module.fakes(batch(4))[0].abs().max()
        assert (largest <= 1) == tanh


def test_a_generated_image_has_the_class_of_the_real_one_that_it_is_compared_with():
    labels = torch.tensor([2, 0, 0, 1])
    _, given = small(R3GAN).fakes((batch(4)[0], labels))
    assert torch.equal(given, labels)


def test_both_losses_by_hand():
    """Pairs, and gamma / 2 * (R1 + R2), in float64; the gradient goes to the network that is trained."""
    module = small(R3GAN, gamma=0.5).double()
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    real, labels = batch(5)
    real = real.double()
    for loss_of, trained, _ in losses(module):
        torch.manual_seed(1)
        value, _ = loss_of((real, labels))
        torch.manual_seed(1)
        fake = module.generator(module.noise(5), labels)
        pixels = [x.detach().clone().requires_grad_() for x in (real, fake)]
        if "generator" in trained:
            scores = module.discriminator(real, labels), module.discriminator(fake, labels)
            expected = (1 + (scores[0] - scores[1]).exp()).log().mean()
        else:
            scores = [module.discriminator(x, labels) for x in pixels]
            squares = [
                torch.autograd.grad(s.sum(), x)[0].square().sum() / 5 for s, x in zip(scores, pixels, strict=True)
            ]
            expected = (1 + (scores[1] - scores[0]).exp()).log().mean() + 0.25 * sum(squares)
        torch.testing.assert_close(value, expected)


def test_the_generator_gets_real_images_of_its_own():
    """Those that it is compared with are not those that the discriminator was just trained on."""
    module, seen = small(R3GAN), {"discriminator": [], "generator": []}
    compare, fool = module.compare, module.fool
    module.compare = lambda real, fake: seen["discriminator"].append(real[0]) or compare(real, fake)
    module.fool = lambda fake, *real: seen["generator"].append(real[0]) or fool(fake, *real)
    images, labels = batch(24)
    fit(module, (images, labels), max_steps=3, batch_size=4)
    parts = images.split(4)
    assert [part.tolist() for part in seen["discriminator"]] == [part.tolist() for part in parts[::2]]
    assert [part.tolist() for part in seen["generator"]] == [part.tolist() for part in parts[1::2]]
    assert module.images_seen == 24


class Schedule(Callback):
    """Rates, beta2 and weights of the penalties at every batch, by the images seen before it."""

    def __init__(self):
        self.found = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        groups = [optimizer.param_groups[0] for optimizer in trainer.optimizers]
        assert groups[0]["lr"] == groups[1]["lr"]
        assert groups[0]["betas"] == groups[1]["betas"]
        assert groups[0]["betas"][0] == 0
        weights = {penalty.weight * pl_module.penalty_factor for penalty in pl_module.penalties}
        seen = pl_module.images_seen - len(batch[0]) * pl_module.accumulate_grad_batches
        self.found[seen] = (groups[0]["lr"], groups[0]["betas"][1], *weights)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_schedules_at_the_start_in_the_middle_and_at_the_end(accumulate):
    schedule = Schedule()
    module = small(R3GAN, anneal_images=48, accumulate_grad_batches=accumulate)
    fit(module, batch(64), max_steps=16 // (2 * accumulate), callbacks=[schedule])
    assert schedule.found[0] == (2e-4, 0.9, 0.05)
    assert schedule.found[24] == pytest.approx(((2e-4 + 5e-5) / 2, (0.9 + 0.99) / 2, (0.05 + 0.005) / 2), rel=1e-12)
    assert schedule.found[48] == schedule.found[56] == pytest.approx((5e-5, 0.99, 0.005), rel=1e-12)
    decay = 0.5 * (1 + math.cos(math.pi * 16 / 48))  # the official code's
    expected = [first + (1 - decay) * (last - first) for first, last in ((2e-4, 5e-5), (0.9, 0.99), (0.05, 0.005))]
    assert schedule.found[16] == pytest.approx(expected, rel=1e-12)


def test_without_schedules_and_with_a_schedule_of_ones_own():
    constant, halved = Schedule(), Schedule()
    fit(small(R3GAN, anneal_images=0), batch(16), max_steps=2, callbacks=[constant])
    assert set(constant.found.values()) == {(2e-4, 0.9, 0.05)}

    def halve(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    module = small(R3GAN, anneal_images=16, generator_scheduler=halve, discriminator_scheduler=halve)
    fit(module, batch(24), max_steps=3, callbacks=[halved])
    assert [rate for rate, _, _ in halved.found.values()] == [2e-4, 1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5]
    assert halved.found[16][1:] == pytest.approx((0.99, 0.005))


class Keep(Callback):
    """Write a checkpoint after so many batches."""

    def __init__(self, batches, path):
        self.batches, self.path = batches, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx + 1 == self.batches:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("batches", [4, 5])  # after the generator's, and after the discriminator's
def test_schedules_and_turns_go_on_from_a_checkpoint(batches, tmp_path):
    def train(checkpoint, *callbacks):
        lightning.seed_everything(1)
        module, schedule = small(R3GAN, num_classes=10, anneal_images=60), Schedule()
        trainer = Trainer(
            max_steps=4,
            callbacks=[schedule, *callbacks],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        digits = Digits(data_dir=str(tmp_path), image_size=16, batch_size=8)
        trainer.fit(module, digits, ckpt_path=checkpoint, weights_only=True)
        return module, schedule.found

    whole, found = train(None, Keep(batches, tmp_path / "half.ckpt"))
    resumed, later = train(tmp_path / "half.ckpt")
    assert len(found) == 8
    assert later == {seen: values for seen, values in found.items() if seen >= 8 * batches}
    assert not changed(whole.state_dict(), resumed)


def test_the_penalties_factor_leaves_the_loss_itself():
    module, data, found = small(R3GAN, penalty=R1(2.0)), batch(4), {}
    for module.penalty_factor in (1.0, 0.1):
        torch.manual_seed(0)
        loss, logs = module.discriminator_loss(data)
        found[module.penalty_factor] = logs["loss/penalty"], loss - logs["loss/penalty"]
    assert found[1.0][0] > 0
    torch.testing.assert_close(found[0.1][0], 0.1 * found[1.0][0])
    torch.testing.assert_close(found[0.1][1], found[1.0][1])


def test_the_defaults_are_the_official_codes_for_cifar_10():
    with torch.device("meta"):
        module = R3GAN(image_shape=(3, 32, 32))
    assert isinstance(module.loss, RelativisticPairs)
    assert [(type(p), p.weight) for p in module.penalties] == [(R1, 0.05), (R2, 0.05)]
    assert (module.latent_dim, module.anneal_images) == (64, 2 * 20_000_000)
    for player in module.players:
        optimizer, _ = small(R3GAN).build_optimizer(player)
        assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (2e-4, (0.0, 0.9))


def test_other_penalties_take_the_place_of_both():
    assert [type(p) for p in small(R3GAN, penalty=R1(2.0)).penalties] == [R1]
    with pytest.raises(MisconfigurationException, match=r"--model\.gamma=0\.1 has no effect beside --model\.penalty"):
        small(R3GAN, penalty=R1(2.0), gamma=0.1)
    assert small(R3GAN, penalty=[]).penalties == []
    with pytest.raises(MisconfigurationException, match=r"--model\.gamma must be positive; got 0"):
        small(R3GAN, gamma=0)


@pytest.mark.parametrize("name", ["width", "max_width"])
def test_widths_are_multiples_of_8(name):
    with pytest.raises(MisconfigurationException, match=rf"--model\.{name} must be a multiple of 8; got 12"):
        small(R3GAN, **{name: 12})
