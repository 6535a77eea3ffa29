"""Run by test_resumed_ranks.py: trains CycleGAN on some ranks, perhaps from a checkpoint, and leaves what each has."""

import sys
from pathlib import Path

import torch
from conftest import small_translator, translator_batch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.utils.data import DataLoader, TensorDataset

from gans import CycleGAN


class Record(Callback):
    """What a rank goes on with."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not hasattr(self, "pools"):
            size = pl_module.pool_size
            self.pools = {domain: pool[:size].clone() for domain, pool in pl_module.rank_state.items()}
            self.waiting = [a.clone() for a, _ in pl_module._waiting]
            self.drawn = torch.get_rng_state()


def main(out: Path, devices: int, batches: int, resume: str = "") -> None:
    seed_everything(1, verbose=False)
    module, record = small_translator(CycleGAN, pool_size=3, accumulate_grad_batches=3), Record()
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=-1,
        max_steps=batches // 3 if resume else -1,
        limit_train_batches=batches,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=True,
        callbacks=[record, Stop(batches)],
    )
    loader = DataLoader(TensorDataset(*translator_batch(module, 64)), batch_size=2, generator=torch.Generator())
    trainer.fit(module, loader, ckpt_path=resume or None, weights_only=True)
    trainer.save_checkpoint(out / "end.ckpt")
    rank = {"weights": dict(module.named_parameters()), "end": module.rank_state, "rng": torch.get_rng_state()}
    rank |= {"pools": record.pools, "waiting": record.waiting, "drawn": record.drawn, "steps": trainer.global_step}
    rank["left"] = [a for a, _ in module._waiting]
    torch.save(rank, out / f"{trainer.global_rank}.pt")


class Stop(Callback):
    """Ends training after some batches, whatever they have led to."""

    def __init__(self, batches):
        self.batches = batches

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.should_stop or batch_idx + 1 >= self.batches


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
