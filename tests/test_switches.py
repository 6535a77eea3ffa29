"""Settings as people type them: each does its job, or one sentence names it, its value and what would be right."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import LBFGS, SGD, SparseAdam
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR

import datamodules
import gans
import train
from callbacks.command_line.annotations import annotations_of, judge, spelled
from callbacks.command_line.errors import complaint, refusal
from callbacks.command_line.switches import check_trainer
from command_line import ROOT, assert_one_sentence, run_train
from gans import losses, optimizers, penalties
from gans.training.ranks import DataParallel, check_strategy

QUICK = [
    *("--config", str(ROOT / "configs/quickstart.yaml"), "--trainer.accelerator=cpu", "--trainer.logger=false"),
    *("--model.width=4", "--data.image_size=16", "--data.batch_size=64", "--trainer.max_steps=6", "--run_dir=out"),
]


class Sums(Callback):
    """Write down what distinguishes the batches of a training."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: object, batch: tuple, batch_idx: int) -> None:
        with open("sums", "a") as file:  # noqa: PTH123
            file.write(f"{batch[0].sum():.4f}\n")


class Broken(Callback):
    """A mistake of the program's in the middle of training."""

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        trainer.no_such_thing  # noqa: B018


# Ranges


def numbers():
    """All arguments that are numbers, of whatever the command line can build of this lab."""
    classes = [getattr(package, name) for package in (gans, datamodules) for name in package.__all__]
    for module in (losses, penalties, optimizers):
        classes += [cls for cls in vars(module).values() if getattr(cls, "__module__", "") == module.__name__]
    classes += [cls for cls in train.RANGES.values() if isinstance(cls, type)]
    for cls in filter(inspect.isclass, classes):
        own = [base for base in cls.__mro__ if base.__module__.startswith(("gans.", "datamodules.", "callbacks."))]
        given = {name for base in own for name in inspect.signature(base.__init__).parameters}
        for name, annotation in annotations_of(cls).items():
            if name in given and name != "return" and ("int" in str(annotation) or "float" in str(annotation)):
                yield f"{cls.__name__}.{name}", str(annotation)


def test_every_number_declares_its_range():
    told = {"image_shape", "scale", "num_classes"}  # by the data
    any_number = {"a", "b", "c"}  # of LeastSquares
    checked_together = {"quality", "reduction"}  # of Restoration
    without = {key for key, annotation in numbers() if "Annotated" not in annotation}
    assert {key.partition(".")[2] for key in without} <= told | any_number | checked_together, without


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("gans.DCGAN", {"width": 0}, "--model.width=0 must be at least 1"),
        ("gans.StyleGAN", {"latent_dim": 0}, "--model.latent_dim=0 must be at least 1"),  # declared by a base
        ("gans.GAN", {"dropout": 1.0}, "--model.dropout=1 must be at least 0 and less than 1"),
        ("gans.DCGAN", {"gradient_clip_val": float("inf")}, "--model.gradient_clip_val=inf must be a finite number"),
        ("gans.WGAN", {"weight_clip": float("nan")}, "--model.weight_clip=nan must be a finite number, more than 0"),
        ("gans.DiscoGAN", {"reconstruction_rate": [0.5, 2.0]}, "--model.reconstruction_rate=2 must be from 0 to 1"),
        ("datamodules.MNIST", {"oversample": {"cat": 0}}, "--model.oversample.cat=0 must be from 1 to 1000"),
        ("torch.optim.Adam", {"lr": float("nan")}, "--model.lr=nan must be a finite number"),
        ("gans.losses.LeastSquares", {"a": float("-inf")}, "--model.a=-inf must be a finite number"),
        ("gans.DCGAN", {"width": None}, "--model.width=null must have a value, or be left out"),
        ("gans.DCGAN", {"latent_dim": None}, "--model.latent_dim=null must have a value"),
        ("gans.DCGAN", {"loss": None}, "--model.loss=null must have a value"),
        ("gans.DCGAN", {"generator_optimizer": None}, "--model.generator_optimizer=null must have a value"),
        ("datamodules.ImageFolder", {"data_dir": None}, "--model.data_dir=null must have a value"),
        ("gans.penalties.GradientPenalty", {"weight": None}, "--model.weight=null must have a value"),
        ("gans.Pix2Pix", {"loss": {"class_path": "gans.losses.Realness", "init_args": {"outcomes": 1}}}, "outcomes=1 "),
    ],
)
def test_a_number_outside_its_range_is_named(name, arguments, sentence):
    with pytest.raises(MisconfigurationException) as error:
        judge({"model": {"class_path": name, "init_args": arguments}}, {})
    assert sentence in str(error.value)


