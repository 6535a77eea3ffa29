"""Run by test_strategies.py: trains on the ranks that the command line asks for and leaves what each rank has."""

import sys
from pathlib import Path

import torch
from conftest import EVERY, batch_for, smallest
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, default_collate

from gans import DCGAN
from gans.training.noise import NoiseGAN

BATCH = 8  # over all ranks


class Linear(NoiseGAN):
    """No batch norm; noise is the rank's part of what one process would draw. Small, so that the sums are few."""

    def __init__(self):
        super().__init__(image_shape=(1, 2, 2), latent_dim=3, n_critic=2, gradient_clip_val=0.05)
        self.generator = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (1, 2, 2)))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
        self.draws = 0

    def noise(self, n):
        self.draws += 1
        joined = torch.randn(BATCH, 3, dtype=self.dtype, generator=torch.Generator().manual_seed(self.draws))
        return part(joined, self.trainer)


class Switched(Linear):
    """Every second critic's loss is below the threshold on average over the ranks, and on the first rank alone."""

    def __init__(self):
        super().__init__()
        self.n_critic, self.critic_threshold = 1, 0.5
        self.asked, self.steps = 0, []

    def discriminator_loss(self, batch):
        loss, logs = super().discriminator_loss(batch)
        self.asked += 1
        said = torch.tensor((0.4 if self.asked % 2 == 0 else 0.9) + self.global_rank * 0.15)
        return loss, logs | {"loss/discriminator": said}

    def on_train_batch_end(self, *_):
        self.steps.append(self.global_step)


class Record(Callback):
    """Noise drawn and images seen by this rank."""

    def __init__(self):
        self.noise, self.images = [], []

    def on_train_start(self, trainer, pl_module):
        draw = pl_module.noise
        pl_module.noise = lambda n: self.noise.append(draw(n)) or self.noise[-1]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.images.append(batch)


def part(joined, trainer):
    """This rank's slice of a joined batch."""
    each = len(joined) // trainer.world_size
    return joined[trainer.global_rank * each :][:each]


def train(module, data, devices, **kwargs):
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **kwargs,
    )

    def collate(rows):
        """Each rank takes its slice of joined batches, as the data modules do."""
        batch = default_collate(rows)
        return part(batch, trainer) if isinstance(batch, torch.Tensor) else [part(b, trainer) for b in batch]

    trainer.fit(module, DataLoader(data, batch_size=BATCH, collate_fn=collate))
    return trainer


def main(out: Path, devices: int) -> None:
    seed_everything(1)
    linear = Linear()
    data = torch.rand(80, 1, 2, 2, dtype=torch.float64) * 2 - 1
    trainer = train(linear, data, devices, precision="64-true")
    torch.save({"weights": linear.state_dict(), "steps": trainer.global_step}, out / f"linear{trainer.global_rank}.pt")

    switched = Switched()
    train(switched, data.float(), devices, precision="32-true")
    torch.save({"weights": switched.state_dict(), "steps": switched.steps}, out / f"switched{trainer.global_rank}.pt")

    for cls in EVERY if devices > 1 else []:
        seed_everything(trainer.global_rank)
        gan = smallest(cls)
        steps = train(gan, TensorDataset(*batch_for(gan, 96)), devices, max_steps=2).global_step
        torch.save(
            {"weights": dict(gan.named_parameters()), "steps": steps}, out / f"{cls.__name__}{trainer.global_rank}.pt"
        )

    seed_everything(trainer.global_rank)  # different weights on purpose: the ranks must start from rank 0's
    dcgan, record = DCGAN(image_shape=(1, 16, 16), width=4), Record()
    dcgan.start_averaging()
    trainer = train(dcgan, torch.rand(40, 1, 16, 16) * 2 - 1, devices, callbacks=[record])
    drifted = {name: b.clone() for name, b in dcgan.named_buffers()}
    trainer.save_checkpoint(out / f"dcgan{devices}.ckpt")
    torch.save(
        {
            "weights": dict(dcgan.named_parameters()),
            "drifted": drifted,
            "settled": dict(dcgan.named_buffers()),
            "noise": record.noise,
            "images": record.images,
        },
        out / f"dcgan{trainer.global_rank}.pt",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
