"""What this lab takes of Lightning, jsonargparse, PyTorch and Weights & Biases that they do not promise.

Each test fails with a sentence that names the file to mend when a new version of theirs has it no more.
"""

import argparse
import inspect
import re
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint, Timer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from command_line import ROOT


@pytest.fixture(scope="module")
def trainer():
    return Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")


LOOPS = {  # by the place under a trainer: who rests on it
    "_signal_connector.received_sigterm": "callbacks/signals.py",
    "_signal_connector.register_signal_handlers": "callbacks/signals.py",
    "_signal_connector._get_current_signal_handlers": "callbacks/signals.py",
    "fit_loop.epoch_loop._broadcast_sigterm_tensor": "callbacks/signals.py",
    "fit_loop.epoch_loop.batch_progress.total.completed": "callbacks/runs/folder.py",
    "_default_root_dir": "callbacks/runs/folder.py",
    "_evaluation_loop": "callbacks/score.py",
    "validate_loop.max_batches": "callbacks/score.py",
    "validate_loop._data_fetcher": "callbacks/score.py",
    "fit_loop.epoch_loop._should_check_val_fx": "gans/training/validation.py",
    "fit_loop.epoch_loop._batches_that_stepped": "gans/training/validation.py",
    "fit_loop.epoch_loop._num_ready_batches_reached": "gans/training/validation.py",
    "fit_loop._data_fetcher": "gans/training/validation.py",
    "fit_loop.epoch_loop.val_loop.run": "callbacks/budget.py",
    "fit_loop.epoch_loop.batch_progress.total.ready": "gans/training/progress.py",
    "_logger_connector._first_loop_iter": "gans/training/validation.py",
    "strategy.launcher": "callbacks/signals.py",
}


@pytest.mark.parametrize("path", LOOPS)
def test_the_trainer_has(path, trainer):
    trainer.state.fn, trainer.validating = "validate", True
    place = trainer
    for name in path.split("."):
        assert hasattr(place, name), f"Lightning's {path} is gone: mend {LOOPS[path]}"
        place = getattr(place, name)


METHODS = {  # by who rests on it: a method that is called or overridden
    "train.py": [
        (LightningCLI, "_parse_ckpt_path"),
        (LightningCLI, "_set_seed"),
        (LightningCLI, "_instantiate_trainer"),
        (LightningCLI, "_run_subcommand"),
        (LightningCLI, "_parser"),
    ],
    "callbacks/checkpoints.py": [(ModelCheckpoint, "_save_checkpoint")],
    "gans/training/ranks.py": [(DDPStrategy, "_setup_model")],
    "gans/training (_foreach_copy_, _foreach_clamp_*), callbacks/ema.py (_foreach_lerp_)": [
        (torch, f"_foreach_{name}_") for name in ("copy", "lerp", "clamp_min", "clamp_max")
    ],
    "callbacks/command_line (parsing.py, mistakes.py)": [
        (ArgumentParser, name) for name in ("parse_args", "parse_path", "parse_string", "dump", "error", "format_help")
    ],
}


@pytest.mark.parametrize("file", METHODS)
def test_methods_are_there(file):
    for owner, name in METHODS[file]:
        assert callable(getattr(owner, name, None)), f"{owner.__name__}.{name} is gone: mend {file}"


def test_what_strategies_of_several_processes_have():
    files = {"_layer_sync": "callbacks/command_line/switches.py", "_start_method": "gans/training/ranks.py"}
    for name, file in files.items():
        assert hasattr(DDPStrategy(), name), f"DDPStrategy.{name} is gone: mend {file}"


def test_a_hook_that_is_no_longer_called_would_be_seen():
    """Methods that are only overridden must still be called by Lightning under these names."""
    source = inspect.getsource(inspect.getmodule(LightningCLI))
    for name in ("_parse_ckpt_path", "_set_seed", "_instantiate_trainer", "_run_subcommand"):
        assert re.search(rf"self\.{name}\(", source), f"LightningCLI does not call {name} any more: mend train.py"
    for name in ("register_signal_handlers", "_original_handlers"):
        assert name in inspect.getsource(_SignalConnector) + inspect.getsource(pl.Trainer), (
            f"Lightning does not use {name} any more: mend callbacks/signals.py"
        )


def test_the_signal_is_asked_for_before_every_batch():
    source = inspect.getsource(inspect.getmodule(type(Trainer(logger=False).fit_loop.epoch_loop)))
    for name in ("_broadcast_sigterm_tensor", "received_sigterm"):
        assert name in source, f"Lightning's loop does not use {name} any more: mend callbacks/signals.py"


def test_optimizers_report_their_steps_by_hooks_that_can_be_replaced():
    wrapped = pl.core.optimizer.LightningOptimizer(torch.optim.SGD(BoringModel().parameters(), lr=0.1))
    for name in ("_on_before_step", "_on_after_step"):
        assert hasattr(wrapped, name), f"LightningOptimizer.{name} is gone: mend gans/training/module.py"


