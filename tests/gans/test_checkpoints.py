"""Checkpoint files: read, described and loaded, to sample and to train; and what damaged or hostile ones lead to."""

import inspect
import os
import pickle
import warnings
import zipfile

import pytest
import torch
from conftest import EVERY, batch_for, fit, small, small_translator, smallest, state
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import RMSprop
from torch.optim.lr_scheduler import LinearLR

import gans
from callbacks import EMA
from gans import DCGAN, GAN, WGANGP, RealnessGAN, StarGAN
from gans.parts.losses import AdversarialLoss, Hinge, LeastSquares, NonSaturating, Realness
from gans.parts.penalties import R1, Penalty
from gans.training.checkpoints import described, read, rebuilt, settings


class Mine(Hinge):
    """A loss that is not the lab's."""


class Shouting(GAN):
    """A model that is not the lab's, with a part of its own."""

    def __init__(self, voice=None, **kwargs):
        super().__init__(penalty=R1(3.0), **kwargs)
        self.voice = voice


def said(caplog):
    """The lines that the lab's own code has logged."""
    return " ".join(record.getMessage() for record in caplog.records if "gans" in record.pathname)


@pytest.fixture
def written(tmp_path):
    """Train a model for a step and give the checkpoint's path."""

    def write(module, **kwargs):
        fit(module, batch_for(module, 8), max_steps=1, **kwargs).save_checkpoint(tmp_path / "written.ckpt")
        return tmp_path / "written.ckpt"

    return write


@pytest.fixture
def changed(written):
    """A DCGAN's checkpoint with something changed in it by a function."""

    def change(edit):
        path = written(small(DCGAN))
        checkpoint = torch.load(path, weights_only=True)
        edit(checkpoint)
        torch.save(checkpoint, path)
        return path

    return change


# Losses and penalties


OTHERS = {"a": -1.0, "b": 0.5, "c": 0.25, "outcomes": 7, "objective": "basic", "weight": 2.5, "every": 3}
CLASSES = [
    cls
    for module, base in ((gans.losses, AdversarialLoss), (gans.penalties, Penalty))
    for cls in vars(module).values()
    if inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls)
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_part_is_described_by_its_constructors_arguments(cls):
    given = {name: OTHERS[name] for name in inspect.signature(cls).parameters}
    name = "penalty" if issubclass(cls, Penalty) else "loss"
    description = described(cls(**given))
    assert description == {"class_path": f"{cls.__module__}.{cls.__name__}", "init_args": given}
    again = rebuilt(name, description)
    assert type(again) is cls
    assert vars(again) == vars(cls(**given))


def test_a_loaded_model_trains_with_the_losses_that_it_was_trained_with(written):
    path = written(small(DCGAN, loss=LeastSquares(-1, 1, 0), penalty=R1(2.0)))
    loaded = DCGAN.load_to_train(path)
    assert vars(loaded.loss) == {"a": -1, "b": 1, "c": 0}
    assert (type(loaded.penalty), loaded.penalty.weight) == (R1, 2.0)
    assert fit(loaded, max_steps=1).global_step == 1
    other = DCGAN.load_to_sample(path, loss=Hinge(), penalty=None)
    assert type(other.loss) is Hinge
    assert other.penalty is None
    assert RealnessGAN.load_to_sample(written(small(RealnessGAN, loss=Realness(5)))).loss.outcomes == 5


@pytest.mark.parametrize("make", [lambda: small(WGANGP, penalty=None), lambda: small_translator(StarGAN, penalty=None)])
def test_what_is_switched_off_stays_so(make, written):
    module = make()
    loaded = type(module).load_to_sample(written(module))
    assert loaded.penalty is None
    assert gans.load_to_sample(written(small(DCGAN, weight_clip=0.5, gradient_clip_val=None))).gradient_clip_val is None


