"""How much a run may take."""

import pytest
import torch
from conftest import images, small
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from callbacks import Budget
from gans import DCGAN, WGAN


def fit(module, budget, path=None):
    loader = DataLoader(images(12), batch_size=4)
    trainer = Trainer(
        accelerator="cpu", max_steps=1000, max_epochs=-1, callbacks=[budget], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader, ckpt_path=path, weights_only=None if path is None else True)
    return trainer


@pytest.mark.parametrize(("cls", "steps"), [(DCGAN, 5), (WGAN, 1)])
def test_training_ends_after_so_many_images(cls, steps, tmp_path):
    """WGAN's generator is updated once in five batches."""
    trainer = fit(small(cls), Budget(images=20))
    assert (trainer.lightning_module.images_seen, trainer.global_step) == (20, steps)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert fit(small(cls), Budget(images=30), tmp_path / "a.ckpt").lightning_module.images_seen == 32
    assert fit(small(cls), Budget(images=20), tmp_path / "a.ckpt").lightning_module.images_seen == 20


def test_training_ends_after_so_many_minutes_over_all_parts(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("callbacks.budget.time.monotonic", lambda: clock[0])

    class Slow(DCGAN):
        def on_train_batch_end(self, *_):
            clock[0] += 30.0

    clock[0] = 1.0
    trainer = fit(small(Slow), Budget(minutes=2))
    assert trainer.global_step == 5  # the callback looks before the module's own clock goes on
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert fit(small(Slow), Budget(minutes=3), tmp_path / "a.ckpt").global_step <= 7


def test_without_limits_nothing_ends():
    assert not Budget()._is_spent(torch.nn.Module())


@pytest.mark.parametrize("option", [{"images": -1}, {"minutes": -0.5}])
def test_less_than_nothing_is_refused(option):
    (name,) = option
    with pytest.raises(MisconfigurationException, match=rf"--budget\.{name} must be 0 or more"):
        Budget(**option)
