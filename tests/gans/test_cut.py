"""CUT against its equations, and what its contrastive loss compares."""

from math import exp, log

import pytest
import torch
from conftest import images, small_translator, translator_batch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import normalize

from gans import CUT
from gans.cut import Heads, patch_nce


def unit(*shape):
    return normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def of_a_place(query, keys, own, temperature=0.07):
    """Equation 2 for one query (width,) and the keys (places, width) of its image."""
    terms = [exp(float(query @ key) / temperature) for key in keys]
    return -log(terms[own] / sum(terms))


def of_an_image(query, key):
    return sum(of_a_place(q, key, s) for s, q in enumerate(query)) / len(query)


# The contrastive loss


def test_patch_nce_is_the_papers():
    """Equations 2 and 3, place by place in float64; negatives are of the same image."""
    query, key = unit(3, 7, 5), unit(3, 7, 5)
    expected = torch.tensor([of_an_image(q, k) for q, k in zip(query, key, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(patch_nce(query, key, 0.07), expected)


def test_patch_nce_of_orthogonal_places_that_are_found():
    """1 place of 8 with similarity 1, 7 with similarity 0; and when every place is alike, chance."""
    vectors = torch.eye(8, dtype=torch.float64)[None]
    for temperature in (0.07, 1.0):
        expected = torch.tensor([log(1 + 7 * exp(-1 / temperature))], dtype=torch.float64)
        torch.testing.assert_close(patch_nce(vectors, vectors, temperature), expected)
    alike = vectors[:, :1].expand(1, 8, 8)
    torch.testing.assert_close(patch_nce(alike, alike, 0.07), torch.tensor([log(8)], dtype=torch.float64))


def test_keys_carry_no_gradient():
    query, key = unit(2, 4, 3).requires_grad_(), unit(2, 4, 3).requires_grad_()
    patch_nce(query, key, 0.07).sum().backward()
    assert query.grad.abs().sum() > 0
    assert key.grad is None


def test_similarities_are_of_full_precision_under_autocast():
    query, key = unit(2, 4, 64).float(), unit(2, 4, 64).float()
    expected = patch_nce(query, key, 0.07)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(patch_nce(query, key, 0.07), expected)


# What it compares


def watch(heads):
    """What the heads are given from now on: a list of features for each call."""
    calls = []
    heads.register_forward_pre_hook(lambda _, given: calls.append(given[0]))
    return calls


def test_features_see_what_the_paper_says():
    """Receptive fields of 1, 9, 15, 35 and 99 pixels (appendix C.1), so also that halving blurs."""
    module = CUT(image_shape=(1, 160, 160), width=2, blocks=9).double()
    for parent in list(module.generator.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.InstanceNorm2d | nn.ReLU):  # one sees everything, the other may see nothing
                setattr(parent, name, nn.Identity())
    for p in module.generator.parameters():
        nn.init.constant_(p, 0.1)
    image = torch.randn(1, 1, 160, 160, dtype=torch.float64, requires_grad=True)
    seen = []
    for features in module.encode(image):
        middle = features[..., features.shape[-2] // 2, features.shape[-1] // 2].sum()
        (gradient,) = torch.autograd.grad(middle, image, retain_graph=True)
        rows, columns = gradient[0, 0].nonzero(as_tuple=True)
        seen.append((rows.max() - rows.min() + 1, columns.max() - columns.min() + 1))
    assert seen == [(size, size) for size in (1, 9, 15, 35, 99)]


def test_the_same_places_of_both_images_are_compared():
    module = small_translator(CUT, patches=16)
    calls = watch(module.heads)
    image = images(2, (1, 32, 32))
    module.contrast(image, image, False)
    query, key = calls
    for q, k in zip(query, key, strict=True):
        assert torch.equal(q, k)
        assert q.shape[:2] == (2, 16)
    pixels = query[0][0].flatten().tolist()
    assert len(set(pixels)) == 16  # none twice
    assert set(pixels) <= set(image[0].flatten().tolist())
    small_translator(CUT, patches=10**6).contrast(image, image, False)  # all that there are


def test_mirrored_translations_are_compared_with_what_they_were_made_of():
    """With pixels alone, since only these are mirrored exactly by mirroring the image."""
    module = small_translator(CUT, patches=10**6).double()
    module.encode, module.heads = lambda given: [given], Heads([1], 8).double()
    a, b = (images(2, (1, 32, 32), seed).double() for seed in (0, 1))
    plain = module.contrast(a, b, False)
    torch.testing.assert_close(module.contrast(a, b.flip(-1), True), plain)
    assert not torch.allclose(module.contrast(a, b.flip(-1), False), plain)


def test_half_of_the_batches_are_mirrored():
    module = small_translator(CUT, flip_equivariance=True, identity=False)
    a, b = translator_batch(module, 1)
    count = 0
    with torch.no_grad():
        plain, mirrored = module.generator(a), module.generator(a.flip(-1))
        for _ in range(100):
            flipped, fakes = module.fakes((a, b))
            assert torch.equal(fakes, mirrored if flipped else plain)
            count += flipped
        assert 30 < count < 70  # four standard deviations
        module.flip_equivariance = False
        assert not any(module.fakes((a, b))[0] for _ in range(20))


# The losses


@pytest.mark.parametrize("identity", [True, False])
def test_losses_are_the_papers(identity):
    """Equations 1 and 5 with least squares, in float64: with all places their order does not matter."""
    weight = 1.0 if identity else 10.0
    module = small_translator(CUT, image_shape=(1, 32, 32), patches=10**6, identity=identity, nce_weight=weight)
    module = module.double()
    for p in module.heads.parameters():
        nn.init.normal_(p, std=0.5)
    a, b = batch = tuple(part.double() for part in translator_batch(module, 2))
    judge = module.discriminator
    fake = module.generator(a)
    d_loss, _ = module.discriminator_loss(batch)
    torch.testing.assert_close(d_loss, ((judge(b) - 1).square().mean() + judge(fake).square().mean()) / 2)

    def contrast(sources, translations):
        total = 0.0
        for head, q, k in zip(module.heads, module.encode(translations), module.encode(sources), strict=True):
            query, key = (normalize(head(f.permute(0, 2, 3, 1).flatten(1, 2)), dim=-1) for f in (q, k))
            similarity = query @ key.mT / 0.07
            total = total - (similarity.diagonal(dim1=1, dim2=2) - similarity.logsumexp(-1)).mean() / 5
        return total

    expected = contrast(a, fake)
    g_loss, logs = module.generator_loss(batch)
    torch.testing.assert_close(logs["loss/contrast"], expected)
    if identity:
        same = contrast(b, module.generator(b))
        torch.testing.assert_close(logs["loss/identity"], same)
        expected = (expected + same) / 2
    assert ("loss/identity" in logs) is identity
    torch.testing.assert_close(g_loss, (judge(fake) - 1).square().mean() + weight * expected)


def test_the_contrastive_loss_trains_generator_and_heads_and_nothing_else():
    """Through the translation and through the encoder that looks at it."""
    module = small_translator(CUT)
    a, b = translator_batch(module, 2)
    _, fakes = module.fakes((a, b))
    fakes.retain_grad()
    module.contrast(torch.cat([a, b]), fakes, False).mean().backward()
    assert fakes.grad.abs().sum() > 0
    for network in (module.generator, module.heads):
        assert all(
            p.grad is not None and p.grad.abs().sum() > 0
            for name, p in network.named_parameters()
            if "bias" not in name
        )
    assert all(p.grad is None for p in module.discriminator.parameters())
    module.zero_grad(set_to_none=True)
    module.contrast(torch.cat([a, b]), fakes.detach(), False).mean().backward()
    encoder = module.layers[-1]
    trained = {int(name.split(".")[0]) for name, p in module.generator.named_parameters() if p.grad is not None}
    assert trained
    assert max(trained) <= encoder


def test_the_discriminator_is_trained_on_what_is_there_and_not_through_it():
    module = small_translator(CUT)
    batch = translator_batch(module, 2)
    module.begin_update([batch])
    loss, _ = module.discriminator_loss(batch)
    loss.backward()
    assert all(p.grad is None for network in (module.generator, module.heads) for p in network.parameters())
    assert all(p.grad is not None for p in module.discriminator.parameters())


# Networks


def test_weights_begin_as_in_the_official_code():
    module = CUT(image_shape=(3, 64, 64), width=32)
    for network in (module.generator, module.discriminator, module.heads):
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                field = layer.weight[0, 0].numel()
                fans = field * (layer.weight.shape[0] + layer.weight.shape[1])
                expected = 0.02 * (2 / fans) ** 0.5
                assert layer.weight.std().item() == pytest.approx(expected, rel=0.15)
                assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("blocks", [1, 3, 5, 9])
def test_the_last_block_takes_the_fifths_place(blocks):
    module = small_translator(CUT, blocks=blocks)
    kinds = [type(module.generator[number]) for number in module.layers]
    assert [kind.__name__ for kind in kinds] == ["Conv2d", "Conv2d", "ResidualBlock", "ResidualBlock"]
    assert module.layers[3] - module.layers[2] == min(blocks, 5) - 1
    shapes = [f.shape[1] for f in module.encode(images(1, (1, 32, 32)))]
    assert shapes == [head[0].in_features for head in module.heads]


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"image_shape": (1, 34, 32)}, "34x32"),
        ({"image_shape": (1, 16, 16)}, "16x16"),
        ({"patch_halvings": 4}, "patch_halvings must be 1, 2 or 3; got 4"),
    ],
)
def test_bad_settings_are_named(settings, culprit):
    with pytest.raises(MisconfigurationException, match=culprit):
        small_translator(CUT, **settings)
