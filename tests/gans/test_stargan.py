"""StarGAN against its equations."""

import pytest
import torch
from conftest import fit, images, small_translator, translator_batch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from gans import StarGAN

ATTRIBUTES = torch.tensor([[0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize("attributes", [False, True])
def test_losses_are_the_papers(attributes):
    """Equations 5, 6 and 8 in float64, without the penalty, which is tested for itself."""
    module = small_translator(StarGAN, attributes=attributes, penalty=None).double()
    image = images(4, (1, 32, 32)).double()
    label = ATTRIBUTES if attributes else torch.tensor([0, 1, 2, 1])
    order = torch.tensor([2, 0, 3, 1])
    asked = label[order]
    fake = module.generator(image, module.vector(asked))
    module._made = [(batch := (image, label), (asked, fake))]

    def class_loss(logits, wanted):
        if attributes:  # summed over attributes, in the mean over images
            p = torch.sigmoid(logits)
            return -(wanted * p.log() + (1 - wanted) * (1 - p).log()).sum() / len(wanted)
        return -logits.log_softmax(1)[torch.arange(len(wanted)), wanted].mean()

    (real_score, real_class), (fake_score, fake_class) = map(module.discriminator, (image, fake))
    d_loss, _ = module.discriminator_loss(batch)
    torch.testing.assert_close(d_loss, fake_score.mean() - real_score.mean() + class_loss(real_class, label))
    g_loss, _ = module.generator_loss(batch)
    back = (module.generator(fake, module.vector(label)) - image).abs().mean()
    torch.testing.assert_close(g_loss, -fake_score.mean() + class_loss(fake_class, asked) + 10 * back)


def test_the_penalty_is_wgan_gps_on_the_patches():
    module = small_translator(StarGAN)
    _, logs = module.discriminator_loss(translator_batch(module, 4))
    assert logs["loss/penalty"] > 0
    (gradient,) = torch.autograd.grad(logs["loss/penalty"], module.discriminator.source.weight)
    assert gradient.abs().sum() > 0
    # Of the patches alone: the class head has no part in it.
    (gradient,) = torch.autograd.grad(
        module.discriminator_loss(translator_batch(module, 4))[1]["loss/penalty"],
        module.discriminator.domain[0].weight,
        allow_unused=True,
    )
    assert gradient is None or not gradient.any()


def test_domains_asked_for_are_those_of_the_batch_shuffled():
    module = small_translator(StarGAN)
    image, label = images(60, (1, 32, 32)), torch.arange(60) % 3 % 2  # the third domain does not come up
    asked, _ = module.fakes((image, label))
    assert asked.bincount().tolist() == label.bincount().tolist()
    assert not torch.equal(asked, label)


def test_planes_of_the_domain_are_stacked_on_the_image():
    module = small_translator(StarGAN)
    seen = []
    module.generator[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = images(2, (1, 32, 32))
    module.translate(image, module.vector(torch.tensor([2, 0])))
    assert torch.equal(seen[0][:, :1], image)
    assert seen[0][:, 1:, 5, 7].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert torch.equal(seen[0][:, 1:], seen[0][:, 1:, :1, :1].expand(-1, -1, 32, 32))


def test_n_critic_is_counted_over_epochs():
    module = small_translator(StarGAN)
    assert module.n_critic == 5
    trainer = fit(module, translator_batch(module, 12), max_epochs=5)  # three batches an epoch
    assert trainer.global_step == 3


def test_generate_asks_for_another_domain_or_changes_one_attribute():
    module = small_translator(StarGAN)
    asked = []
    module.translate = lambda image, vector: asked.append(vector) or image
    label = torch.arange(30) % 3
    module.generate((images(30, (1, 32, 32)), label))
    assert (asked[0].argmax(1) != label).all()
    assert len({tuple(pair) for pair in zip(label.tolist(), asked[0].argmax(1).tolist(), strict=True)}) == 6
    module.attributes = True
    module.generate((images(4, (1, 32, 32)), ATTRIBUTES))
    assert (asked[1] != ATTRIBUTES).sum(1).tolist() == [1, 1, 1, 1]


def test_pictures_show_each_domain():
    module = small_translator(StarGAN)
    batch = translator_batch(module, 2)
    shown = module.shown(batch)
    assert shown.shape == (2, 4, 1, 32, 32)
    assert torch.equal(shown[:, 2], module.translate(batch[0], module.vector(torch.tensor([1, 1]))))
    each = small_translator(StarGAN, attributes=True).each(ATTRIBUTES.float())
    for i, changed in enumerate(each):
        assert (changed != ATTRIBUTES).nonzero()[:, 1].tolist() == [i] * 4


def test_the_bias_that_the_official_generator_lacks_begins_at_0():
    """All other layers have the biases of the official code, which begin as PyTorch's."""
    module = small_translator(StarGAN)
    convolutions = [layer for layer in module.generator.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    biases = [layer.bias for layer in convolutions if layer.bias is not None]
    assert len(biases) == 1
    assert not biases[0].any()


def test_predict_names_the_domains():
    module = small_translator(StarGAN, domains=["cat", "dog", "wild"], predict_domains=["dog", "cat"])
    results = module.predict_step((images(1, (1, 20, 20))[0], "photo"), 0)
    assert set(results) == {"photo_cat", "photo_dog"}


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"image_shape": (1, 48, 48)}, "48x48"),
        ({"domains": ["one"]}, "at least two domains"),
        ({"predict_domains": ["d"]}, "--model.predict_domains=d must be of a, b, c"),
    ],
)
def test_bad_settings_are_named(settings, culprit):
    with pytest.raises(MisconfigurationException, match=culprit):
        small_translator(StarGAN, **settings)


def test_labels_of_the_other_kind_are_named():
    with pytest.raises(MisconfigurationException, match=r"--model\.attributes=true"):
        small_translator(StarGAN).vector(ATTRIBUTES)
    with pytest.raises(MisconfigurationException, match=r"--model\.attributes=false"):
        small_translator(StarGAN, attributes=True).vector(torch.tensor([0, 1]))