def test_a_part_of_ones_own_is_named_before_training_goes_on(written):
    path = written(small(DCGAN, loss=Mine()))
    assert torch.load(path, weights_only=True)["gan"]["parts"]["loss"] == {"class_path": f"{__name__}.Mine"}
    loaded = DCGAN.load_to_sample(path)
    assert loaded.sample(2).shape == (2, 1, 16, 16)
    with pytest.raises(MisconfigurationException, match=r"loaded to sample.*load_to_train"):
        fit(loaded, max_steps=1)
    with pytest.raises(MisconfigurationException, match=rf"loss={__name__}\.Mine.*give loss= to load_to_train"):
        DCGAN.load_to_train(path)
    assert fit(DCGAN.load_to_train(path, loss=Mine()), max_steps=1).global_step == 1
    assert settings(read(path))["init_args"].keys().isdisjoint({"loss"})


def test_a_class_of_ones_own_keeps_what_it_gives_to_its_bases(written):
    module = Shouting(image_shape=(1, 16, 16), hidden=16, voice=Mine())
    loaded = Shouting.load_to_train(written(module), voice=Mine())
    assert loaded.penalty.weight == 3.0
    assert fit(loaded, max_steps=1).global_step == 1


# To train further


def test_a_loaded_model_is_trained_in_train_mode(written, recwarn):
    path = written(small(DCGAN))
    assert not DCGAN.load_to_sample(path).training
    loaded = DCGAN.load_to_train(path)
    assert loaded.training
    loaded.eval()
    before = state(loaded)
    fit(loaded, max_steps=1)
    assert all(module.training for module in loaded.modules())
    running = [key for key in before if key.endswith("running_mean")]
    assert all(not torch.equal(before[key], loaded.state_dict()[key]) for key in running)
    assert not [w for w in recwarn if "eval mode" in str(w.message)]


def test_a_loaded_average_is_dropped_unless_it_is_kept_up_to_date(written, caplog):
    path = written(small(DCGAN), callbacks=[EMA()])
    loaded = DCGAN.load_to_train(path)
    assert loaded.averaged_generator is not None
    fit(loaded, max_steps=1)
    assert loaded.averaged_generator is None
    assert "averaged generator" in said(caplog)


def test_a_loaded_average_goes_on(written):
    path = written(small(DCGAN), callbacks=[EMA()])
    loaded, seen = DCGAN.load_to_train(path), []
    before = state(loaded.averaged_generator)
    with torch.no_grad():
        for value in loaded.generator.parameters():
            value.zero_()

    class See(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append(state(pl_module.averaged_generator))

    fit(loaded, max_steps=1, callbacks=[EMA(), See()])
    assert all(torch.equal(value, seen[0][key]) for key, value in before.items())
    again = state(loaded.averaged_generator)
    assert any(not torch.equal(value, again[key]) for key, value in before.items())
    fit(loaded, max_steps=1)  # and without the callback it is over
    assert loaded.averaged_generator is None


def test_other_optimizers_than_before_are_said(written):
    def schedule(optimizer):
        return LinearLR(optimizer, total_iters=9)

    def make(p):
        return RMSprop(p, lr=1e-3)

    path = written(small(DCGAN, generator_optimizer=make, generator_scheduler=schedule))
    expected = r"generator was trained with optimizer RMSprop\(lr=0\.001.*Adam\(lr=0\.0002.*give generator_optimizer="
    with pytest.warns(UserWarning, match=expected), pytest.warns(UserWarning, match=r"LinearLR\(.*total_iters=9"):
        fit(DCGAN.load_to_train(path), max_steps=1)
    for given in ({"generator_optimizer": make, "generator_scheduler": schedule},):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(DCGAN.load_to_train(path, **given), max_steps=1)
        assert not [w for w in caught if "was trained with" in str(w.message)]


def test_nothing_is_said_when_nothing_is_another(written, caplog):
    path = written(small(DCGAN, loss=Hinge()))
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(DCGAN.load_to_train(path), max_steps=1)
    assert not [w for w in caught if "was trained with" in str(w.message)]
    assert not said(caplog)


# Without knowing the class


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_any_model_is_described_and_loaded(cls, written):
    module = smallest(cls)
    path = written(module)
    loaded = gans.load_to_sample(path)
    assert type(loaded) is cls
    assert not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in module.state_dict().items())
    found = settings(read(path))
    assert found["class_path"] == f"gans.{cls.__name__}"
    assert found["init_args"]["image_shape"] == module.image_shape
    for name in ("generator_optimizer", "generator_scheduler"):
        assert found["init_args"].get(name) is None
    plain = {k: v for k, v in found["init_args"].items() if not isinstance(v, dict)}
    parts = {k: rebuilt(k, v) for k, v in found["init_args"].items() if isinstance(v, dict)}
    assert cls(**plain | parts).state_dict().keys() == module.state_dict().keys()


