"""What Health says of trainings that go well and badly, and that a diverged one keeps its last good checkpoint."""

import csv
import os
import signal
import warnings

import pytest
import torch
from conftest import batch, fit, images, small
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader

from callbacks import AtomicCheckpointIO, BestCheckpoint, Health, LastCheckpoint, MetricsFile, TrainingDiverged
from callbacks.health import spread, win_rate
from command_line import ROOT, run_train
from datamodules import Digits
from gans import DCGAN, GAN, WGAN
from gans.parts.losses import LeastSquares, Realness
from gans.training.noise import NoiseGAN


class Chance(nn.Module):
    """A generator of random images, which its discriminator can tell from others only by heart."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, noise):
        return torch.rand(len(noise), 1, 16, 16) * 2 - 1 + 0 * self.weight


class Memory(NoiseGAN):
    """A discriminator large enough to remember a few training images, of which nothing but memory tells anything."""

    def __init__(self):
        super().__init__(image_shape=(1, 16, 16))
        self.build(
            Chance(),
            nn.Sequential(nn.Flatten(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1), nn.Flatten(0)),
        )


def poison(module, step):
    """Let the generator's loss be NaN from a step on."""
    loss_of = module.generator_loss

    def poisoned(batch):
        loss, logs = loss_of(batch)
        loss = loss * torch.nan if module.global_step >= step else loss
        return loss, logs | {"loss/generator": loss}

    module.generator_loss = poisoned
    return module


def train(tmp_path, module, *callbacks, **kwargs):
    settings = {"enable_checkpointing": True, "plugins": [AtomicCheckpointIO()], "default_root_dir": tmp_path}
    return fit(module, images(400), callbacks=list(callbacks), **settings | kwargs)


def good_step(tmp_path, name="last"):
    """The step of a checkpoint, all of whose weights are finite."""
    checkpoint = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
    assert all(t.isfinite().all() for t in checkpoint["state_dict"].values())
    return checkpoint["global_step"]


def curves(tmp_path):
    """The health curves in a run's metrics, by name and step."""
    if not (tmp_path / "metrics.csv").exists():
        return {}
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("health/diversity")]
    names = [name for name in (rows[0] if rows else {}) if name.startswith("health/")]
    return {name: {int(row["step"]): float(row[name]) for row in rows} for name in names}


def said(record):
    return [str(w.message) for w in record if "health/" in str(w.message)]


# Divergence


@pytest.mark.parametrize("logger", [True, False])
def test_a_loss_that_is_no_number_stops_the_run_where_it_is_logged(logger, tmp_path):
    loggers = MetricsFile(tmp_path) if logger else False
    with pytest.raises(TrainingDiverged, match=r"loss/\w+ is not a finite number at step 8 .*/last\.ckpt") as e:
        train(
            tmp_path,
            poison(small(GAN), 6),
            Health(),
            LastCheckpoint(every_n_steps=3),
            max_steps=20,
            log_every_n_steps=4,
            logger=loggers,
        )
    assert good_step(tmp_path) == 6
    assert "--model.gradient_clip_val" in str(e.value)
    assert "16-mixed" not in str(e.value)  # it was not on


@pytest.mark.parametrize("max_steps", [20, 8], ids=["later", "at the end"])
def test_weights_that_are_no_numbers_are_never_written(max_steps, tmp_path):
    """Between two moments at which losses are logged."""
    with pytest.raises(TrainingDiverged, match="weights that are not finite numbers at step"):
        train(tmp_path, poison(small(GAN), 6), Health(), LastCheckpoint(every_n_steps=3), max_steps=max_steps)
    assert good_step(tmp_path) == 6


def test_the_best_checkpoint_is_kept_too(tmp_path):
    class Scores(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("score", 10.0 - trainer.global_step, logger=False)

    module = poison(small(GAN), 6)
    module.val_dataloader = lambda: DataLoader(images(4), batch_size=4)
    with pytest.raises(TrainingDiverged):
        train(
            tmp_path,
            module,
            Scores(),
            Health(),
            BestCheckpoint("score"),
            max_steps=20,
            val_check_interval=4,
            num_sanity_val_steps=0,
        )
    assert good_step(tmp_path, "best") == 4


def test_sigterm_does_not_write_them_either(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 8:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingDiverged):
        train(tmp_path, poison(small(GAN), 6), Health(), LastCheckpoint(every_n_steps=5), Stop(), max_steps=20)
    assert good_step(tmp_path) == 5


def test_without_a_checkpoint_the_sentence_says_so(tmp_path):
    with pytest.raises(TrainingDiverged, match="no checkpoint was written"):
        train(tmp_path, poison(small(GAN), 0), Health(), LastCheckpoint(), max_steps=4, log_every_n_steps=1)


def test_all_ranks_stop_when_one_diverges(tmp_path):
    """In two real processes: a rank that went on alone would wait for the other one for ever."""

    class Poison(Callback):
        def on_train_start(self, trainer, pl_module):
            if trainer.global_rank == 1:
                loss_of = pl_module.generator_loss
                pl_module.generator_loss = lambda batch: (
                    loss_of(batch)[0],
                    {"loss/generator": torch.tensor(torch.nan)},
                )

    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match=r"TrainingDiverged: .* at step 2"):
        train(
            tmp_path,
            small(GAN),
            Poison(),
            Health(),
            LastCheckpoint(),
            max_steps=20,
            log_every_n_steps=2,
            strategy="ddp_fork",
            devices=2,
        )


