"""Exports: networks as ONNX files that give PyTorch's images, and models built again from safetensors."""

import json
import sys
from math import sqrt

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import CLASSES, TRANSLATORS, fit, lively, smallest
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import gans
from callbacks import EMA
from gans.export import graph
from gans.export.directions import directions, first_features, principal
from gans.export.folder import write
from gans.export.portable import Input, Portable
from gans.export.show import described, paper_of, shown
from gans.parts.layers import coins
from gans.training.module import GANModule
from gans.training.noise import NoiseGAN


def model_of(any_gan):
    try:
        return lively(any_gan(num_classes=CLASSES))
    except TypeError:  # of a class without classes
        return lively(any_gan())


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(path, *given):
    network = session(path)
    return torch.from_numpy(
        network.run(None, {i.name: v.numpy() for i, v in zip(network.get_inputs(), given, strict=True)})[0]
    )


def test_every_gan_exports_and_comes_back(any_gan, tmp_path):
    model = model_of(any_gan)
    written = dict(write(model, tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == set(written)
    assert "generator.onnx" in written
    assert written.pop("generator.safetensors") is None
    for name, error in written.items():
        portable = model.portable()[name.removesuffix(".onnx")]
        assert error <= graph.TOLERANCE
        network = session(tmp_path / name)
        assert [i.name for i in network.get_inputs()] == list(portable.inputs)
        assert [tuple(i.shape) for i in network.get_inputs()] == [i.shape for i in portable.inputs.values()]
        assert (network.get_outputs()[0].name, tuple(network.get_outputs()[0].shape)) == (
            portable.output,
            portable.shape,
        )
        given = portable.draw(batch=5, height=33, width=50)
        expected = portable.call(*given)
        assert expected.std() > 0.05  # there is something to compare
        torch.testing.assert_close(run(tmp_path / name, *given), expected, atol=1e-3, rtol=0)
    again = gans.from_export(tmp_path)
    assert type(again) is type(model)
    assert not again.training
    given = model.portable()["generator"].draw(batch=2, height=40, width=48)
    torch.testing.assert_close(
        again.portable()["generator"].call(*given), model.portable()["generator"].call(*given), atol=0, rtol=0
    )


@pytest.mark.parametrize("cls", TRANSLATORS, ids=lambda cls: cls.__name__)
def test_a_translator_is_exported_as_it_translates(cls):
    model = lively(smallest(cls))
    images = torch.rand(1, 1, 37, 41) * 2 - 1
    more = {
        name: given.draw({"batch": 1})
        for name, given in model.portable()["generator"].inputs.items()
        if name != "images"
    }
    found = model.portable()["generator"].call(images, *more.values())
    if cls is gans.Pix2Pix:  # whose own noise is drawn anew
        assert found.shape == model.translate(images).shape
    else:
        torch.testing.assert_close(found, model.translate(images, *more.values()), atol=1e-5, rtol=0)


def test_files_hold_the_averaged_generator_and_no_discriminator(tmp_path):
    model = smallest(gans.DCGAN)
    fit(model, max_steps=3, callbacks=[EMA(half_life=16)])
    assert not torch.equal(*(next(n.parameters()) for n in (model.generator, model.averaged_generator)))
    list(write(model.eval(), tmp_path))
    with safe_open(tmp_path / "generator.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.generator.state_dict())
        assert all(torch.equal(file.get_tensor(k), w) for k, w in model.averaged_generator.state_dict().items())
    weights = sum(w.numel() for w in model.generator.state_dict().values())
    assert (tmp_path / "generator.onnx").stat().st_size < 4 * weights + 20_000
    noise = model.noise(3)
    assert torch.equal(gans.from_export(tmp_path).sample_from(noise), model.sample_from(noise))


def test_steps_and_the_sizes_that_a_growing_generator_has_in_use_come_back(tmp_path, monkeypatch):
    model = lively(smallest(gans.StyleGAN, image_shape=(1, 32, 32), grow_images=100))
    model.images_seen, model.trained_steps = 350, 7
    model.restored()
    mapping = model.portable()["mapping"]
    monkeypatch.setattr(model, "portable", lambda: {"mapping": mapping})  # the others take long
    list(write(model, tmp_path))
    again = gans.from_export(tmp_path)
    assert (again.trained_steps, again.images_seen) == (7, 350)
    assert again.generator.growth.level() == model.generator.growth.level() == (4, 0.5)
    z = model.noise(2)
    found = run(tmp_path / "mapping.onnx", z, torch.tensor(0.5))
    expected = model.generator.truncate(model.generator.mapping(z), 0.5)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_metadata_is_plain_and_names_no_file_of_this_machine(tmp_path):
    model = smallest(gans.SRGAN)
    model.hparams["pretrained"] = "/home/me/run/best.ckpt"
    list(write(model, tmp_path))
    with safe_open(tmp_path / "generator.safetensors", "pt") as file:
        gan = json.loads(file.metadata()["gan"])
    assert gan["class"] == "gans.srgan.SRGAN"
    assert "/home/me" not in json.dumps(gan)
    assert gan["settings"]["blocks"] == 1
    assert gans.SRGAN.from_export(tmp_path).pretrained is None


def damaged(path, **changes):
    with safe_open(path, "pt") as file:
        gan = json.loads(file.metadata()["gan"])
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(weights, path, {"gan": json.dumps(gan | changes)})


def test_what_is_no_export_is_refused(tmp_path):
    path = tmp_path / "generator.safetensors"
    with pytest.raises(MisconfigurationException, match="does not exist: give a folder that an export has written"):
        gans.from_export(tmp_path)
    list(write(smallest(gans.GAN), tmp_path))
    with pytest.raises(MisconfigurationException, match=r"holds a gans\.gan\.GAN, and not a DCGAN"):
        gans.DCGAN.from_export(tmp_path)
    whole = path.read_bytes()
    for wrong in (whole[:-10], b"", b"\x80\x04K\x01.", whole[: len(whole) // 2]):
        path.write_bytes(wrong)
        with pytest.raises(MisconfigurationException, match="no generator that this lab has exported"):
            gans.from_export(tmp_path)
    path.write_bytes(whole)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(MisconfigurationException, match="no generator that this lab has exported"):
        gans.from_export(tmp_path)
    for changes, said in (
        ({"class": "os.system"}, "none of the lab's models"),
        ({"settings": {"image_shape": [1, 16, 16], "hidden": "lots"}}, "hidden='lots'"),
        ({"settings": {"image_shape": [1, 16, 16], "latent_dim": 9, "hidden": 8}}, "is damaged"),
        ({"step": "7"}, "no generator that this lab has exported"),
        ({"images_seen": None}, "no generator that this lab has exported"),
    ):
        path.write_bytes(whole)
        damaged(path, **changes)
        with pytest.raises(MisconfigurationException, match=said):
            gans.from_export(tmp_path)


def test_an_export_is_only_to_sample(tmp_path):
    list(write(smallest(gans.GAN), tmp_path))
    with pytest.raises(MisconfigurationException, match="loaded to sample"):
        fit(gans.GAN.from_export(tmp_path))


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime", "safetensors"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MisconfigurationException, match=rf"needs the package {package}: pip install -e '\.\[export\]'"):
        list(write(smallest(gans.GAN), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


class Outside(nn.Module):
    """A layer that leaves PyTorch."""

    def forward(self, x):
        return torch.from_numpy(np.tanh(x.detach().numpy()))


class Odd(gans.GAN):
    """A GAN with such a layer."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.generator.append(Outside())


def test_what_cannot_be_exported_ends_in_a_sentence_and_leaves_no_network(tmp_path):
    with pytest.raises(
        MisconfigurationException, match=r"Odd cannot be exported to ONNX .* as those of all GANs of the"
    ):
        list(write(smallest(Odd), tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_network_that_gives_other_images_is_not_kept(tmp_path):
    class Wrong(gans.GAN):
        def portable(self):
            calls = iter(range(100))
            return {
                "generator": self.sampled(
                    lambda z: self.sample_from(z) * next(calls), dict(super().portable()["generator"].inputs)
                )
            }

    with pytest.raises(MisconfigurationException, match="gives other images in ONNX Runtime than in PyTorch"):
        list(write(lively(smallest(Wrong)), tmp_path))
    assert not list(tmp_path.iterdir())


class Bare(GANModule):
    """Neither a sampler nor a translator."""

    def generator_loss(self, batch):
        return torch.zeros(())

    def generate(self, batch):
        return batch


def test_what_is_no_sampler_and_no_translator_says_what_can_be_exported():
    with pytest.raises(
        MisconfigurationException, match="Bare cannot be exported: GANs can that derive from Sampler or"
    ):
        Bare((1, 8, 8)).portable()


def test_a_function_of_ones_own_is_exported(tmp_path):
    layer = nn.Linear(3, 2)
    given = Input(("batch", 3), "anything", lambda at: torch.randn(at["batch"], 3), "normal")
    portable = Portable(lambda x: layer(x).tanh(), {"x": given}, "y", ("batch", 2), "something")
    graph.write(layer, portable, tmp_path / "own.onnx")
    assert graph.largest_error(portable, tmp_path / "own.onnx") < 1e-6
    assert portable.described()["inputs"]["x"] == {
        "shape": ["batch", 3],
        "type": "float32",
        "about": "anything",
        "values": "normal",
        "names": [],
    }


# pix2pix's dropout


def test_coins_are_fair_and_depend_on_the_seed_alone():
    tosses = torch.stack([coins(4096, torch.tensor(seed)) for seed in range(200)]).double()
    assert abs(tosses.mean() - 0.5) < 4 * 0.5 / sqrt(tosses.numel())
    assert (tosses.mean(0) - 0.5).abs().max() < 5 * 0.5 / sqrt(200)  # no place is dropped always
    correlation = torch.corrcoef(tosses)
    assert (correlation - torch.eye(200)).abs().max() < 5.5 / sqrt(4096)  # nor do seeds resemble each other
    shifted = (tosses[:, 1:] == tosses[:, :-1]).double().mean()
    assert abs(shifted - 0.5) < 5 * 0.5 / sqrt(tosses.numel())
    assert torch.equal(coins(64, torch.tensor(5)), coins(64, torch.tensor(5)))
    assert coins(8, torch.tensor(2**31 * 3)).dtype == torch.bool  # no number leaves 64 bits


def test_a_seed_of_pix2pix_fixes_what_is_dropped_and_no_seed_stays_behind():
    model = lively(smallest(gans.Pix2Pix))
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    first, again, other = (model.translate_alike(images, torch.tensor(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(model.translate(images), model.translate(images))


# Directions


def test_directions_of_a_linear_layer_are_its_singular_vectors():
    model = smallest(gans.GAN, latent_dim=4, hidden=16)
    first = next(layer for layer in model.generator.modules() if isinstance(layer, nn.Linear))
    with torch.no_grad():
        axes = torch.linalg.qr(torch.randn(16, 4))[0]
        first.weight.copy_(axes * torch.tensor([1.0, 4.0, 2.0, 0.5]))  # a unit vector of z each, so many times as long
    found = directions(model, 3)
    assert found.shape == (3, 4)
    torch.testing.assert_close(found.abs(), torch.eye(4)[[1, 2, 0]], atol=0.03, rtol=0)


def test_principal_components_are_eigenvectors_and_what_does_not_vary_has_none():
    points = torch.randn(2000, 20, dtype=torch.float64) @ torch.randn(20, 20, dtype=torch.float64)
    found = principal(torch.cov(points.T), 5)
    values, vectors = torch.linalg.eigh(torch.cov(points.T))
    torch.testing.assert_close(found.norm(dim=1), values.flip(0)[:5].sqrt())
    assert ((found * vectors.T.flip(0)[:5]).sum(1).abs() / found.norm(dim=1) > 0.999).all()
    assert (found.gather(1, found.abs().argmax(1, keepdim=True)) > 0).all()
    assert len(principal(torch.ones(6, 6, dtype=torch.float64), 4)) == 1


def test_directions_of_a_styled_generator_are_those_of_w():
    model = lively(smallest(gans.StyleGAN, latent_dim=8))
    found = directions(model)
    w = model.generator.mapping(torch.randn(20_000, 8)).detach()
    along = ((w - w.mean(0)) @ torch.nn.functional.normalize(found).T).std(0)
    torch.testing.assert_close(along, found.norm(dim=1), atol=0.02, rtol=0.06)
    assert (found.norm(dim=1).diff() <= 0).all()


def test_directions_leave_codes_and_classes_alone():
    model = smallest(gans.InfoGAN, latent_dim=12)
    assert directions(model).shape == (8, 12)
    conditional = smallest(gans.CGAN, num_classes=CLASSES, latent_dim=5)
    assert directions(conditional).shape == (5, 5)
    noise, label = torch.randn(4, 5), torch.zeros(4, dtype=torch.long)
    features = first_features(conditional.generator, noise, label)
    assert len(features) == 4
    assert not torch.equal(features[0], features[1])


# What is said of a model


def test_papers_are_those_of_the_readme():
    assert paper_of(gans.DCGAN) == (
        "Unsupervised Representation Learning with Deep Convolutional GANs",
        "https://arxiv.org/abs/1511.06434",
    )
    addresses = {cls: paper_of(getattr(gans, cls))[1] for cls in gans.__all__}
    assert addresses.pop("RestorationGAN") == ""
    assert all(address.startswith("https://arxiv.org/abs/") for address in addresses.values())
    assert paper_of(type("Mine", (gans.LSGAN,), {"__module__": __name__}))[1] == "https://arxiv.org/abs/1611.04076"
    assert paper_of(type("Mine", (NoiseGAN,), {"__module__": __name__})) == ("", "")


def test_a_page_gets_networks_directions_and_what_they_take():
    values, files = shown(lively(smallest(gans.StyleDCGAN)))
    assert set(files) == set(values["networks"]) == {"mapping", "synthesis"}
    assert (values["truncation"], values["coarse"], len(values["directions"])) == (1, 1, 8)
    json.dumps(values)
    translator = described(smallest(gans.SRResNet))
    assert "directions" not in translator
    assert translator["networks"]["generator"]["margin"] == 11
    assert translator["networks"]["generator"]["output"]["shape"] == ["batch", 1, "4*height", "4*width"]
