"""Checkpoints: written whole or not at all, the newest and the best."""

import os
import shutil
import signal
import time
import warnings

import pytest
import torch
from conftest import fit, images, small
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch.utils.data import DataLoader

from callbacks import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint, MetricsFile, Samples
from gans import GAN


def train(tmp_path, module=None, **kwargs):
    settings = {"enable_checkpointing": True, "plugins": [AtomicCheckpointIO()], "logger": MetricsFile(tmp_path)}
    return fit(module or small(GAN), images(200), **settings | kwargs)


def steps(tmp_path, name):
    return torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]


def test_a_write_that_is_cut_short_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(3)}, path)

    def half(_, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(3)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(3))


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    """For real: a child is killed in the middle of torch.save."""
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(3)}, path)
    child = os.fork()
    if child == 0:
        save = torch.save

        def die(checkpoint, file):
            save(checkpoint, file)
            os.kill(os.getpid(), signal.SIGKILL)

        torch.save = die
        AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(3)}, path)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(3))


@pytest.mark.parametrize("earlier", [True, False])
def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(full_disk, earlier, tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    if earlier:
        AtomicCheckpointIO().save_checkpoint({"a": torch.ones(3)}, path)
    before = "the one before it is as it was" if earlier else "there is none before it"
    sentence = rf"last\.ckpt cannot be written \(File too large\), and {before}"
    with full_disk(100_000), pytest.raises(MisconfigurationException, match=sentence):
        AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(50_000)}, path)
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"] * earlier
    assert not earlier or torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(3))


def test_what_torch_cannot_save_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(Exception, match="pickle") as error:
        AtomicCheckpointIO().save_checkpoint({"a": lambda: 0}, tmp_path / "last.ckpt")
    assert not isinstance(error.value, MisconfigurationException)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_cannot_be_written_ends_the_run(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(MisconfigurationException, match=r"checkpoints/last\.ckpt cannot be written \((File|Not a).*\)"):
        train(tmp_path, callbacks=[LastCheckpoint(every_n_steps=3)], max_steps=8)


@pytest.mark.parametrize("cls", [LastCheckpoint, BestCheckpoint])
def test_all_ranks_end_in_the_sentence_of_the_first(cls, tmp_path):
    (tmp_path / "checkpoints").write_text("")

    def noted(hook):
        """The hook; a sentence in which it ends is written to a file, and that of the other process waited for."""

        def wrapped(self, trainer, *arguments):
            try:
                hook(self, trainer, *arguments)
            except MisconfigurationException as error:
                (tmp_path / f"rank-{trainer.global_rank}").write_text(str(error))
                for _ in range(200):
                    if len(list(tmp_path.glob("rank-*"))) < 2:
                        time.sleep(0.1)
                raise

        return wrapped

    hooks = {name: noted(getattr(cls, name)) for name in ("on_train_batch_end", "on_validation_end")}
    callback = type("Noted", (cls,), hooks)(3 if cls is LastCheckpoint else "score/fid")
    module = small(GAN)
    module.val_dataloader = lambda: DataLoader(images(8), batch_size=4)
    scores = Given(at2=1.0, at4=1.0)
    options = {"max_steps": 4, "val_check_interval": 2, "num_sanity_val_steps": 0}
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="cannot be written"):
        train(tmp_path, module, callbacks=[scores, callback], strategy="ddp_fork", devices=2, **options)
    sentences = [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)]
    assert sentences[0] == sentences[1]


