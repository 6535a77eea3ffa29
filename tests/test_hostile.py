"""Run folders of strangers: whatever they hold is data, and none of it runs when they are scored or sampled from.

Every folder is a real one with something put in that would leave a file named marker if it ran.
"""

import json
import os
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from command_line import ROOT, assert_one_sentence, run_train

QUICK = [
    *("--config", ROOT / "configs/quickstart.yaml", "--trainer.accelerator=cpu", "--trainer.logger=false"),
    *("--model.width=4", "--data.image_size=16", "--data.batch_size=32", "--data.data_dir=out/data"),
    *("--score.num_images=100", "--score.num_real=100", "--score.cache_dir=out/cache"),
    *("--trainer.max_steps=3", "--health.every_n_steps=0", "--run_dir=out"),
]
CHECKPOINT = "--ckpt_path=out/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run in ``out``, and what ``validate`` says of it."""
    folder = tmp_path_factory.mktemp("trained")
    done = run_train(QUICK, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    copy = tmp_path_factory.mktemp("validated")
    shutil.copytree(folder / "out", copy / "out")
    done = run_train(["validate", CHECKPOINT], copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert scores(done)
    return folder, scores(done)


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of it, to be poisoned; programs and modules that lie in it would be found."""
    shutil.copytree(trained[0] / "out", tmp_path / "out")
    (tmp_path / "evil.py").write_text(
        f"open({str(tmp_path / 'marker')!r}, 'w')\nimport torch, gans, datamodules\n"
        "class Net(torch.nn.Identity): pass\nclass DCGAN(gans.DCGAN): pass\nclass Digits(datamodules.Digits): pass\n"
        "class Loss(gans.losses.Hinge): pass\n"
    )
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'marker'}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def scores(done):
    """The scores that were printed."""
    return re.findall(r"score/frechet_pixels\W+([\d.]+)", done.stdout)


def poison(folder, **changes):
    """Change the run's configuration, under keys such as model__init_args__loss."""
    path = folder / "out/config.yaml"
    config = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *parents, name = key.split("__")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    path.write_text(json.dumps(config))  # YAML too, and without aliases


def touch(folder):
    """A function that jsonargparse would call."""
    return {"class_path": "os.system", "init_args": {"command": f"touch {folder / 'marker'}"}}


class Evil:
    """Unpickled, it leaves the marker."""

    def __init__(self, folder):
        self.command = f"touch {folder / 'marker'}"

    def __reduce__(self):
        return os.system, (self.command,)


def poison_checkpoint(folder, change):
    path = folder / "out/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)


def test_the_traps_work(folder):
    """So that the tests below could find out."""
    marker = folder / "marker"
    for spring in (
        lambda: pickle.loads(pickle.dumps(Evil(folder))),
        lambda: os.system("gs"),
        lambda: os.system(touch(folder)["init_args"]["command"]),
        lambda: exec((folder / "evil.py").read_text()),
    ):
        spring()
        assert marker.exists()
        marker.unlink()


# What is not even looked at


def poison_training(folder):
    """All that only training needs, at once."""
    evil = touch(folder)
    lightning = "lightning.pytorch"
    hook = {"class_path": f"{lightning}.callbacks.LambdaCallback", "init_args": {"setup": evil, "on_test_start": evil}}
    loops = {"class_path": "runpy.run_path", "init_args": {"path_name": str(folder / "evil.py")}}
    poison(
        folder,
        model__init_args__generator_optimizer=evil,
        model__init_args__discriminator_optimizer={"class_path": "subprocess.Popen", "init_args": {"args": ["gs"]}},
        model__init_args__generator_scheduler=loops,
        model__init_args__discriminator_scheduler="evil.Net",
        data__init_args__augment=[{"class_path": "kornia.augmentation.RandomAffine", "init_args": {"degrees": evil}}],
        trainer__callbacks=[hook, "evil.Net", {"class_path": "evil.Net"}],
        trainer__plugins=[{"class_path": "evil.Net"}, evil],
        trainer__strategy={"class_path": f"{lightning}.strategies.DDPStrategy", "init_args": {"ddp_comm_hook": evil}},
        trainer__profiler=evil,
        trainer__logger=[{"class_path": f"{lightning}.loggers.CSVLogger", "init_args": {"save_dir": evil}}, evil],
        trainer__accelerator={"class_path": "evil.Net"},
        trainer__default_root_dir=evil,
        samples=evil,
        ema__half_life=evil,
        health={"every_n_steps": {"class_path": "builtins.eval", "init_args": {"source": "1"}}},
        last=["evil.Net"],
        best=evil,
        ckpt_path="evil.yaml",
        run_dir=evil,
        weights_only=False,
    )


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_what_only_training_needs_changes_nothing(folder, trained, subcommand):
    poison_training(folder)
    done = run_train([subcommand, CHECKPOINT], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert scores(done) == trained[1]
    assert not (folder / "marker").exists()


def test_samples_are_drawn_whatever_only_training_needs(folder):
    poison_training(folder)
    done = run_train(["predict", CHECKPOINT, "--model.predict_images=3"], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(folder.rglob("images/0*.png"))) == 3
    assert not (folder / "marker").exists()


def test_kept_images_and_features_are_read_as_numbers(folder, trained):
    """Pickles in their place are made anew."""
    kept = [*folder.glob("out/data/.cache/*.npy"), *folder.glob("out/cache/**/*.npz")]
    assert {path.suffix for path in kept} == {".npy", ".npz"}
    evil = np.array([Evil(folder)], dtype=object)
    for path in kept:
        if path.suffix == ".npy":
            np.save(path, evil, allow_pickle=True)
        else:
            np.savez(path, **dict.fromkeys(("mu", "sigma", "features", "count"), evil))
    done = run_train(["validate", CHECKPOINT], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert scores(done) == trained[1]
    assert not (folder / "marker").exists()


# What is refused


def pickled_checkpoint(folder):
    poison(folder, weights_only=False)
    poison_checkpoint(folder, lambda checkpoint: checkpoint.update(hook=Evil(folder)))


def pickle_as_checkpoint(folder):
    (folder / "out/checkpoints/last.ckpt").write_bytes(pickle.dumps(Evil(folder)))


def pickled_weights(folder):
    torch.save({"a": Evil(folder)}, folder / "out/weights.pt")
    poison(folder, score__features="resnet18", score__weights="out/weights.pt")


def pickled_statistics(folder):
    evil = np.array([Evil(folder)], dtype=object)
    np.savez(folder / "out/real.npz", mu=evil, sigma=evil)
    poison(folder, score__real_statistics="out/real.npz")


def pickled_data(folder):
    batches = folder / "out/data/cifar-10-batches-py"
    batches.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (batches / name).write_bytes(pickle.dumps(Evil(folder)))
    poison(folder, data={"class_path": "datamodules.CIFAR10", "init_args": {"data_dir": "out/data", "image_size": 16}})


def pictures_that_are_programs(folder):
    """PostScript, which Pillow would give to Ghostscript whatever the file is called."""
    (folder / "out/images").mkdir()
    (folder / "out/images/a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    settings = {"data_dir": "out/images", "image_size": 16, "batch_size": 1, "channels": 1}
    poison(folder, data={"class_path": "datamodules.ImageFolder", "init_args": settings})


def linked(folder):
    poison(folder, model=touch(folder))
    (folder / "out/config.yaml").rename(folder / "elsewhere.yaml")
    (folder / "out/config.yaml").symlink_to(folder / "elsewhere.yaml")


def config(text):
    return lambda folder: (folder / "out/config.yaml").write_text(text.format(command=f"touch {folder / 'marker'}"))


REFUSED = {  # with what the sentence must name
    "a pickled checkpoint": (pickled_checkpoint, ["last.ckpt"]),
    "a pickle as checkpoint": (pickle_as_checkpoint, ["last.ckpt"]),
    "pickled weights of the features": (pickled_weights, ["weights.pt"]),
    "pickled statistics": (pickled_statistics, ["real.npz"]),
    "pickled data": (pickled_data, ["CIFAR10", "damaged"]),
    "pictures that are programs": (pictures_that_are_programs, ["a.jpg", "Broken image"]),
    "a linked configuration": (linked, ["model=os.system", "config.yaml"]),
    "a model in the run's folder": (
        lambda f: poison(f, model__class_path="evil.DCGAN"),
        ["model=evil.DCGAN", "one of"],
    ),
    "features in the run's folder": (
        lambda f: poison(f, score__features="evil.Net"),
        ["score.features=evil.Net", "without a dot"],
    ),
    "a loss that is a function": (lambda f: poison(f, model__init_args__loss=touch(f)), ["model.loss=os.system"]),
    "YAML that calls": (config("model: !!python/object/apply:os.system ['{command}']\n"), ["config.yaml", "tag"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_runs_code_is_refused(case, folder):
    make, culprits = REFUSED[case]
    make(folder)
    done = run_train(["predict" if case.startswith("a pickle as") else "validate", CHECKPOINT], folder)
    assert not (folder / "marker").exists()
    assert_one_sentence(done, culprits)


def unpickled(f):
    return {"class_path": "torch.load", "init_args": {"f": str(f / "out/x.pt"), "weights_only": False}}


MORE = {
    "data in the run's folder": (lambda f: poison(f, data__class_path="evil.Digits"), "data=evil.Digits"),
    "data that are a program": (
        lambda f: poison(f, data={"class_path": "subprocess.Popen", "init_args": {"args": "gs"}}),
        "data=subprocess.Popen",
    ),
    "a model that is a function": (lambda f: poison(f, model=touch(f)), "model=os.system"),
    "a model of Lightning's": (
        lambda f: poison(f, model__class_path="lightning.pytorch.demos.boring_classes.BoringModel"),
        "model=lightning.pytorch.demos",
    ),
    "a model as a word": (lambda f: poison(f, model="evil.DCGAN"), "model=evil.DCGAN"),
    "a model in a file": (lambda f: poison(f, model="evil.yaml"), "model=evil.yaml"),
    "eval": (
        lambda f: poison(f, model__init_args__loss={"class_path": "builtins.eval", "init_args": {"source": "1"}}),
        "model.loss=builtins.eval",
    ),
    "exec": (lambda f: poison(f, model__init_args__penalty={"class_path": "builtins.exec"}), "model.penalty="),
    "a partial function": (
        lambda f: poison(
            f, model__init_args__loss={"class_path": "functools.partial", "init_args": {"func": touch(f)}}
        ),
        "model.loss=functools.partial",
    ),
    "a module that is run": (
        lambda f: poison(f, model__init_args__penalty={"class_path": "runpy.run_path"}),
        "model.penalty=runpy.run_path",
    ),
    "a loss in the run's folder": (lambda f: poison(f, model__init_args__loss="evil.Loss"), "model.loss=evil.Loss"),
    "a penalty as a word": (lambda f: poison(f, model__init_args__penalty="os.system"), "model.penalty=os.system"),
    "a class in a number": (lambda f: poison(f, model__init_args__width=touch(f)), "model.width="),
    "a class in a list": (lambda f: poison(f, data__init_args__classes=[touch(f)]), "data.classes="),
    "a class in a mapping": (lambda f: poison(f, data__init_args__oversample={"a": touch(f)}), "data.oversample.a="),
    "a class in a loss": (
        lambda f: poison(
            f,
            model__init_args__loss={"class_path": "gans.losses.LeastSquares", "init_args": {"a": touch(f)}},
        ),
        "model.loss.a=",
    ),
    "more arguments": (lambda f: poison(f, model__dict_kwargs={"hook": touch(f)}), "model.dict_kwargs="),
    "an unknown argument": (lambda f: poison(f, model__init_args__hook=touch(f)), "model.hook="),
    "a dotted argument": (lambda f: poison(f, **{"model__init_args__loss.class_path": "os.system"}), "model.loss."),
    "augmentation that unpickles": (lambda f: poison(f, data__init_args__augment=[unpickled(f)]), "data.augment="),
    "augmentation in the run's folder": (lambda f: poison(f, data__init_args__augment="evil.Net"), "data.augment="),
    "features that are a class": (lambda f: poison(f, score__features=touch(f)), "score.features="),
    "a score that is a class": (lambda f: poison(f, score__metrics=[touch(f)]), "score.metrics="),
    "a score in the run's folder": (lambda f: poison(f, score__metrics=["frechet", "evil.Net"]), "score.metrics="),
    "features of the neighbours": (lambda f: poison(f, neighbors__features="evil.Net"), "neighbors.features="),
    "a class in the quality": (lambda f: poison(f, quality__lpips_weights=unpickled(f)), "quality.lpips_weights="),
    "a class in the views": (lambda f: poison(f, views__columns=touch(f)), "views.columns="),
    "precision": (lambda f: poison(f, trainer__precision=touch(f)), "trainer.precision="),
    "a precision in the run's folder": (lambda f: poison(f, trainer__precision="evil.Net"), "trainer.precision="),
    "a limit": (lambda f: poison(f, trainer__limit_val_batches=touch(f)), "trainer.limit_val_batches="),
    "a seed": (lambda f: poison(f, seed_everything=touch(f)), "seed_everything="),
    "a key of its own": (lambda f: poison(f, hooks=[touch(f)]), "hooks="),
    "another configuration": (lambda f: poison(f, config="evil.yaml"), "config=evil.yaml"),
    "YAML that imports": (config("model: !!python/name:evil.Net\n"), "tag"),
    "YAML that makes objects": (config("!!python/object/new:subprocess.Popen ['{command}']\n"), "tag"),
    "YAML of aliases": (config("a: &a [1, 1]\nb: &b [*a, *a]\nmodel: *b\n"), "a=[1, 1]"),
}


@pytest.mark.parametrize("case", MORE)
def test_more_that_runs_code_is_refused(case, folder):
    """By the function that the command line reads a run's configuration with, and the classes that it accepts."""
    import train
    from callbacks.runs.settings import allowed_settings

    make, culprit = MORE[case]
    make(folder)
    with pytest.raises(MisconfigurationException) as error:
        allowed_settings(folder / "out/config.yaml", train.CLASSES, train.PARTS)
    assert culprit in str(error.value)
    assert "config.yaml" in str(error.value)
    assert not (folder / "marker").exists()


# Checkpoints that lie apart from their run


def of_another_class(checkpoint):
    checkpoint["gan"]["class"] = "os.system"


def with_classes_among_the_settings(folder):
    def change(checkpoint):
        checkpoint["hyper_parameters"] |= {
            "generator_optimizer": touch(folder),
            "loss": touch(folder),
            "penalty": touch(folder),
            "_class_path": "os.system",
        }
        checkpoint["gan"]["parts"] = {"loss": touch(folder), "penalty": touch(folder)}

    return change


def test_a_checkpoint_names_no_code(folder):
    """Alone, it says itself what model it holds."""
    shutil.move(folder / "out/config.yaml", folder / "config.yaml")
    poison_checkpoint(folder, with_classes_among_the_settings(folder))
    done = run_train(["predict", CHECKPOINT, "--model.predict_images=3"], folder)
    assert "Traceback" not in done.stderr
    assert not (folder / "marker").exists()
    poison_checkpoint(folder, of_another_class)
    done = run_train(["predict", CHECKPOINT], folder)
    assert not (folder / "marker").exists()
    assert_one_sentence(done, ["os.system"])


# What users are talked into typing


def test_functions_in_a_configuration_are_refused(folder):
    hook = {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"setup": touch(folder)}}
    for settings, culprit in (
        ({"model": {"init_args": {"generator_optimizer": touch(folder)}}}, "--model.generator_optimizer=os.system"),
        ({"trainer": {"callbacks": [hook]}}, "--trainer.callbacks.setup=os.system"),
    ):
        (folder / "given.yaml").write_text(yaml.safe_dump(settings))
        done = run_train([*QUICK[:-1], "--run_dir=new", "--config=given.yaml"], folder)
        assert not (folder / "marker").exists()
        assert_one_sentence(done, [culprit, "is a function"])
