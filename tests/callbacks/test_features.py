"""What images are compared by."""

import importlib
import sys
from urllib.error import URLError

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import interpolate

from callbacks.scores.features import Custom, create, fingerprint, name_of, probe, read_weights


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
    monkeypatch.setattr("callbacks.scores.features.Mean", Mean, raising=False)
    torch.save({"factor": torch.full((1,), 3.0)}, tmp_path / "mean.pth")
    extractor = create("callbacks.scores.features.Mean", str(tmp_path / "mean.pth"))
    grey = uint8(channels=1)
    features, logits = extractor(grey)
    assert torch.allclose(features, 3 * grey.float().mean((2, 3)).expand(-1, 3))
    assert logits is None


def test_a_network_that_draws_its_weights_draws_the_same_ones():
    state = torch.get_rng_state()
    first = create("torchvision.models.AlexNet", None)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    second = create("torchvision.models.AlexNet", None)
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda _: None, True),
        (lambda network: network.to(memory_format=torch.channels_last), True),
        (lambda network: network[0].weight.data.mul_(1 + 2**-20), False),
        (lambda network: network[1].running_var.add_(2**-20), False),
        (lambda network: network[1].num_batches_tracked.add_(1), False),
        (lambda network: network.to(torch.bfloat16), False),
        (lambda network: network[0].register_buffer("more", torch.zeros(1), persistent=False), False),
    ],
)
def test_a_fingerprint_is_that_of_all_weights_and_buffers(change, same):
    networks = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    change(networks[1])
    first, second = (fingerprint(Custom(network)) for network in networks)
    assert (first == second) == same


def test_a_fingerprint_is_that_of_the_code_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for factor in (1, 2):
        (tmp_path / "own.py").write_text(f"import torch\nclass Own(torch.nn.Module):\n    factor = {factor}\n")
        monkeypatch.delitem(sys.modules, "own", raising=False)
        importlib.invalidate_caches()
        found.append(fingerprint(create("own.Own", None)))
    assert found[0] != found[1]


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


def test_a_file_that_is_replaced_after_it_was_read_runs_nothing(inception_file, tmp_path, monkeypatch, capsys):
    path = tmp_path / "weights.pth"
    path.write_bytes(inception_file.read_bytes())

    def then_replaced(file):
        found = read_weights(file)
        torch.save({"weights": Evil()}, file)
        return found

    monkeypatch.setattr("callbacks.scores.features.read_weights", then_replaced)
    assert fingerprint(create("inception", str(path))) == fingerprint(create("inception", str(inception_file)))
    assert "stranger" not in capsys.readouterr().out


@pytest.mark.parametrize("features", ["inception", "mobilenet_v3_small"])
def test_weights_of_another_network_are_named(features, tmp_path):
    torch.save({"layer": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(MisconfigurationException, match=rf"other\.pth does not fit --score\.features={features}"):
        create(features, str(tmp_path / "other.pth"))


class Wrong(nn.Module):
    """A user's network that makes something else of images than features."""

    result = None

    def forward(self, images):
        return self.result(images)


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (lambda x: x.float().mean(), r"made \(1,\)|cannot look"),
        (lambda x: x.float()[:1], r"made \(1, 1200\), float32"),
        (lambda x: (x.float(),), "cannot look at uint8 images .*: 'tuple'"),
        (lambda x: x @ x.missing, "cannot look at uint8 images .*: 'Tensor' object has no attribute 'missing'"),
        (lambda x: nn.functional.conv2d(x, torch.ones(1, 3, 1, 1)), "cannot look at uint8 images"),
        (lambda x: torch.ones(len(x), 4), "must tell images apart: of two random ones it made the same features"),
        (lambda x: x.float().flatten(1) * torch.nan, "must tell images apart: .* features that are not finite numbers"),
    ],
)
def test_a_network_that_gives_no_features_is_named(result, sentence):
    network = Wrong()
    network.result = result
    with pytest.raises(MisconfigurationException, match=rf"--score\.features=own\.Wrong .*{sentence}"):
        probe(Custom(network), "own.Wrong", (1, 20, 20))


def test_mistaken_names(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"--score\.features=torch\.nn\.Linear cannot be made without"):
        create("torch.nn.Linear", None)
    for strange in (".", "..x", "1.5", "a b.c"):
        with pytest.raises(MisconfigurationException, match=r"--score\.features=.* cannot be imported"):
            create(strange, None)
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
