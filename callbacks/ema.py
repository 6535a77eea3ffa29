"""A moving average of the generator's weights, from which better pictures come than from the last ones."""

from typing import Annotated, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from callbacks.command_line.annotations import check_ranges

STATISTICS = ("running_mean", "running_var")


class EMA(Callback):
    """Keep ``module.averaged_generator``, an exponential moving average of ``module.generator``, in the module.

    The average is a part of the module, so checkpoints hold it beside the raw weights. The half-life is counted in
    images, so that it means the same for every batch size and number of devices, and it grows with the images seen, so
    that the first, untrained weights are soon forgotten (Karras et al. 1912.04958; official code). Batch norm's running
    statistics are averaged with the weights that they belong to. All other buffers are copied, as the official code
    does: spectral norm's vectors, averaged, would no longer have length 1 and so let the layers grow.

    Of the lab's papers StyleGAN's and R3GAN's keep such an average. All others show their last weights, as
    ``half_life=0`` does; the average is better for them, too, and no weight is trained otherwise for it.

    Args:
        half_life: Images after which old weights count half; 0 keeps no average.
        ramp_up: The half-life is at most this share of the images seen so far.
    """

    def __init__(
        self, half_life: Annotated[int, "[0, inf)"] = 10_000, ramp_up: Annotated[float, "(0, inf)"] = 0.05
    ) -> None:
        self.half_life = half_life
        self.ramp_up = ramp_up
        check_ranges("ema", EMA, self)
        self._step = 0

    def decay(self, seen: int, batch: int) -> float:
        """Weight of the old average after an update on ``batch`` images when ``seen`` images were seen in all."""
        half_life = min(self.half_life, seen * self.ramp_up)
        return 0.5 ** (batch / half_life)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self.half_life:
            pl_module.start_averaging()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.half_life or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        images = len(pl_module.real(batch)) * trainer.world_size * pl_module.accumulate_grad_batches
        keep = self.decay(seen=self._step * images, batch=images)
        averaged, raw = pl_module.averaged_generator, pl_module.generator
        torch._foreach_lerp_(_averaged(averaged), _averaged(raw), 1 - keep)
        for buffer, now in zip(_copied(averaged), _copied(raw), strict=True):
            buffer.copy_(now)


def _averaged(network: nn.Module) -> list[Tensor]:
    """Weights, and the running statistics of batch norm."""
    statistics = [b for name, b in network.named_buffers() if name.endswith(STATISTICS)]
    return [t.detach() for t in (*network.parameters(), *statistics)]


def _copied(network: nn.Module) -> list[Tensor]:
    """All other buffers."""
    return [b.detach() for name, b in network.named_buffers() if not name.endswith(STATISTICS)]