@pytest.mark.parametrize("devices", [1, 2])
def test_a_diverging_run_of_the_command_line_ends_in_one_sentence(devices, tmp_path):
    """The learning rate grows beyond all bounds at step 12."""
    arguments = [
        "--config",
        str(ROOT / "configs/quickstart.yaml"),
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--model.width=4",
        "--data.image_size=16",
        "--data.batch_size=32",
        "--model.generator_scheduler=torch.optim.lr_scheduler.StepLR",
        "--model.generator_scheduler.step_size=12",
        "--model.generator_scheduler.gamma=1e30",
        "--last.every_n_steps=10",
        "--trainer.log_every_n_steps=5",
        "--run_dir=out",
        f"--trainer.devices={devices}",
    ]
    done = run_train(arguments, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    for sentence in [line for line in done.stderr.splitlines() if "error:" in line]:
        assert "training diverged" in sentence
        assert "at step 15 (the last checkpoint with finite weights is out/checkpoints/last.ckpt)" in sentence
        assert len(sentence) < 500
    assert "training diverged" in done.stderr
    assert good_step(tmp_path / "out") == 10


# Curves


def test_the_mathematics():
    a, b = torch.randn(7), torch.randn(5).round()
    a[0] = b[0]  # a tie
    pairs = [1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b]
    assert win_rate(a, b).item() == pytest.approx(sum(pairs) / len(pairs))
    assert win_rate(a + 100, b) == 1
    assert win_rate(b, b) == 0.5
    x = images(6)
    distances = [(x[i] - x[j]).norm() for i in range(6) for j in range(i)]
    assert spread(x).item() == pytest.approx(float(sum(distances) / len(distances)))


def test_how_real_outputs_are():
    assert torch.equal(LeastSquares().realness(torch.arange(3.0)), torch.arange(3.0))
    patches = torch.rand(4, 1, 3, 3)
    torch.testing.assert_close(LeastSquares().realness(patches), patches.mean((1, 2, 3)))
    logits = torch.tensor([[0.0, 0.0, 50.0], [50.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(Realness(outcomes=3).realness(logits), torch.tensor([1.0, -1.0, 0.0]))


def test_every_gan_is_judged_as_in_training_and_left_as_it_was(gan, tmp_path):
    module = gan()
    with warnings.catch_warnings(record=True):
        fit(module, callbacks=[Health(every_n_steps=1, count=8)], logger=MetricsFile(tmp_path))
    assert len(curves(tmp_path)["health/diversity"]) > 0
    module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    verdicts = module.verdicts(batch(6))
    if verdicts is not None:
        assert [v.shape for v in verdicts] == [(6,), (6,)]
        assert "health/win_rate" in curves(tmp_path)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert all(p.requires_grad for p in module.parameters())


def trainer(folder, *callbacks, **kwargs):
    settings = {
        "logger": MetricsFile(folder),
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "num_sanity_val_steps": 0,
    }
    return Trainer(**settings | kwargs, callbacks=list(callbacks))


@pytest.mark.parametrize("make", [lambda: small(DCGAN), lambda: small(DCGAN, spectral_norm=True), lambda: small(GAN)])
def test_training_goes_on_as_if_nobody_had_looked(make, tmp_path):
    """The same weights, bit for bit, with held-out data, random mirroring, dropout, batch norm or spectral norm."""
    weights = []
    for steps in (0, 1):
        digits = Digits(data_dir=str(tmp_path / "data"), image_size=16, batch_size=32, horizontal_flip=True)
        digits.val_split, items = "test", digits.items("train")
        digits.items = lambda _, items=items: items
        torch.manual_seed(1)
        module, folder = make(), tmp_path / str(steps)
        trainer(folder, Health(every_n_steps=steps, count=64), max_steps=6).fit(module, digits)
        weights.append(torch.cat([value.flatten().double() for value in module.state_dict().values()]))
        assert ("health/overfitting" in curves(folder)) == bool(steps)
    assert torch.equal(*weights)


def test_collapse_is_said_once_and_with_advice(tmp_path):
    module = small(GAN)
    module.generate = lambda batch: torch.zeros_like(batch)
    with pytest.warns(UserWarning, match="modes have collapsed") as record:
        fit(module, images(40), callbacks=[Health(every_n_steps=1, count=8)], logger=MetricsFile(tmp_path))
    (sentence,) = said(record)
    assert "step 2:" in sentence  # the first step after which there are 8 images to compare
    assert set(curves(tmp_path)["health/diversity"].values()) == {0.0}


def test_images_as_different_as_the_real_ones_have_not_collapsed(tmp_path, recwarn):
    module = small(GAN)
    module.generate = lambda batch: -batch
    fit(module, images(40), callbacks=[Health(every_n_steps=2, count=8)], logger=MetricsFile(tmp_path))
    assert list(curves(tmp_path)["health/diversity"].values()) == pytest.approx([1.0] * 5)
    assert not said(recwarn)


def test_a_generator_that_becomes_more_diverse_is_left_in_peace(tmp_path, recwarn):
    module = small(GAN)
    module.generate = lambda batch: batch * module.global_step / 40
    fit(module, images(40), callbacks=[Health(every_n_steps=1, count=8)], logger=MetricsFile(tmp_path))
    assert max(curves(tmp_path)["health/diversity"].values()) < 0.5
    assert not said(recwarn)


@pytest.mark.parametrize("cls", [GAN, WGAN])
def test_a_discriminator_that_wins(cls, tmp_path, recwarn):
    """Said of the fifth check in a row, and not of a Wasserstein critic."""
    module = small(cls, n_critic=1)
    module.generate = lambda batch: -batch
    module.verdicts = lambda batch: (torch.ones(len(batch)), torch.full((len(batch),), float(module.global_step == 4)))
    fit(module, images(80), callbacks=[Health(every_n_steps=1, count=4)], logger=MetricsFile(tmp_path))
    wins = curves(tmp_path)["health/win_rate"]
    assert wins == {step: 0.5 if step == 4 else 1.0 for step in range(1, 21)}
    sentences = said(recwarn)
    assert len(sentences) == (cls is GAN)
    assert all("step 9:" in sentence and "health/win_rate is 1" in sentence for sentence in sentences)


def with_held_out(module, held_out, **kwargs):
    """Train on 32 images beside others that are held out."""
    module.val_dataloader = lambda: DataLoader(held_out, batch_size=8)
    return fit(module, images(32), batch_size=8, limit_val_batches=len(held_out), num_sanity_val_steps=0, **kwargs)


def test_overfitting_by_hand(tmp_path):
    """(2 - 1.25) / (2 - 0.5), where fakes count however their batch was made."""
    module, held_out = small(GAN), images(40, seed=1)
    seen = {image.sum().item() for image in images(32)}
    module.verdicts = lambda batch: (
        torch.tensor([2.0 if image.sum().item() in seen else 1.25 for image in batch]),
        torch.full((len(batch),), 0.5),
    )
    with_held_out(module, held_out, callbacks=[Health(every_n_steps=3, count=16)], logger=MetricsFile(tmp_path))
    assert curves(tmp_path)["health/overfitting"] == {3: pytest.approx(0.5)}


def test_a_discriminator_that_memorises_is_found_out(tmp_path):
    health = Health(every_n_steps=50, count=32)
    with pytest.warns(UserWarning, match=r"memorised training images.*health/overfitting"):
        with_held_out(
            Memory(), images(64, seed=1), callbacks=[health], logger=MetricsFile(tmp_path), max_steps=400, max_epochs=-1
        )
    values = list(curves(tmp_path)["health/overfitting"].values())
    assert values[-1] == pytest.approx(1, abs=0.15)


def test_no_overfitting_curve_without_held_out_images(tmp_path):
    digits = Digits(data_dir=str(tmp_path / "data"), image_size=16, batch_size=32)  # validates on the training images
    trainer(tmp_path, Health(every_n_steps=1, count=32), max_steps=2).fit(small(DCGAN), digits)
    assert curves(tmp_path).keys() == {"health/diversity", "health/win_rate"}


def test_a_healthy_run_is_left_in_peace(tmp_path, recwarn):
    digits = Digits(data_dir=str(tmp_path / "data"), image_size=16, batch_size=64)
    trainer(tmp_path, Health(every_n_steps=50), max_steps=150).fit(small(DCGAN, width=16), digits)
    assert list(curves(tmp_path)["health/diversity"]) == [50, 100, 150]
    assert not said(recwarn)


def test_what_may_be_asked_for(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"--health\.count .* 1$"):
        Health(count=1)
    fit(small(GAN), callbacks=[Health(every_n_steps=0)], logger=MetricsFile(tmp_path))
    assert not curves(tmp_path)