def test_numbers_in_their_ranges_and_other_values_pass():
    given = {"width": 10**30, "gradient_clip_val": None, "compile": True, "diff_augment": "color", "n_critic": 1}
    judge({"model": {"class_path": "gans.DCGAN", "init_args": given}, "name": "none.such"}, {})
    may_be_null = {"image_shape": None, "penalty": None, "weight_clip": None, "predict_label": None}
    judge({"model": {"class_path": "gans.DCGAN", "init_args": may_be_null}}, {})
    judge({"model": {"class_path": "torch.optim.Adam", "init_args": {"foreach": None}}}, {})
    judge({"model": {"class_path": "no.such.Class", "init_args": {"width": 0}}}, {})


@pytest.mark.parametrize(
    ("interval", "words"),
    [("[1, inf)", "at least 1"), ("(0, inf)", "more than 0"), ("[0, 1]", "from 0 to 1"), ("(0, 1]", "more than 0 and")],
)
def test_intervals_in_words(interval, words):
    assert spelled(interval).startswith(words)


@pytest.mark.parametrize(
    ("wrong", "culprits"),
    [
        (["--model.width=0"], ["--model.width=0", "at least 1"]),
        (["--model.penalty=R1", "--model.penalty.weight=-1"], ["--model.penalty.weight=-1 must be more than 0"]),
        (["--model.generator_optimizer.beta1=1"], ["--model.generator_optimizer.beta1=1", "less than 1"]),
        (["--seed_everything=-1"], ["--seed_everything=-1", "from 0"]),
        (["--samples.count=0"], ["--samples.count=0", "from 1"]),
        (["--model.width=1000000000"], ["not enough memory", "--model.width=1000000000"]),
        (["--model.image_shape=[3,64,64]"], ["--model.image_shape=", "--data"]),
    ],
)
def test_impossible_numbers_end_in_one_sentence(wrong, culprits, tmp_path):
    done = run_train([*QUICK, *wrong], tmp_path)
    assert_one_sentence(done, culprits)
    assert not (tmp_path / "out").exists()


# Optimizers and schedules


def built(optimizer=SGD, scheduler=None, **model):
    given = model | {"generator_optimizer": lambda p: optimizer(p, lr=0.1) if optimizer is not LBFGS else LBFGS(p)}
    module = gans.DCGAN(image_shape=(1, 16, 16), width=4, generator_scheduler=scheduler, **given)
    module._trainer = Trainer(max_steps=6, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    return module.configure_optimizers()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"optimizer": LBFGS}, "generator_optimizer=LBFGS cannot train a GAN"),
        ({"optimizer": SparseAdam}, "generator_optimizer=SparseAdam cannot train a GAN"),
        ({"scheduler": lambda o: StepLR(o, 0)}, "generator_scheduler.step_size=0 must be at least 1"),
        ({"scheduler": lambda o: StepLR(o, -1)}, "generator_scheduler.step_size=-1 must be at least 0"),
        ({"scheduler": lambda o: CosineAnnealingLR(o, 0)}, "generator_scheduler.T_max=0 must be at least 1"),
        ({"scheduler": lambda o: ExponentialLR(o, -1)}, "generator_scheduler.gamma=-1 must be at least 0"),
        ({"scheduler": lambda o: OneCycleLR(o, 1, total_steps=5)}, "does not go as far as --trainer.max_steps=6"),
        ({"scheduler": ReduceLROnPlateau}, "cannot be ReduceLROnPlateau"),
        ({"scheduler": lambda o: o.no_such_thing}, "generator_scheduler: "),
    ],
)
def test_what_cannot_train_is_found_before_training(given, sentence):
    with pytest.raises(MisconfigurationException, match=sentence):
        built(**given)


def test_trying_out_draws_no_random_numbers_and_leaves_the_weights():
    class Noisy(SGD):
        def step(self, closure=None):
            torch.rand(1)
            super().step(closure)

    torch.manual_seed(0)
    reference = gans.DCGAN(image_shape=(1, 16, 16), width=4)
    expected = torch.rand(3)
    torch.manual_seed(0)
    optimizers, schedulers = built(Noisy, lambda o: OneCycleLR(o, 1, total_steps=6))
    assert torch.equal(torch.rand(3), expected)
    assert schedulers[0].last_epoch == 0
    weights = optimizers[-1].param_groups[0]["params"]
    assert all(map(torch.equal, weights, reference.generator.parameters()))


# Lightning's switches


