"""torch.compile: the same training, compiled once."""

from functools import partial

import pytest
import torch
from conftest import EVERY, batch, batch_for, double, fit, sgd, small, smallest, state
from lightning import seed_everything
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch._dynamo.utils import counters

from gans import DCGAN, SAGAN, StyleGAN
from gans.training.speed import compile_networks


@pytest.fixture
def backend(monkeypatch, request):
    """A compiler; "aot_eager" does all that inductor does but write code, so it is quick and its sums are eager's."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=request.param))
    torch.compiler.reset()
    counters.clear()
    with torch._inductor.config.patch(fallback_random=True):  # otherwise compiled code draws other random numbers
        yield request.param
    torch.compiler.reset()


QUICK = pytest.mark.parametrize("backend", ["aot_eager"], indirect=True)
REAL = pytest.mark.parametrize("backend", ["inductor"], indirect=True)


class Graphs(Callback):
    """How many graphs have been compiled after each batch that ended in a generator update."""

    def __init__(self):
        self.compiled = []

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step > len(self.compiled):
            self.compiled.append(counters["stats"]["unique_graphs"])


def train(cls, compile, **kwargs):
    """A small model before and after three generator updates, and how many graphs were compiled after each."""
    seed_everything(0, verbose=False)
    optimizers = {f"{player}_optimizer": sgd(1e-3) for player in smallest(cls).players}
    module = smallest(cls, compile=compile, **optimizers, **kwargs)
    before = state(module)
    graphs = Graphs()
    fit(module, double(batch_for(module, 64)), max_steps=3, callbacks=[graphs], precision="64-true")
    return before, state(module), graphs.compiled


def check(cls, **kwargs):
    """Training is the same compiled and uncompiled; in double precision, where rounding stays below what is allowed."""
    before, plain, none = train(cls, False, **kwargs)
    _, compiled, graphs = train(cls, True, **kwargs)
    assert set(none) == {0}
    assert graphs[0] >= 1
    assert len(set(graphs)) == 1, "compiled again after the first generator update"
    assert not counters["graph_break"]
    assert list(compiled) == list(plain)
    for key, value in plain.items():
        learned, off = (value - before[key]).abs().max(), (value - compiled[key]).abs().max()
        assert off <= 1e-9 * learned + 1e-12, key


# In SAGAN's smallest networks all have spectral norms that inductor cannot train with.
WIDER = {SAGAN: {"width": 16}}


@QUICK
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_every_gan_trains_as_it_does_uncompiled(cls):
    """Gradient penalties and R1 among them, which differentiate the discriminator twice."""
    check(cls, **WIDER.get(cls, {}))


@pytest.mark.slow
@REAL
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_every_gan_trains_as_it_does_uncompiled_by_inductor(cls):
    check(cls, **WIDER.get(cls, {}))


@QUICK
@pytest.mark.usefixtures("backend")
def test_pictures_scores_and_verdicts_are_made_uncompiled():
    module = small(DCGAN, compile=True)
    fit(module, max_steps=1)
    graphs = counters["stats"]["unique_graphs"]
    module.sample(3)
    module.verdicts(batch(5))
    averaging = small(DCGAN, compile=True)
    averaging.load_state_dict(module.state_dict())
    compile_networks([averaging.generator, averaging.discriminator], torch.device("cpu"))
    averaging.start_averaging()
    averaging.sample(3)
    assert counters["stats"]["unique_graphs"] == graphs > 0


def test_a_missing_compiler_is_named_before_training(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MisconfigurationException, match=r"--model.compile=true needs a C\+\+ compiler"):
        fit(small(DCGAN, compile=True))
    fit(small(DCGAN), max_steps=1)


def test_growing_networks_are_not_compiled():
    with pytest.raises(MisconfigurationException, match=r"--model.compile=true .*--model.grow_images"):
        small(StyleGAN, compile=True, grow_images=100)