def test_a_deleted_folder_is_made_again(tmp_path):
    class Delete(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 4:
                shutil.rmtree(tmp_path)

    callbacks = [Samples(3, count=4), LastCheckpoint(every_n_steps=3), Delete()]
    with pytest.warns(UserWarning, match=r"metrics\.csv is gone, and begun again") as said:
        train(tmp_path, callbacks=callbacks, max_steps=8, log_every_n_steps=1)
    assert len([w for w in said if "metrics" in str(w.message)]) == 1
    assert steps(tmp_path, "last") == 8
    assert (tmp_path / "samples/step_0000006.png").exists()
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines[0].startswith("step,")
    assert [line.partition(",")[0] for line in lines[1:]] == ["5", "6", "7", "8"]


def test_last_is_the_newest_interval_and_the_end(tmp_path):
    seen = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if (tmp_path / "checkpoints/last.ckpt").exists():
                seen.append((trainer.global_step, steps(tmp_path, "last")))

    train(tmp_path, callbacks=[LastCheckpoint(every_n_steps=3), Watch()], max_steps=8)
    assert seen == [(3, 3), (4, 3), (5, 3), (6, 6), (7, 6)]
    assert steps(tmp_path, "last") == 8
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_sigterm_writes_the_last_state(tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SIGTERMException):
        train(tmp_path, callbacks=[LastCheckpoint(every_n_steps=3), Stop()], max_steps=20)
    assert steps(tmp_path, "last") == 4


def test_another_exception_keeps_the_last_good_checkpoint(tmp_path):
    class Fail(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 4:
                raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        train(tmp_path, callbacks=[LastCheckpoint(every_n_steps=3), Fail()], max_steps=20)
    assert steps(tmp_path, "last") == 3


def test_best_is_the_lowest_score(tmp_path):
    scores = {2: 5.0, 4: 3.0, 6: 4.0, 8: 7.0}

    class Scores(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("score/fid", scores[trainer.global_step], logger=False)

    module = small(GAN)
    module.val_dataloader = lambda: DataLoader(images(4), batch_size=4)
    train(
        tmp_path,
        module,
        callbacks=[Scores(), BestCheckpoint("score/fid")],
        max_steps=8,
        val_check_interval=2,
        num_sanity_val_steps=0,
    )
    assert steps(tmp_path, "best") == 4
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["best.ckpt"]


def test_which_scores_are_best_when_they_are_high():
    for name in ("quality/psnr", "quality/psnr_y", "quality/ssim_y", "quality/ms_ssim"):
        assert BestCheckpoint(name).mode == "max"
    for name in ("quality/lpips", "score/fid", "score/frechet_pixels"):
        assert BestCheckpoint(name).mode == "min"


def test_without_a_score_there_is_no_best_and_training_goes_on(tmp_path):
    module = small(GAN)
    module.val_dataloader = lambda: DataLoader(images(4), batch_size=4)
    options = {"max_steps": 4, "val_check_interval": 2, "num_sanity_val_steps": 0}
    train(tmp_path, module, callbacks=[LastCheckpoint(), BestCheckpoint("score/fid")], **options)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


class Clock:
    """A clock that goes on by so many seconds a reading."""

    def __init__(self, seconds):
        self.now, self.seconds = 0.0, seconds

    def __call__(self):
        self.now += self.seconds
        return self.now


class Writes(Callback):
    """What is written, and at which step."""

    def __init__(self):
        self.steps = []

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.steps.append(trainer.global_step)


@pytest.mark.parametrize(("minutes", "expected"), [(3, [3, 5, 8, 8]), (0, [5, 8]), (0.5, [1, 2, 3, 4, 5, 6, 7, 8, 8])])
def test_last_is_written_after_so_many_minutes(minutes, expected, tmp_path, monkeypatch):
    """A minute an update: three after the start, then two after the write of step 5, which is an interval's."""
    monkeypatch.setattr("callbacks.checkpoints.time.monotonic", lambda: 0.0)
    writes = Writes()

    class Tick(Callback):
        def on_train_batch_start(self, trainer, *_):
            now = 60.0 * (trainer.global_step + 1)
            monkeypatch.setattr("callbacks.checkpoints.time.monotonic", lambda: now)

    last = LastCheckpoint(every_n_steps=5, every_n_minutes=minutes)
    train(tmp_path, callbacks=[Tick(), writes, last], max_steps=8)
    assert writes.steps == expected


def test_minutes_that_may_be_asked_for():
    for minutes in (-1, float("nan")):
        with pytest.raises(MisconfigurationException, match=r"--last\.every_n_minutes must be 0 or more"):
            LastCheckpoint(every_n_minutes=minutes)


def test_two_ranks_go_by_the_first_ones_clock_at_the_steps_that_are_logged(tmp_path):
    """The second rank's is never late; were it asked, one rank would write, and wait for the other one for ever."""

    class Clocks(Callback):
        def on_train_start(self, trainer, pl_module):
            import callbacks.checkpoints as module

            module.time = type("Time", (), {"monotonic": Clock(120 if trainer.is_global_zero else 0)})

    class Record(Callback):
        def on_save_checkpoint(self, trainer, pl_module, checkpoint):
            with (tmp_path / f"{trainer.global_rank}").open("a") as file:
                file.write(f"{trainer.global_step} ")

    train(
        tmp_path,
        callbacks=[Clocks(), Record(), LastCheckpoint(every_n_minutes=1)],
        max_steps=8,
        log_every_n_steps=3,
        strategy="ddp_fork",
        devices=2,
    )
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["3 6 8 "] * 2


def test_fast_dev_run_writes_nothing(tmp_path):
    train(tmp_path, callbacks=[LastCheckpoint(every_n_steps=1), BestCheckpoint("score/fid")], fast_dev_run=3)
    assert not (tmp_path / "checkpoints").exists()


class Given(Callback):
    """Scores by step, as if they had been measured."""

    def __init__(self, name="score/fid", **scores):
        self.name, self.scores = name, scores

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log(self.name, self.scores[f"at{trainer.global_step}"], logger=False)


def validated(tmp_path, scores, max_steps, *more, ckpt_path=None, monitor="score/fid", every=1000):
    """Train with a score every two steps; returns the callback of the best checkpoint."""
    module = small(GAN)
    module.train_dataloader = lambda: DataLoader(images(200), batch_size=4)
    module.val_dataloader = lambda: DataLoader(images(4), batch_size=4)
    best = BestCheckpoint(monitor)
    trainer = Trainer(
        callbacks=[scores, best, *more, LastCheckpoint(every_n_steps=every)],
        logger=MetricsFile(tmp_path),
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        accelerator="cpu",
        num_sanity_val_steps=0,
        max_steps=max_steps,
        val_check_interval=2,
    )
    trainer.fit(module, ckpt_path=ckpt_path, weights_only=True)
    return trainer, best


def test_a_state_that_is_validated_is_written_again_with_its_score(tmp_path):
    """At step 2, and not at 4, which was not written before; and at the end, with all that came at the end."""
    writes = Writes()
    kept = []

    class Keep(Callback):
        def on_train_batch_start(self, trainer, *_):
            if (tmp_path / "checkpoints/last.ckpt").exists():
                state = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
                (best,) = [s for key, s in state["callbacks"].items() if key.startswith("BestCheckpoint")]
                kept.append((state["global_step"], best["best_model_score"]))

    validated(tmp_path, Given(at2=5.0, at4=4.0, at6=3.0), 6, writes, Keep(), every=2)
    assert writes.steps == [2, 2, 2, 4, 4, 4, 6, 6, 6, 6]  # the interval, the best, validated, (the end)
    assert kept == [(2, 5.0), (2, 5.0), (4, 4.0), (4, 4.0)]
    writes.steps.clear()
    shutil.rmtree(tmp_path)
    validated(tmp_path, Given(at2=5.0, at4=6.0, at6=7.0), 6, writes, every=3)
    assert writes.steps == [2, 3, 6, 6, 6]


@pytest.mark.parametrize("moved", [True, False])
def test_a_resumed_run_remembers_its_best(moved, tmp_path):
    """A worse state must not replace it, also where the folder was renamed; what is better does."""
    here = tmp_path / "before"
    validated(here, Given(at2=3.0, at4=4.0), 4)
    if moved:
        here = here.rename(tmp_path / "after")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*dirpath has changed.*|.*was not chosen.*")
        _, best = validated(here, Given(at6=3.5, at8=3.2), 8, ckpt_path=here / "checkpoints/last.ckpt")
    assert steps(here, "best") == 2
    assert best.best_model_path == str(here / "checkpoints/best.ckpt")
    assert best.best_model_score == 3.0
    validated(here, Given(at10=2.5), 10, ckpt_path=here / "checkpoints/last.ckpt")
    assert steps(here, "best") == 10
    assert sorted(p.name for p in (here / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_best_checkpoint_that_is_gone_is_no_best(tmp_path):
    validated(tmp_path, Given(at2=3.0, at4=4.0), 4)
    (tmp_path / "checkpoints/best.ckpt").unlink()
    validated(tmp_path, Given(at6=5.0, at8=6.0), 8, ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert steps(tmp_path, "best") == 6


def test_the_best_by_another_score_is_not_replaced_without_a_word(tmp_path):
    validated(tmp_path, Given(at2=3.0, at4=4.0), 4)
    last = tmp_path / "checkpoints/last.ckpt"
    with pytest.warns(
        UserWarning, match=r"best\.ckpt was not chosen by this run's score/kid: the first .* replaces it"
    ):
        validated(tmp_path, Given("score/kid", at6=9.0), 6, ckpt_path=last, monitor="score/kid")
    assert steps(tmp_path, "best") == 6


@pytest.mark.parametrize("folder", ["run", "other"])
def test_evaluation_says_nothing_of_folders_and_has_no_best(folder, tmp_path):
    trainer, _ = validated(tmp_path / "run", Given(at2=3.0), 2)
    best = BestCheckpoint("score/fid")
    other = Trainer(callbacks=[Given(at0=1.0), best], logger=MetricsFile(tmp_path / folder), accelerator="cpu")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*dirpath.*|.*not empty.*")
        path = tmp_path / "run/checkpoints/best.ckpt"
        other.validate(trainer.lightning_module, ckpt_path=path, verbose=False, weights_only=True)
    assert best.best_model_path == ""


class Told(Given):
    """Scores that are told of beforehand, the first of which is the default."""

    def __init__(self, directions, name, **scores):
        super().__init__(name, **scores)
        self.directions = directions


def test_the_best_is_the_largest_of_a_score_that_grows(tmp_path):
    told = Told({"score/own": "max"}, "score/own", at2=3.0, at4=5.0, at6=4.0)
    _, best = validated(tmp_path, told, 6, monitor=None)
    assert (best.monitor, best.mode) == ("score/own", "max")
    assert steps(tmp_path, "best") == 4
    told = Told({"score/own": "max"}, "score/own", at8=4.5)
    _, best = validated(tmp_path, told, 8, monitor=None, ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert best.best_model_score == 5.0  # which the resumed run remembers
    assert steps(tmp_path, "best") == 4


def test_the_last_callback_with_scores_chooses_unless_another_score_is_named(tmp_path):
    """As pairs of images, which Quality compares, tell more than their distribution."""
    first, last = (
        Told({"score/a": "min", "score/b": "max"}, "score/b", at2=1.0),
        Told({"quality/c": "max"}, "quality/c"),
    )
    last.scores = first.scores
    _, best = validated(tmp_path / "default", first, 2, last, monitor=None)
    assert best.monitor == "quality/c"
    _, best = validated(tmp_path / "named", first, 2, last, monitor="score/b")
    assert (best.monitor, best.mode) == ("score/b", "max")


@pytest.mark.parametrize("monitor", ["score/c", "fid", "health/diversity", "quality/psnr"])
def test_a_monitor_that_nobody_logs_is_one_sentence_before_training(monitor, tmp_path):
    told = Told({"score/a": "min", "score/b": "max"}, "score/a")
    sentence = rf"--best\.monitor={monitor} is logged by nobody: there are score/a, score/b, .*such as loss/generator"
    with pytest.raises(MisconfigurationException, match=sentence):
        validated(tmp_path, told, 2, monitor=monitor)
    assert not (tmp_path / "checkpoints/last.ckpt").exists()


def test_a_loss_that_nobody_logs_is_found_out_with_the_first_losses(tmp_path):
    module = small(GAN)
    callbacks = [Told({"score/a": "min"}, "score/a"), BestCheckpoint("loss/critic")]
    sentence = r"=loss/critic is logged by nobody: there are score/a, loss/discriminator, loss/generator"
    with pytest.raises(MisconfigurationException, match=sentence):
        train(tmp_path, module, callbacks=callbacks, max_steps=8, log_every_n_steps=2)
    assert module.trainer.global_step == 2
