"""Checkpoints: written whole or not at all, the newest and the best."""

import os
import signal

import pytest
import torch
from conftest import fit, images, small
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint, MetricsFile
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

    from torch.utils.data import DataLoader

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
    from torch.utils.data import DataLoader

    module = small(GAN)
    module.val_dataloader = lambda: DataLoader(images(4), batch_size=4)
    options = {"max_steps": 4, "val_check_interval": 2, "num_sanity_val_steps": 0}
    train(tmp_path, module, callbacks=[LastCheckpoint(), BestCheckpoint("score/fid")], **options)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