def test_callbacks_of_lightning_itself():
    timer = Timer(duration={"seconds": 5})
    assert (timer._interval, timer._duration) == ("step", 5.0), (
        "Timer keeps its time otherwise: mend callbacks/budget.py"
    )
    timer._duration = None
    assert timer.time_remaining() is None, "a Timer without a duration ends training: mend callbacks/budget.py"
    assert inspect.isclass(OnExceptionCheckpoint)
    parameters = inspect.signature(WandbLogger.__init__).parameters
    assert {"save_dir", "version", "name", "offline"} <= parameters.keys(), "WandbLogger: mend callbacks/runs/wandb.py"
    assert "_wandb_init" in inspect.getsource(WandbLogger), "WandbLogger._wandb_init: mend callbacks/runs/wandb.py"


# jsonargparse


class Made:
    def __init__(self, number: int, words: list[str] | None = None) -> None:
        self.number = number


def test_what_a_parser_knows_of_an_argument():
    """callbacks/command_line/mistakes.py and help.py read it off argparse's actions."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Made, "made")
    actions = {action.dest: action for action in parser._actions}
    mend = "mend callbacks/command_line/mistakes.py"
    assert {"made.number", "made.words"} <= actions.keys(), f"arguments are called otherwise: {mend}"
    assert getattr(actions["made.number"], "_typehint", None) is int, f"an action has no _typehint: {mend}"
    assert list(vars(parser.get_defaults()["made"])) == ["number", "words"], (
        f"defaults lie elsewhere: {mend} (arguments)"
    )
    assert any(group._group_actions for group in parser._action_groups), "mend callbacks/command_line/help.py"


def test_subcommands_are_parsers_by_name():
    parser, sub = ArgumentParser(), ArgumentParser()
    parser.add_subcommands().add_subcommand("fit", sub)
    mend = "mend callbacks/command_line/mistakes.py"
    assert parser._subcommands_action.choices["fit"] is sub, f"_subcommands_action is gone: {mend}"
    assert sub.subcommand == "fit", f"a subcommand's parser does not know its name: {mend}"
    assert not sub._subcommands_action, mend


def test_a_parser_that_refuses_words_knows_them_and_the_reason():
    found = []

    class Parser(ArgumentParser):
        def error(self, message, ex=None):
            found.append((self.args, ex))
            raise argparse.ArgumentError(None, message)

    parser = Parser()
    parser.add_argument("--number", type=int)
    with pytest.raises(argparse.ArgumentError):
        parser.parse_args(["--number=x"])
    mend = "mend callbacks/command_line/parsing.py (error)"
    assert found[0][0] == ["--number=x"], f"a parser does not keep its words in args: {mend}"
    assert isinstance(found[0][1], Exception), f"error is not given the exception: {mend}"


def test_constructors_that_fail_are_named_by_the_parser():
    """The one sentence of jsonargparse's that is read."""

    class Broken(Made):
        def __init__(self) -> None:
            raise ValueError("it is broken")

    globals()["Broken"], Broken.__qualname__ = Broken, "Broken"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--made", type=Made | bool)
    config = parser.parse_object({"made": {"class_path": f"{__name__}.Broken"}})
    with pytest.raises(ValueError, match="it is broken") as error:
        parser.instantiate_classes(config)
    assert error.value.__cause__ is not None or str(error.value) == "it is broken", (
        "jsonargparse wraps what a constructor raised otherwise: mend of_settings in callbacks/command_line/errors.py"
    )


# All of it


KNOWN = {"_typehint", "_actions", "_action_groups", "_group_actions", "_subcommands_action", "_wandb_init", "_exit"}
KNOWN |= {"_default_root_dir", "_data_fetcher", "_forward_pre_hooks", "_start_method", "_original_handlers", "_v"}
KNOWN |= {"_layer_sync", "_interval", "_duration"} | {name for path in LOOPS for name in path.split(".")}
OWN = {"_trained_with", "_only_samples", "_picture"}


def test_nothing_else_is_taken():
    """A private name of somebody else's object that a file takes belongs into this file."""
    for path in [
        ROOT / "train.py",
        *(p for room in ("gans", "callbacks", "datamodules") for p in (ROOT / room).rglob("*.py")),
    ]:
        code = re.sub(r"#.*|\"\"\"(.|\n)*?\"\"\"", "", Path(path).read_text())
        for owner, name in re.findall(r"([\w)\]]+)\.(_[a-z]\w*)", code):
            if owner not in ("self", "cls", "torch") and not owner.endswith(")"):
                assert name in KNOWN | OWN, f"{path} takes {owner}.{name}: pin it here"
