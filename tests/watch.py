"""What a model is given by a data module, for the tests of several."""

import torch
from lightning.pytorch import LightningModule, Trainer

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
}


class Watch(LightningModule):
    """Keeps the batches it is trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.seen.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def watch(data, **kwargs):
    """The batches of a training, one epoch by default."""
    module = Watch()
    Trainer(**QUIET | {"max_epochs": 1} | kwargs).fit(module, data)
    return module.seen