def test_a_trial_run_goes_through_everything(tmp_path):
    every = ["--samples.every_n_steps=1", "--views.every_n_steps=1", "--health.every_n_steps=1"]
    every += ["--trainer.val_check_interval=1", "--score.num_images=100", "--score.num_real=100"]
    done = run_train([*QUICK, *every, "--trainer.fast_dev_run=3", "--trainer.logger=true"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out").exists()


def test_the_same_batches_again_without_checkpoints_or_our_bar(tmp_path):
    switches = ["--trainer.overfit_batches=2", "--trainer.enable_checkpointing=false", "--data.seed=3"]
    switches += ["--trainer.callbacks+=TQDMProgressBar", "--trainer.callbacks+=test_switches.Sums"]
    switches += ["--trainer.val_check_interval=00:00:00:01", "--score.num_images=0"]
    done = run_train([*QUICK, *switches], tmp_path)
    assert done.returncode == 0, done.stderr
    first, second, *rest = (tmp_path / "sums").read_text().split()
    assert first != second
    assert rest == [first, second] * 2
    assert not (tmp_path / "out/checkpoints").exists()
    (tmp_path / "sums").unlink()
    more = ["--trainer.callbacks=test_switches.Sums", "--trainer.check_val_every_n_epoch=1", "--score.num_images=0"]
    done = run_train([*QUICK, *more, "--trainer.overfit_batches=2"], tmp_path)  # in the order of another seed
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sums").read_text().split()[0] != first


@pytest.mark.parametrize(
    ("wrong", "culprits"),
    [
        (["--trainer.gradient_clip_val=1"], ["--trainer.gradient_clip_val=1", "--model.gradient_clip_val"]),
        (["--trainer.default_root_dir=x"], ["--trainer.default_root_dir=x", "--run_dir"]),
        (["--trainer.limit_train_batches=0"], ["--trainer.limit_train_batches=0", "more than 0"]),
        (["--trainer.strategy=ddp_spawn"], ["--trainer.strategy=ddp_spawn must be ddp"]),
        (["--trainer.devices=x"], ["--trainer.devices=x"]),
        (["--trainer.devices=1000000000000000000"], ["--trainer.devices=1000000000000000000", "at most 1000"]),
        (["--trainer.callbacks=LearningRateFinder"], ["--trainer.callbacks=LearningRateFinder", "one network"]),
        (["--trainer.accelerator=tpu"], ["--trainer.accelerator=tpu", "torch_xla"]),
        (["--trainer.limit_train_batches=0.001"], ["--trainer.limit_train_batches=0.001", "28"]),
        (["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=foo"], ["monitor=foo", "score/frechet"]),
        (["--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=tb"], ["TensorBoardLogger", "tensorboard"]),
    ],
)
def test_a_switch_that_does_not_go_says_why(wrong, culprits, tmp_path):
    done = run_train([*QUICK, *wrong], tmp_path)
    assert_one_sentence(done, culprits)


def test_a_mistake_of_the_program_shows_where_it_is(tmp_path):
    done = run_train([*QUICK, "--trainer.callbacks=test_switches.Broken"], tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "no_such_thing" in done.stderr
    assert "error:" not in done.stderr


def test_errors_that_are_the_settings_and_those_that_are_not():
    assert "not enough memory for --data.batch_size=9999" in refusal(
        torch.OutOfMemoryError("CUDA out of memory"), ["train.py", "--data.batch_size=9999", "--model.width=4"]
    )
    assert "--trainer.deterministic" in refusal(RuntimeError("x does not have a deterministic implementation"))
    assert refusal(RuntimeError("shapes do not match")) is None
    assert refusal(KeyError("loss")) is None
    given = {"devices": "x", "max_steps": 3, "precision": "transformer-engine"}
    assert complaint(ValueError("`devices` is wrong"), given) == "--trainer.devices=x: `devices` is wrong"
    assert complaint(ImportError("no transformer_engine"), given).startswith("--trainer.precision=transformer-engine: ")
    assert complaint(ValueError("else"), given) == "else"


def test_strategies():
    check_strategy(DataParallel(start_method="fork"))
    check_strategy(SingleDeviceStrategy())
    for wrong in (DDPStrategy(), DataParallel(start_method="spawn")):
        with pytest.raises(MisconfigurationException, match=r"^--trainer\.strategy="):
            check_strategy(wrong)
    forked = SimpleNamespace(root_device=torch.device("cuda"), _start_method="fork")
    with pytest.raises(MisconfigurationException, match=r"ddp_fork must be ddp on GPUs"):
        check_trainer(SimpleNamespace(strategy=forked, num_devices=2, callbacks=[]), [])
    synchronised = SimpleNamespace(root_device=torch.device("cpu"), _layer_sync=object())
    with pytest.raises(MisconfigurationException, match=r"sync_batchnorm=true must be left out"):
        check_trainer(SimpleNamespace(strategy=synchronised, num_devices=2, callbacks=[]), [])
    strategy = Trainer(strategy="ddp_find_unused_parameters_true", accelerator="cpu", devices=2, logger=False).strategy
    assert isinstance(strategy, DataParallel)
