"""Nothing of a step stays in memory after it."""

import gc

import pytest
import torch
from conftest import EVERY, batch, batch_for, fit, smallest
from lightning.pytorch import Callback


class Left(Callback):
    """How many gradients, and tensors with a graph behind them, there are when the third step begins."""

    gradients = graphs = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 2 and self.graphs is None:
            gc.collect()
            self.gradients = sum(p.grad is not None for p in pl_module.parameters())
            tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
            self.graphs = sum(tensor.grad_fn is not None for tensor in tensors)


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_no_gradient_and_no_graph_outlives_a_step(cls):
    module, left = smallest(cls), Left()
    fit(module, batch_for(module, 64), max_steps=3, callbacks=[left], log_every_n_steps=1)
    assert left.gradients == left.graphs == 0


def test_the_discriminators_fakes_are_made_without_a_graph(gan):
    """In its own step; in the generator's they have one."""
    module = gan()
    made = []
    module.generator.register_forward_hook(lambda *call: made.append(call[-1].requires_grad))
    module.discriminator_loss(batch(4))
    assert made
    assert not any(made)
    made.clear()
    module.generator_loss(batch(4))
    assert made
    assert all(made)
