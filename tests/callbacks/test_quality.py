"""The Quality callback, beside its metrics written out in numpy."""

import json
import math
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from conftest import batch_for, small_translator, smallest, translator_batch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from scipy.signal import convolve2d
from torch import nn

from callbacks import BestCheckpoint, MetricsFile, Quality, Score
from callbacks.pictures.images import to_uint8
from callbacks.quality import compare, create_lpips, luminance_of
from gans import DCGAN, Pix2Pix, StarGAN


def images(n=1, channels=3, height=24, width=32, seed=0):
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def near(real, seed=1):
    """Images that resemble others."""
    return (real + 0.3 * images(*real.shape, seed=seed)).clamp(-1, 1)


def numpy_psnr(a, b):
    return 10 * np.log10(255**2 / ((a - b) ** 2).mean())


def numpy_ssim(a, b):
    """Of one channel, as Wang's MATLAB code computes it."""
    x = np.arange(-5, 6)
    window = np.exp(-(x[:, None] ** 2 + x**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(values):
        return convolve2d(values, window, mode="valid")

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    return (((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()


def numpy_luminance(images):
    r, g, b = images.transpose(1, 0, 2, 3)
    return 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255


def levels(images):
    return to_uint8(images).double().numpy()


# The metrics


def test_psnr_and_ssim_are_those_of_each_image():
    real = images(3)
    fake = near(real)
    a, b = levels(fake), levels(real)
    psnr = compare(fake, real, "psnr")
    assert psnr.dtype == torch.float64
    np.testing.assert_allclose(psnr, [numpy_psnr(*pair) for pair in zip(a, b, strict=True)], rtol=1e-6)
    expected = [
        np.mean([numpy_ssim(*channels) for channels in zip(*pair, strict=True)]) for pair in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(compare(fake, real, "ssim"), expected, rtol=1e-9)


def test_luminance_is_matlabs_and_border_is_left_out():
    real = images(2)
    fake = near(real)
    a, b = (numpy_luminance(levels(part[..., 3:-3, 3:-3])) for part in (fake, real))
    np.testing.assert_allclose(luminance_of(to_uint8(real))[:, 0, 3:-3, 3:-3], b, rtol=1e-12)
    options = {"luminance": True, "border": 3}
    psnr = [numpy_psnr(*pair) for pair in zip(a, b, strict=True)]
    ssim = [numpy_ssim(*pair) for pair in zip(a, b, strict=True)]
    np.testing.assert_allclose(compare(fake, real, "psnr", **options), psnr, rtol=1e-6)
    np.testing.assert_allclose(compare(fake, real, "ssim", **options), ssim, rtol=1e-9)


def test_luminance_of_known_colours():
    """MATLAB's rgb2ycbcr gives 16 for black, 235 for white and 81.481 for red; grey is a colour of equal parts."""
    colours = torch.tensor([[0, 0, 0], [255, 255, 255], [255, 0, 0]], dtype=torch.uint8).view(3, 3, 1, 1)
    expected = torch.tensor([16, 235, 81.481], dtype=torch.float64)
    torch.testing.assert_close(luminance_of(colours).flatten(), expected)
    torch.testing.assert_close(luminance_of(colours[:2, :1]).flatten(), expected[:2])


def test_images_are_compared_as_they_would_be_written():
    """What is less than half a level apart is the same; what is out of range is clipped."""
    real = torch.ones(1, 1, 16, 16)
    assert compare(real + 3, real, "psnr").isinf()
    assert compare(real - 0.003, real, "psnr").isinf()
    assert compare(real - 0.005, real, "psnr").item() == pytest.approx(20 * np.log10(255))
    assert compare(real - 0.005, real, "ssim") < 1


def test_ms_ssim_of_a_batch_is_that_of_its_images_in_float64():
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    real = images(2, 1, 176, 180)
    fake = near(real)
    a, b = (to_uint8(part).double() for part in (fake, real))
    expected = [
        multiscale_structural_similarity_index_measure(a[i : i + 1], b[i : i + 1], data_range=255.0) for i in range(2)
    ]
    torch.testing.assert_close(compare(fake, real, "ms_ssim"), torch.stack(expected))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files in torchvision's format, with random weights, by the name that LPIPS has for the network."""
    folder = tmp_path_factory.mktemp("weights")
    for net, name in {"alex": "alexnet", "squeeze": "squeezenet1_1"}.items():
        torch.save(torchvision.models.get_model(name, weights=None).state_dict(), folder / f"{net}.pth")
    return {net: str(folder / f"{net}.pth") for net in ("alex", "squeeze")}


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_lpips_is_torchmetrics_with_the_weights_of_the_file(net, weights, monkeypatch):
    from torchmetrics.functional.image import lpips

    def features(name, pretrained):
        assert pretrained
        network = torchvision.models.get_model(name, weights=None)
        network.load_state_dict(torch.load(weights[net], weights_only=True))
        return network.features

    state = torch.get_rng_state()
    network = create_lpips(net, weights[net])
    assert torch.equal(state, torch.get_rng_state())
    assert not any(p.requires_grad for p in network.parameters())
    real = images(3, height=40, width=48)
    fake = near(real)
    values = compare(fake, real, "lpips", luminance=True, border=2, lpips=network)
    monkeypatch.setattr(lpips, "_get_tv_model_features", features)
    a, b = (to_uint8(part[..., 2:-2, 2:-2]) / 127.5 - 1 for part in (fake, real))
    expected = lpips.learned_perceptual_image_patch_similarity(a, b, net, reduction="none")
    torch.testing.assert_close(values, expected.double())
    assert (values > 0).all()
    grey = real[:, :1]
    assert compare(grey, grey, "lpips", lpips=network).tolist() == [0, 0, 0]


def test_many_images_are_compared_in_parts(monkeypatch):
    real = images(7, height=12, width=12)
    fake = near(real)
    whole = compare(fake, real, "ssim")
    monkeypatch.setattr("callbacks.quality.AT_ONCE", 3)
    torch.testing.assert_close(compare(fake, real, "ssim"), whole)


# The callback


class Translation(LightningModule):
    """Stands in for a paired GAN: batches of inputs and targets; dropout is on when it generates."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.generator = nn.Conv2d(3, 3, 1)
        self.dropout = nn.Dropout(dropout)
        self.automatic_optimization = False

    def generate(self, batch):
        return self.dropout.train()(batch[0])

    def real(self, batch):
        return batch[1]

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.dropout(self.generator(batch[0])).sub(batch[1]).square().mean().backward()
        optimizer.step()

    def validation_step(self, batch, batch_idx):
        """Nothing."""

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def pairs(sizes=((3, 16), (1, 20), (2, 24))):
    """Batches of different numbers of images of different sizes."""
    batches = []
    for seed, (n, size) in enumerate(sizes):
        real = images(n, height=size, width=size + 4, seed=10 + seed)
        batches.append([near(real, seed), real])
    return batches


def trainer(tmp_path, *callbacks, **kwargs):
    options = {
        "logger": MetricsFile(tmp_path),
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "num_sanity_val_steps": 0,
    }
    return Trainer(**options | kwargs, callbacks=list(callbacks))


def kept(tmp_path):
    return json.loads((tmp_path / "quality.json").read_text())


def loader(batches):
    return torch.utils.data.DataLoader(batches, batch_size=None)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_batches_of_different_sizes_are_averaged_over_images(stage, tmp_path, weights, capsys):
    options = {"lpips_weights": weights["squeeze"], "lpips_net": "squeeze"}
    callback = Quality(["psnr", "ssim", "lpips"], luminance=True, border=1, **options)
    batches = pairs(((3, 40), (1, 50), (2, 44)))
    run = trainer(tmp_path, callback)
    getattr(run, stage)(Translation(), loader(batches), verbose=False)
    network = create_lpips("squeeze", weights["squeeze"])
    expected = {
        name: torch.cat([compare(*batch, metric, True, 1, network) for batch in batches]).mean().item()
        for metric, name in {"psnr": "quality/psnr_y", "ssim": "quality/ssim_y", "lpips": "quality/lpips"}.items()
    }
    assert kept(tmp_path)["final"] == {
        "step": 0,
        "scores": pytest.approx(expected, rel=1e-9),
        "protocol": {"images": 6, "luminance": True, "border": 1, "weights": "raw", "lpips_net": "squeeze"},
    }
    assert {name: float(run.callback_metrics[name]) for name in expected} == pytest.approx(expected)
    assert "quality/psnr_y" in capsys.readouterr().out
    assert "quality/psnr_y" in (tmp_path / "metrics.csv").read_text()


def test_two_ranks_give_what_one_gives(tmp_path, monkeypatch):
    """Each rank adds its sums to the other's; two runs, one after the other, stand in for them."""
    batches = pairs()
    trainer(tmp_path / "one", Quality(["psnr", "ssim"])).validate(Translation(), loader(batches), verbose=False)
    sums = []

    def reduce(_, tensor, *__, reduce_op="mean"):
        if not tensor.ndim:  # a count of Lightning's own
            return tensor
        assert reduce_op == "sum"
        sums.append(tensor)
        return torch.stack(sums).sum(0)

    monkeypatch.setattr("lightning.pytorch.strategies.SingleDeviceStrategy.reduce", reduce)
    for rank in (0, 1):
        run = trainer(tmp_path / "two", Quality(["psnr", "ssim"]))
        run.validate(Translation(), loader(batches[rank::2]), verbose=False)
    one, two = (kept(tmp_path / name)["final"] for name in ("one", "two"))
    assert one["protocol"]["images"] == two["protocol"]["images"] == 6
    assert one["scores"] == pytest.approx(two["scores"], rel=1e-12)


def test_training_goes_on_as_if_nothing_had_been_compared(tmp_path):
    """The same weights, bit for bit, though generating draws dropout; and the same values for the same weights."""
    weights = []
    for metrics in ([], ["psnr"]):
        torch.manual_seed(0)
        model = Translation(dropout=0.5)
        data = loader(pairs())
        run = trainer(tmp_path, Quality(metrics), max_steps=6, val_check_interval=1)
        run.fit(model, data, data)
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*weights)
    values = [entry["scores"]["quality/psnr"] for entry in kept(tmp_path)["history"]]
    assert len(values) == 6
    assert len(set(values)) == 1  # generate does not depend on the weights here


def test_the_end_of_training_is_compared_where_a_score_is_off(tmp_path):
    model = small_translator(Pix2Pix)
    data = loader([list(translator_batch(model)) for _ in range(3)])
    callbacks = [Score(num_images=0), Quality(["ssim", "psnr"]), BestCheckpoint("quality/ssim")]
    options = {"val_check_interval": 2, "check_val_every_n_epoch": None, "enable_checkpointing": True}
    trainer(tmp_path, *callbacks, max_steps=5, **options).fit(model, data, data)
    assert [entry["step"] for entry in kept(tmp_path)["history"]] == [2, 4, 5]
    assert (tmp_path / "checkpoints/best.ckpt").exists()


@pytest.mark.parametrize(("metric", "best"), [("psnr", 1), ("lpips", 2)])
def test_the_best_moment_by_each_metric(metric, best, tmp_path, monkeypatch):
    values = iter([1.0, 3.0, 0.5])
    monkeypatch.setattr("callbacks.quality.compare", lambda generated, *_: torch.full((len(generated),), next(values)))
    monkeypatch.setattr("callbacks.quality.create_lpips", lambda *_: nn.Identity())
    callback = Quality([metric])
    data = loader(pairs(((2, 16),)))
    checkpoint = BestCheckpoint(callback.monitor)
    options = {"max_steps": 3, "val_check_interval": 1, "enable_checkpointing": True}
    trainer(tmp_path, callback, checkpoint, **options).fit(Translation(), data, data)
    assert kept(tmp_path)["best"]["step"] == best + 1
    assert torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)["global_step"] == best + 1


def test_images_that_are_no_numbers_are_not_compared(tmp_path):
    model = Translation()
    model.generate = lambda batch: batch[0] / 0
    with pytest.warns(UserWarning, match="not all finite numbers, so they are not compared"):
        trainer(tmp_path, Quality(["psnr"])).validate(model, loader(pairs()), verbose=False)
    assert math.isnan(kept(tmp_path)["final"]["scores"]["quality/psnr"])


@pytest.mark.parametrize("cls", [DCGAN, StarGAN])
def test_images_without_a_target_are_refused(cls, tmp_path):
    model = smallest(cls)
    data = loader([list(batch_for(model, 8))])
    with pytest.raises(MisconfigurationException, match=rf"--quality\.metrics=\[psnr,ssim\] .* {cls.__name__}"):
        trainer(tmp_path, Quality(["psnr", "ssim"]), max_steps=1).fit(model, data, data)


def test_off_by_default(tmp_path):
    callback = Quality()
    assert callback.monitor is None
    model = Translation()
    model.generate = None
    trainer(tmp_path, callback).validate(model, loader(pairs()), verbose=False)
    assert not (tmp_path / "quality.json").exists()


def test_names():
    assert Quality(["lpips", "psnr"]).monitor == "quality/lpips"
    names = Quality(["psnr", "ssim", "ms_ssim", "lpips"], luminance=True).names.values()
    assert list(names) == ["quality/psnr_y", "quality/ssim_y", "quality/ms_ssim_y", "quality/lpips"]


# What users get wrong


def test_mistaken_settings():
    with pytest.raises(MisconfigurationException, match=r"--quality\.metrics=psrn .* psnr, ssim, ms_ssim, lpips"):
        Quality(["psrn"])
    with pytest.raises(MisconfigurationException, match=r"--quality\.border .* -1"):
        Quality(["psnr"], border=-1)
    with pytest.raises(MisconfigurationException, match=r"--quality\.lpips_net=vgg19 .* alex, vgg, squeeze"):
        Quality(["lpips"], lpips_net="vgg19")


def test_images_that_cannot_be_compared():
    real = images(height=170, width=200)
    with pytest.raises(MisconfigurationException, match=r"ms_ssim needs .* 176 px a side; these have 162x192 .*=4"):
        compare(real, real, "ms_ssim", border=4)
    with pytest.raises(MisconfigurationException, match=r"psnr needs .* 1 px a side; these have 0x"):
        compare(real, real, "psnr", border=85)
    with pytest.raises(MisconfigurationException, match=r"\(1, 3, 85, 100\).*\(1, 3, 170, 200\)"):
        compare(real[..., ::2, ::2], real, "psnr")


@pytest.mark.parametrize(("metric", "size"), [("psnr", 1), ("ssim", 11), ("ms_ssim", 176), ("lpips", 31)])
def test_the_smallest_images_that_can_be_compared(metric, size, weights):
    real = images(height=size, width=size)
    assert compare(near(real), real, metric, lpips=create_lpips("alex", weights["alex"])).isfinite()


@pytest.mark.parametrize(
    ("metric", "size", "border", "fits"),
    [("ms_ssim", 128, 0, False), ("ms_ssim", 256, 0, True), ("ssim", 16, 2, True), ("ssim", 16, 3, False)],
)
def test_images_that_are_too_small_are_named_before_training(metric, size, border, fits):
    quality = Quality([metric], border=border)
    data, trainer = SimpleNamespace(image_shape=(3, size, size)), SimpleNamespace(local_rank=0)
    if fits:
        quality.prepare(trainer, data)
        return
    with pytest.raises(
        MisconfigurationException, match=rf"--quality\.metrics={metric} needs images of at least .*{size}x{size}"
    ):
        quality.prepare(trainer, data)
    data.scale = 4  # whole pictures are compared, of any size
    quality.prepare(trainer, data)


def test_training_images_are_said_to_be_what_is_compared():
    data, trainer = SimpleNamespace(image_shape=(3, 16, 16), val_split="train"), SimpleNamespace(local_rank=0)
    with pytest.warns(UserWarning, match=r"No images are held out, and quality/psnr will be of training images"):
        Quality(["psnr"]).prepare(trainer, data)


def test_lpips_without_its_weights_ends_before_training(tmp_path, weights, monkeypatch):
    def offline(*_, **__):
        raise URLError("no network")

    def message(**kwargs):
        data = loader(pairs())
        with pytest.raises(MisconfigurationException) as error:
            trainer(tmp_path, Quality(["lpips"], **kwargs), max_steps=1).fit(Translation(), data, data)
        assert "\n" not in str(error.value)
        return str(error.value)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    for part in ("alexnet", "https://", str(tmp_path), "--quality.lpips_weights=PATH", "leave lpips out"):
        assert part in message()
    nowhere = tmp_path / "nowhere.pth"
    assert message(lpips_weights=str(nowhere)).startswith(f"--quality.lpips_weights={nowhere} does not exist")
    nowhere.write_text("no weights")
    assert "is not a file of weights" in message(lpips_weights=str(nowhere))
    assert "does not fit --quality.lpips_net=alex" in message(lpips_weights=weights["squeeze"])