def test_to_sample_and_to_train(written):
    path = written(small(DCGAN), callbacks=[EMA()])
    assert gans.load_to_sample(path).averaged_generator is not None
    raw = gans.load_to_sample(str(path), average=False, n_critic=3)
    assert raw.averaged_generator is None
    assert raw.n_critic == 3
    model = gans.load_to_train(path, n_critic=3)
    assert model.training
    assert model.averaged_generator is not None
    assert DCGAN.load_from_checkpoint(path).training  # Lightning's name
    assert not {"load_to_sample", "load_to_train"} & set(gans.__all__)


def test_a_class_of_ones_own_is_named(written):
    path = written(Shouting(image_shape=(1, 16, 16), hidden=16))
    for call in (lambda: settings(read(path)), lambda: gans.load_to_sample(path)):
        with pytest.raises(MisconfigurationException, match=rf"{__name__}\.Shouting.*load_to_sample.*--config"):
            call()


# Files that are none


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
    "missing": (lambda path: path.unlink(), "does not exist"),
    "empty": (lambda path: path.write_bytes(b""), "is no checkpoint"),
    "cut": (cut, "is no checkpoint"),
    "cut at the end": (lambda path: path.write_bytes(path.read_bytes()[:-30]), "is no checkpoint"),
    "text": (lambda path: path.write_text("hello"), "is no checkpoint"),
    "another archive": (lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"), "is no checkpoint"),
    "a tensor": (lambda path: torch.save(torch.ones(3), path), "something else"),
    "weights": (lambda path: torch.save(nn.Linear(2, 2).state_dict(), path), "something else"),
    "another program's": (lambda path: torch.save({"state_dict": {}, "epoch": 1}, path), "something else"),
    "odd": (lambda path: torch.save({"state_dict": [], "gan": "DCGAN", "global_step": "1"}, path), "something else"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_checkpoint_is_named(name, written):
    path = written(small(GAN))
    spoil, sentence = BROKEN[name]
    spoil(path)
    for call in (read, gans.load_to_sample, GAN.load_from_checkpoint):
        with pytest.raises(MisconfigurationException, match=rf"written\.ckpt.* {sentence}"):
            call(path)


def test_older_files_are_read_too(written):
    path = written(small(GAN))
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    assert gans.load_to_sample(path).sample(1).shape == (1, 1, 16, 16)


# Files that mean harm


class Harm:
    """Pickled, it calls a function when it is read."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_no_code_in_a_file_runs(changed, tmp_path):
    trace = tmp_path / "harmed"
    for harm in (Harm(os.system, f"touch {trace}"), Harm(exec, f"open({str(trace)!r}, 'w')")):
        path = changed(lambda c, harm=harm: c["gan"].update(parts={"loss": harm}))
        for call in (read, gans.load_to_sample, DCGAN.load_from_checkpoint):
            with pytest.raises(MisconfigurationException, match="is no checkpoint"):
                call(path)
    path.write_bytes(pickle.dumps(Harm(os.system, f"touch {trace}")))
    with pytest.raises(MisconfigurationException, match="is no checkpoint"):
        read(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["os.system", "builtins.exec", "gans.load", "gans.dcgan.Generator", "", "DCGAN"])
def test_no_other_class_is_looked_up(name, changed, monkeypatch):
    path = changed(lambda c: c["gan"].update({"class": name}))
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("called"))
    for call in (lambda: settings(read(path)), lambda: gans.load_to_sample(path), lambda: DCGAN.load_to_sample(path)):
        with pytest.raises(MisconfigurationException, match="checkpoint holds a"):
            call()


@pytest.mark.parametrize("name", ["os.system", "torch.hub.load", "gans.losses.AdversarialLoss", "gans.dcgan.DCGAN"])
def test_no_other_part_is_built(name, changed, monkeypatch):
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("called"))
    path = changed(lambda c: c["gan"].update(parts={"loss": {"class_path": name, "init_args": {"command": "ls"}}}))
    assert "loss" not in settings(read(path))["init_args"]
    loaded = gans.load_to_sample(path)
    assert type(loaded.loss) is NonSaturating
    with pytest.raises(MisconfigurationException, match="give loss= to load_to_train"):
        DCGAN.load_to_train(path)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        {"loss": "os.system"},
        {"loss": {"class_path": ["os.system"]}},
        {"loss": {"class_path": "gans.penalties.R1", "init_args": {}}},
        {"penalty": {"class_path": "gans.losses.Hinge", "init_args": {}}},
        {"loss": {"class_path": "gans.losses.Hinge", "init_args": {"command": "ls"}}},
        {"loss": {"class_path": "gans.losses.Hinge", "init_args": "ls"}},
        {"loss": {"class_path": "gans.losses.LeastSquares", "init_args": {"a": "ls"}}},
        {"loss": {"class_path": "gans.losses.Realness", "init_args": {"objective": ["basic"]}}},
        {"penalty": {"class_path": "gans.penalties.R1", "init_args": {"weight": torch.ones(2)}}},
        {"penalty": {"class_path": "gans.penalties.R1", "init_args": {"weight": -1.0}}},
    ],
)
def test_damaged_parts_are_named(parts, changed):
    path = changed(lambda c: c["gan"].update(parts=parts))
    for call in (lambda: settings(read(path)), lambda: gans.load_to_sample(path), lambda: DCGAN.load_to_sample(path)):
        with pytest.raises(MisconfigurationException, match=r"loss|penalty"):
            call()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_shape", "abc"),
        ("image_shape", (1, 16)),
        ("image_shape", torch.ones(3)),
        ("width", "4"),
        ("width", True),
        ("n_critic", None),
        ("channels_last", 1),
        ("latent_dim", [8]),
        ("width", -4),
        ("n_critic", 0),
        ("diff_augment", "os.system"),
    ],
)
def test_settings_of_odd_types_or_values_are_named(name, value, changed):
    path = changed(lambda c: c["hyper_parameters"].update({name: value}))
    with pytest.raises(MisconfigurationException):
        gans.load_to_sample(path)
    if name not in ("diff_augment",) and not (type(value) is int and value < 1):
        with pytest.raises(MisconfigurationException, match=name):
            settings(read(path))


def test_no_name_of_a_class_gets_into_the_settings(changed):
    names = ("generator_optimizer", "discriminator_scheduler", "loss", "penalty")
    path = changed(lambda c: c["hyper_parameters"].update({name: "os.system" for name in names} | {"unknown": 1, 3: 4}))
    assert settings(read(path))["init_args"].keys().isdisjoint({*names, "unknown", 3})
    assert gans.load_to_sample(path).sample(1).shape == (1, 1, 16, 16)


@pytest.mark.parametrize("records", [[], "os.system", {"generator": "os.system"}, {"generator": {"optimizer": 1}}])
def test_odd_records_of_optimizers_are_left(records, changed):
    path = changed(lambda c: c["gan"].update(optimizers=records))
    assert fit(gans.load_to_train(path), max_steps=1).global_step == 1
