"""Train, score and sample GANs from configuration files; ``python train.py --help`` shows how."""

import argparse
import difflib
import inspect
import os
import re
import sys
import warnings
from typing import Any

import torch
from jsonargparse import DefaultHelpFormatter
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

import datamodules
import gans
from callbacks import (
    EMA,
    AtomicCheckpointIO,
    BestCheckpoint,
    Health,
    ImageWriter,
    LastCheckpoint,
    MetricsFile,
    Neighbors,
    Progress,
    Quality,
    Samples,
    Score,
    TrainingDiverged,
    Views,
)
from callbacks.runs import SaveConfig, find_checkpoint, run_folder, with_settings_of_run
from callbacks.wandb_account import prepare_wandb
from datamodules.base import ImageDataModule
from gans.base import AdversarialModule
from gans.precision import native_precision
from gans.translation import Translator

SUBCOMMANDS = ("fit", "validate", "test", "predict")
DESCRIPTION = """
Train, score and sample GANs. Without a subcommand it trains:

  python train.py --config configs/quickstart.yaml
  python train.py --config configs/dcgan/mnist.yaml --data.batch_size=32 --trainer.max_steps=1000
  python train.py --config configs/dcgan/mnist.yaml --config mine.yaml      (later files win)
  python train.py --config configs/dcgan/image_folder.yaml --data.data_dir=my_images --data.image_size=64
  python train.py --config configs/dcgan/mnist.yaml --model.generator_optimizer.lr=1e-4
  python train.py --config configs/dcgan/mnist.yaml --model.generator_optimizer=torch.optim.RMSprop
  python train.py --config configs/dcgan/mnist.yaml --trainer.devices=2 --trainer.precision=16-mixed
  python train.py --config configs/dcgan/mnist.yaml --ckpt_path=last        (goes on where the newest run stopped)
  python train.py --config configs/dcgan/mnist.yaml --print_config          (the complete settings, nothing run)

From a checkpoint, with the settings of the run that wrote it:

  python train.py validate --ckpt_path=RUN/checkpoints/best.ckpt            (prints the scores)
  python train.py predict --ckpt_path=RUN/checkpoints/best.ckpt --model.predict_images=1000
  python train.py predict --ckpt_path=RUN/checkpoints/best.ckpt --data.predict_dir=my_images   (translates them)

All settings of a subcommand, with what they mean: python train.py fit --help
Without --trainer.precision it is bf16-mixed where the machine has instructions for bfloat16, and 32-true elsewhere.
"""


class HelpFormatter(DefaultHelpFormatter):
    """Leaves the examples above as they are, one a line."""

    _fill_text = argparse.RawDescriptionHelpFormatter._fill_text


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence, without the page of usage before it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, formatter_class=HelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> None:
        sys.exit(f"error: {one_sentence(message)}")


def one_sentence(message: str) -> str:
    """The innermost cause in jsonargparse's tree of causes, and what was probably meant."""
    classes = {"model": gans, "data": datamodules}
    wrong = re.search(r"Expected a dot import path string: (\S+)", message)
    for key, package in classes.items():
        if wrong and f'"{key}"' in message:
            near = difflib.get_close_matches(wrong[1], package.__all__, 1, 0)[0]
            return f"--{key}={wrong[1]} is no class: did you mean {near}? There are {', '.join(package.__all__)}"
    unknown = re.search(r"Option '([\w.]+)' is not accepted|[Uu]nrecognized arguments: --([\w.]+)", message)
    if unknown:
        key = unknown[1] or unknown[2]
        owners = [Trainer, Samples, Views, EMA, Score, Quality, Health, Neighbors, LastCheckpoint, BestCheckpoint]
        owners += [getattr(package, name) for package in classes.values() for name in package.__all__]
        bases = {cls for owner in owners for cls in owner.__mro__}
        known = {name for cls in bases for name in inspect.signature(cls.__init__).parameters}
        near = difflib.get_close_matches(key.rpartition(".")[2], known, 1)
        meant = f"did you mean {near[0]}?" if near else "python train.py fit --help lists all keys"
        return f"the key {key} does not exist: {meant}"
    noise = re.compile(r"Does not validate|Subtypes:|Errors:|Given value type|Expected a <class 'NoneType'>")
    lines = [line.strip(" -") for line in message.splitlines() if line.strip() and not noise.search(line)]
    text = re.sub(r"<class '([\w.]+)'>", r"\1", " ".join(lines))
    return re.sub(r'Parser key "([\w.]+)": Expected an? (\w+). Got value: (\S+)', r"\1=\3 must be of type \2", text)[
        :400
    ]


