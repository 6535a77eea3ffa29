"""A run that is killed and goes on leaves the same files as one that was not."""

import os

import pytest
import torch
from conftest import small
from lightning.pytorch import Callback, Trainer
from untimed import rows

from callbacks import (
    EMA,
    AtomicCheckpointIO,
    BestCheckpoint,
    Health,
    LastCheckpoint,
    MetricsFile,
    Neighbors,
    Samples,
    Score,
    Views,
)
from callbacks.pictures.images import plain
from callbacks.scores.history import keep_until
from datamodules import Digits
from gans import DCGAN

CHECKPOINT = "checkpoints/last.ckpt"


class Killed(BaseException):
    """Stands in for a signal that leaves no time for anything."""


class Kill(Callback):
    """Kill the run at the end of a batch."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise Killed


class Rows(Callback):
    """Keep in the checkpoint how far metrics.csv and scores.json were, and go on there."""

    scored = 0

    def on_validation_end(self, trainer, pl_module):
        self.scored = trainer.global_step

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["rows"] = trainer.loggers[0].rows, self.scored == trainer.global_step

    def on_load_checkpoint(self, trainer, pl_module, checkpoint):
        rows, scored = checkpoint["rows"]
        trainer.loggers[0].cut(rows)
        keep_until(trainer.loggers[0].path.with_name("scores.json"), checkpoint["global_step"], inclusive=scored)


def train(folder, *callbacks, held_out=True, n_critic=1, **kwargs):
    """Train a small DCGAN on digits up to step 20, in a folder, with a checkpoint every 4 steps."""
    digits = Digits(data_dir=str(folder.parent / "data"), image_size=16, batch_size=32, horizontal_flip=True)
    if held_out:  # other images than those of training, as far as anybody can tell
        digits.val_split, items = "test", digits.items("train")
        digits.items = lambda _: items
    torch.manual_seed(1)
    settings = {
        "logger": MetricsFile(folder),
        "plugins": [AtomicCheckpointIO()],
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "num_sanity_val_steps": 0,
        "max_steps": 20,
        "val_check_interval": 6,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": 2,
        "callbacks": [*callbacks, LastCheckpoint(every_n_steps=4)],
    }
    checkpoint = str(folder / CHECKPOINT) if (folder / CHECKPOINT).exists() else None
    trainer = Trainer(**settings | kwargs)
    trainer.fit(small(DCGAN, n_critic=n_critic), digits, ckpt_path=checkpoint, weights_only=True)
    return trainer


def twice(tmp_path, make, step, **kwargs):
    """Folders of an uninterrupted run and of one that was killed at a step and resumed."""
    once, again = tmp_path / "once", tmp_path / "again"
    train(once, *make(), **kwargs)
    with pytest.raises(Killed):
        train(again, *make(), Kill(step), **kwargs)
    train(again, *make(), **kwargs)
    return once, again


def files(folder):
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}
    return found | {"metrics.csv": str(rows(folder)).encode()}


@pytest.mark.parametrize("n_critic", [1, 2])
@pytest.mark.parametrize("step", [9, 14])
def test_all_files_are_the_same(step, n_critic, tmp_path):
    """Killed before the first score of the part that is lost (9), and after it, which adds columns (14)."""

    def make():
        score = Score(features="pixels", num_images=50, num_real=60, cache_dir=str(tmp_path / "cache"))
        # Curves every 7 steps of 6 batches: at 14, of which 12 needs some, and with two critic steps fewer.
        health = Health(every_n_steps=7, count=192)
        best = BestCheckpoint(score.monitor)
        return [EMA(), Samples(3, count=9), Views(6, columns=2), Neighbors(2, num_real=64), score, health, Rows(), best]

    once, again = twice(tmp_path, make, step, n_critic=n_critic)
    expected, found = files(once), files(again)
    assert found.keys() == expected.keys()
    assert {name for name in found if found[name] != expected[name]} == set()
    assert (again / "scores.json").read_bytes() == (once / "scores.json").read_bytes()
    assert b"health/overfitting" in found["metrics.csv"]
    states = [torch.load(folder / "checkpoints/best.ckpt", weights_only=True) for folder in (once, again)]
    assert states[0]["global_step"] == states[1]["global_step"]


def test_columns_that_came_after_the_checkpoint_come_again(tmp_path):
    """The first curve is drawn at 14, after the checkpoint of 12 and before the run is killed."""
    once, again = twice(tmp_path, lambda: [Health(every_n_steps=14, count=64), Rows()], 15, limit_val_batches=0)
    assert files(again) == files(once)
    assert b"health/diversity" in files(again)["metrics.csv"]


def test_the_ring_of_batches_is_no_larger_than_the_next_check_needs(tmp_path):
    """Twelve batches are compared at 20; 16 batches are in the past at step 16, of which the newest 8 count."""
    train(tmp_path / "run", Health(every_n_steps=20, count=12 * 32), max_steps=16)
    state = torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["health"]
    assert [len(ring) for ring in state["recent"]] == [8]
    train(tmp_path / "far", Health(every_n_steps=200, count=12 * 32), max_steps=16)
    assert torch.load(tmp_path / "far" / CHECKPOINT, weights_only=True)["health"]["recent"] == [[]]


@pytest.mark.parametrize(("count", "every"), [(32, 6), (500, 6), (192, 5), (192, 0)])
def test_other_settings_of_health_go_on(count, every, tmp_path):
    folder = tmp_path / "run"
    train(folder, Health(every_n_steps=6, count=192), max_steps=4)
    assert len(torch.load(folder / CHECKPOINT, weights_only=True)["health"]["recent"][0]) == 4
    train(folder, Health(every_n_steps=every, count=count), max_steps=20)
    assert (b"health/diversity" in files(folder)["metrics.csv"]) == bool(every)


def test_what_health_said_is_not_said_again(tmp_path, recwarn):
    folder = tmp_path / "run"
    for steps in (4, 8):
        train(folder, Health(every_n_steps=2, count=32, min_diversity=100), max_steps=steps)
    assert len([w for w in recwarn if "modes have collapsed" in str(w.message)]) == 1
    state = torch.load(folder / CHECKPOINT, weights_only=True)["health"]
    assert state["warned"] == ["health/diversity"]
    assert state["diversity"] > 0


@pytest.mark.parametrize(("step", "batches"), [(1, 1), (9, 2)])
def test_samples_of_training_batches_stay_the_same(step, batches, tmp_path):
    """40 images of batches of 32: killed after the first, and after both."""

    def make():
        return [Samples(5, count=40), Rows()]

    def run(name, *callbacks):
        last = LastCheckpoint(every_n_steps=1)
        train(tmp_path / name, callbacks=[*make(), *callbacks, last], limit_val_batches=0)

    run("once")
    with pytest.raises(Killed):
        run("again", Kill(step))
    kept = torch.load(tmp_path / "again" / CHECKPOINT, weights_only=True)["callbacks"]["Samples"]["batches"]
    assert [type(batch) for batch in kept] == [tuple] * batches
    run("again")
    assert files(tmp_path / "again") == files(tmp_path / "once")
    assert len(files(tmp_path / "once")) == 6  # metrics, real images, four pictures


def test_batches_of_samples_are_kept_only_where_they_are_lost_otherwise(tmp_path):
    train(tmp_path / "run", Samples(5, count=40), max_steps=4)
    assert "Samples" not in torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["callbacks"]


def test_a_view_brings_no_more_than_itself():
    batch = plain((torch.zeros(1000)[:2], torch.ones(3)))
    assert [len(part.untyped_storage()) for part in batch] == [8, 12]


def test_pictures_that_a_killed_run_did_not_draw_at_its_end_are_drawn(tmp_path):
    folder = tmp_path / "run"
    trainer = train(folder, samples := Samples(100, count=9), views := Views(100, columns=2))
    expected = files(folder)
    pictures = sorted(path for path in folder.rglob("*_0000020.png"))
    assert len(pictures) == 3
    for lost in (pictures[:1], pictures[2:], []):
        for path in lost:
            path.unlink()
        times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
        for callback in (samples, views):  # what a run that is resumed at its last step goes through
            callback.on_train_start(trainer, trainer.lightning_module)
            callback.on_train_end(trainer, trainer.lightning_module)
        assert files(folder) == expected
        assert all(path.stat().st_mtime_ns == time for path, time in times.items())  # what was there is left alone
    assert samples.latest == folder / "samples/step_0000020.png"


def ring(trainer):
    """The batches that Health of a rank has in mind."""
    (health,) = (c for c in trainer.callbacks if isinstance(c, Health))
    return [] if health._recent is None else [batch[0] for batch in health._recent]


class Rings(Callback):
    """Write each rank's batches to a file when training ends or is killed."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 19:
            torch.save(ring(trainer), self.folder / f"ring-{trainer.global_rank}.pt")


