"""What images are compared by."""

from urllib.error import URLError

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import interpolate

from callbacks.features import create, name_of


def uint8(n=2, channels=3, size=20):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """torch-fidelity's network with random weights, in the format of the published file."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    class Random(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            """Keep what the constructor drew."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        network = Random("inception-v3-compat", ["2048"])
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


def test_inception_is_torch_fidelitys_with_its_resize(inception_file):
    """For small and large, colour and grey images."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    reference = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(inception_file))
    ours = create("inception", str(inception_file))
    for images in (uint8(size=32), uint8(size=400)):
        features, logits = ours(images)
        assert features.shape == (2, 2048)
        for mine, expected in zip((features, logits), reference(images), strict=True):
            assert (mine - expected).abs().max() < 1e-5 * expected.abs().max()
    reference.to(memory_format=torch.channels_last)  # as ours is, so that not even rounding differs
    for images in (uint8(size=32), uint8(size=400)):
        features, logits = ours(images)
        expected = reference(images)
        assert torch.equal(features, expected[0])
        assert torch.equal(logits, expected[1])
    grey = uint8(channels=1)
    assert torch.equal(ours(grey).features, reference(grey.repeat(1, 3, 1, 1))[0])


def test_inceptions_resize_is_not_antialiased_and_aligned_as_in_tensorflow_1(inception_file):
    """Pixel i of the output comes from i * size / 299 of the input; half-pixel centres would shift it."""
    seen = []
    network = create("inception", str(inception_file)).network
    network.Conv2d_1a_3x3.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = uint8(n=1, size=598)
    network(images)
    expected = (images[:, :, ::2, ::2].float() - 128) / 128  # halving takes every second pixel
    assert torch.allclose(seen[0], expected)
    antialiased = interpolate(images.float(), (299, 299), mode="bilinear", antialias=True)
    assert not torch.allclose(seen[0], (antialiased - 128) / 128, atol=0.1)


@pytest.fixture(scope="module")
def classifier_file(tmp_path_factory):
    from torchvision.models import mobilenet_v3_small

    path = tmp_path_factory.mktemp("weights") / "mobilenet.pth"
    network = mobilenet_v3_small(weights=None)
    torch.save(network.state_dict(), path)
    return path


def test_a_torchvision_classifier_gives_its_last_features_and_logits(classifier_file):
    from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small

    network = mobilenet_v3_small(weights=None)
    network.load_state_dict(torch.load(classifier_file, weights_only=True))
    network.eval()
    ours = create("mobilenet_v3_small", str(classifier_file))
    images = uint8(size=224)  # the size it was trained on, so that nothing is resized
    features, logits = ours(images)
    settings = MobileNet_V3_Small_Weights.DEFAULT.transforms()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (settings.mean, settings.std))
    assert torch.allclose(logits, network((images / 255 - mean) / std), atol=1e-5)
    assert features.shape == (2, 1024)
    assert torch.allclose(network.classifier[-1](features), logits, atol=1e-5)
    assert ours(uint8(channels=1)).features.shape == (2, 1024)


def test_pixels_are_area_means():
    images = uint8(channels=1, size=16)
    expected = images.float().div(255).view(2, 8, 2, 8, 2).mean((2, 4)).flatten(1)
    features, logits = create("pixels", None)(images)
    assert torch.allclose(features, expected)
    assert logits is None


class Mean(nn.Module):
    """A network of a user's own."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, images):
        assert images.dtype == torch.uint8
        return self.factor * images.float().mean((2, 3))


def test_a_network_of_ones_own_by_class_path(tmp_path, monkeypatch):
    monkeypatch.setattr("callbacks.features.Mean", Mean, raising=False)
    torch.save({"factor": torch.full((1,), 3.0)}, tmp_path / "mean.pth")
    extractor = create("callbacks.features.Mean", str(tmp_path / "mean.pth"))
    grey = uint8(channels=1)
    features, logits = extractor(grey)
    assert torch.allclose(features, 3 * grey.float().mean((2, 3)).expand(-1, 3))
    assert logits is None


@pytest.mark.parametrize("features", ["pixels", "inception", "mobilenet_v3_small"])
def test_extractors_are_frozen_and_in_eval_mode(features, inception_file, classifier_file):
    files = {"inception": str(inception_file), "mobilenet_v3_small": str(classifier_file)}
    extractor = create(features, files.get(features))
    assert not any(p.requires_grad for p in extractor.parameters())
    assert not any(m.training for m in extractor.modules())


def test_names_of_scores():
    assert name_of("pixels") == "pixels"
    assert name_of("mine.networks.ArcFace") == "arcface"


# What users get wrong


class Evil:
    def __reduce__(self):
        return (print, ("code from a stranger's file",))


@pytest.mark.parametrize("features", ["inception", "mobilenet_v3_small"])
def test_files_that_hold_code_or_something_else_are_refused_unread(features, tmp_path, capsys):
    torch.save({"weights": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name in ("evil.pth", "text.pth"):
        with pytest.raises(MisconfigurationException, match=rf"--score\.weights=.*{name} is not a file of weights"):
            create(features, str(tmp_path / name))
    assert "stranger" not in capsys.readouterr().out


@pytest.mark.parametrize("features", ["inception", "mobilenet_v3_small"])
def test_weights_of_another_network_are_named(features, tmp_path):
    torch.save({"layer": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(MisconfigurationException, match=rf"other\.pth does not fit --score\.features={features}"):
        create(features, str(tmp_path / "other.pth"))


def test_mistaken_names(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"--score\.features=resnet81.*resnet18"):
        create("resnet81", None)
    with pytest.raises(MisconfigurationException, match=r"--score\.features=no\.such\.Network cannot be imported"):
        create("no.such.Network", None)
    with pytest.raises(MisconfigurationException, match=r"--score\.features=math\.pi is not a torch.nn.Module"):
        create("math.pi", None)
    with pytest.raises(MisconfigurationException, match=r"--score\.weights=.*nowhere\.pth does not exist"):
        create("inception", str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize("features", ["inception", "resnet18"])
def test_without_a_network_the_file_the_folder_and_the_way_out_are_named(features, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(MisconfigurationException, match=r"\.pth") as error:
        create(features, None)
    for part in (str(tmp_path), "https://", "--score.weights", "--score.features=pixels"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