class CLI(LightningCLI):
    """The command line: models, data and trainer from configuration files, one folder a run."""

    def __init__(self) -> None:
        super().__init__(
            AdversarialModule,
            ImageDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=Parser,
            parser_kwargs={"description": DESCRIPTION},
            save_config_callback=SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={
                "logger": {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"project": "gan-lab"}},
                "min_epochs": 0,
                "check_val_every_n_epoch": None,
                "val_check_interval": 1000,
                "num_sanity_val_steps": 0,
                "enable_autolog_hparams": False,  # the complete configuration is logged instead
                "enable_model_summary": False,
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder that keeps everything of this run; by default runs/CONFIG/DATE-TIME.",
        )
        parser.add_lightning_class_args(Samples, "samples")
        parser.add_lightning_class_args(Views, "views")
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_lightning_class_args(Score, "score")
        parser.add_lightning_class_args(Quality, "quality")
        parser.add_lightning_class_args(Health, "health")
        parser.add_lightning_class_args(Neighbors, "neighbors")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.add_lightning_class_args(BestCheckpoint, "best")
        parser.link_arguments("data.image_shape", "model.init_args.image_shape", apply_on="instantiate")
        for key in ("num_classes", "domains", "scale"):
            parser.link_arguments(f"data.{key}", f"model.init_args.{key}", apply_on="instantiate")
        parser.link_arguments(
            ("score.monitor", "quality.monitor"),
            "best.monitor",
            compute_fn=lambda score, quality: quality or score,
            apply_on="instantiate",
        )
        for key in ("features", "weights", "cache_dir"):
            parser.link_arguments(f"score.{key}", f"neighbors.{key}")
        parser.link_arguments(
            "seed_everything", "data.init_args.seed", compute_fn=lambda seed: seed if type(seed) is int else 0
        )

    def _parse_ckpt_path(self) -> None:
        """Lightning would let the checkpoint's settings win over the command line's; ours is the other way round."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        checkpoint = find_checkpoint(config.ckpt_path, config.run_dir, self.name)
        config.ckpt_path = checkpoint and str(checkpoint)
        self.run_dir = run_folder(self.subcommand, checkpoint, config.run_dir, self.name)
        config.trainer.default_root_dir = str(self.run_dir)
        native = native_precision(config.trainer.accelerator)
        if config.trainer.precision is None:
            config.trainer.precision = native
        elif str(config.trainer.precision).startswith("bf16") and native == "32-true":
            say(
                f"--trainer.precision={config.trainer.precision} can be a hundred times slower than 32-true here: "
                "no instructions for bfloat16 were found"
            )
        if self.subcommand != "fit":
            config.trainer.logger = False
            if checkpoint is None:
                raise MisconfigurationException(
                    f"{self.subcommand} needs a trained model: give --ckpt_path (a file, last or best)"
                )
        prepare_wandb(config.trainer.logger, self.run_dir)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with what every run has: a metrics file, a progress bar and whole checkpoints."""
        trainer = self.config_init[self.subcommand].trainer
        loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger] if trainer.logger else []
        plugins = trainer.plugins if isinstance(trainer.plugins, list) else [trainer.plugins] if trainer.plugins else []
        trainer.callbacks = [*(trainer.callbacks or []), ImageWriter()]
        if trainer.enable_progress_bar is not False:
            trainer.callbacks.append(Progress())
        return super().instantiate_trainer(
            logger=[MetricsFile(self.run_dir), *loggers], plugins=[*plugins, AtomicCheckpointIO()], **kwargs
        )

    def fit(self, model: AdversarialModule, **kwargs: Any) -> None:
        """Train; say where everything is, also when stopped."""
        try:
            self.trainer.fit(model, **kwargs)
        except SIGTERMException:
            say(f"stopped by SIGTERM; go on with the same command and --ckpt_path={self.run_dir}/checkpoints/last.ckpt")
            return
        self.summarise()

    @rank_zero_only
    def summarise(self) -> None:
        """Where the results are."""
        say(f"run folder       {self.run_dir}")
        for name in ("best", "last"):
            path = self.run_dir / "checkpoints" / f"{name}.ckpt"
            if path.exists():
                say(f"{name} checkpoint  {path}")
        samples = next((c for c in self.trainer.callbacks if isinstance(c, Samples)), None)
        if samples and samples.latest:
            say(f"sample picture   {samples.latest}")
        if os.environ.get("WANDB_MODE") == "offline":
            for folder in sorted((self.run_dir / "wandb").glob("offline-run-*")):
                say(f"to upload        wandb sync {folder}")

    def predict(self, model: AdversarialModule, ckpt_path: str, **kwargs: Any) -> None:
        """Write images: translations of a folder's, or those of the model's own predict_dataloader."""
        loader = self.datamodule.predict_dataloader() if isinstance(model, Translator) else model.predict_dataloader()
        self.trainer.predict(
            model, dataloaders=loader, ckpt_path=ckpt_path, weights_only=True, return_predictions=False
        )
        say(f"images           {self.run_dir}/images")

    @property
    def name(self) -> str:
        """What is trained on what, such as dcgan-mnist; a folder of this name holds the runs."""
        config = self.config[self.subcommand]
        return "-".join(part.class_path.rpartition(".")[2].lower() for part in (config.model, config.data))


@rank_zero_only
def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Run the command line; what the user got wrong ends in one sentence."""
    arguments = sys.argv[1:]
    try:
        if not arguments:
            arguments = ["--help"]
        elif arguments[0] not in (*SUBCOMMANDS, "-h", "--help"):
            arguments = ["fit", *arguments]
        if arguments[0] in SUBCOMMANDS:
            arguments = [arguments[0], *with_settings_of_run(arguments[1:])]
        sys.argv[1:] = arguments
        for harmless in (".*LeafSpec.*", ".*smaller than the logging interval.*"):
            warnings.filterwarnings("ignore", harmless)
        torch.set_float32_matmul_precision("high")
        CLI()
    except (MisconfigurationException, TrainingDiverged) as error:
        sys.exit(f"error: {error}")
    except ValueError as error:  # jsonargparse's wrapping of what a constructor raised
        if error.__cause__ is None or "Does not validate" not in str(error):
            raise
        sys.exit(f"error: {error.__cause__}")


if __name__ == "__main__":
    main()