def test_every_rank_has_its_own_ring_again(tmp_path):
    """Of 6 batches at the check of step 19; resumed from 16, of which it needs 3."""
    ranks = {"strategy": "ddp_fork", "devices": 2}

    def run(name, *more, **kwargs):
        (tmp_path / name).mkdir(exist_ok=True)
        train(tmp_path / name, Health(19, count=192), Rows(), *more, Rings(tmp_path / name), max_steps=19, **kwargs)

    run("once", **ranks)
    with pytest.raises(torch.multiprocessing.ProcessExitedException):
        run("again", Die(17), **ranks)
    state = torch.load(tmp_path / "again" / CHECKPOINT, weights_only=True)
    assert state["global_step"] == 16
    assert [len(batches) for batches in state["health"]["recent"]] == [3, 3]
    assert not torch.equal(state["health"]["recent"][0][0][0], state["health"]["recent"][1][0][0])
    run("again", **ranks)
    for rank in (0, 1):
        once, again = (torch.load(tmp_path / name / f"ring-{rank}.pt") for name in ("once", "again"))
        assert len(once) == 6
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert files(tmp_path / "again") == files(tmp_path / "once")


class Die(Kill):
    """Kill the process."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            os._exit(1)


class KillValidation(Kill):
    """Kill the run when it begins to validate."""

    def on_train_batch_start(self, *_):
        """Not here."""

    def on_validation_start(self, trainer, pl_module):
        if trainer.global_step == self.step:
            raise Killed


def test_a_run_that_is_killed_again_before_its_first_batch(tmp_path):
    """The validation of step 12 is made up and the checkpoint written again, before there are any new batches."""

    def make():
        score = Score(features="pixels", num_images=50, num_real=60, cache_dir=str(tmp_path / "cache"))
        return [Samples(3, count=9), score, Health(every_n_steps=14, count=192), Rows()]

    once, again = tmp_path / "once", tmp_path / "again"
    train(once, *make())
    for kill in (KillValidation(12), Kill(12)):
        with pytest.raises(Killed):
            train(again, *make(), kill)
        state = torch.load(again / CHECKPOINT, weights_only=True)
        assert state["global_step"] == 12
        assert state["rows"][1] == (type(kill) is Kill)  # validated
        assert len(state["health"]["recent"][0]) == 4
    train(again, *make())
    assert files(again) == files(once)
    assert (again / "scores.json").read_bytes() == (once / "scores.json").read_bytes()
