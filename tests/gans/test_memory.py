"""Nothing of a step stays in memory after it."""

import gc

import pytest
import torch
from conftest import EVERY, batch, batch_for, fit, smallest
from lightning.pytorch import Callback


class Left(Callback):
    """How many tensors with a graph behind them there are when the third step begins."""

    graphs = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 2 and self.graphs is None:
            gc.collect()
            tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
            self.graphs = sum(tensor.grad_fn is not None for tensor in tensors)


class Before(Callback):
    """How many gradients what is trained next still has when each backward pass begins."""

    def __init__(self):
        self.gradients = []

    def on_before_backward(self, trainer, pl_module, loss):
        self.gradients.append(sum(p.grad is not None for p in pl_module.parameters() if p.requires_grad))


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_no_graph_outlives_a_step_and_no_gradient_is_kept_to_be_overwritten(cls):
    gc.freeze()  # all that was there before, which takes a second to go through
    module, left, before = smallest(cls), Left(), Before()
    fit(module, batch_for(module, 64), max_steps=3, callbacks=[left, before], log_every_n_steps=1)
    gc.unfreeze()
    assert left.graphs == 0
    assert len(before.gradients) >= 3
    assert not any(before.gradients)


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
