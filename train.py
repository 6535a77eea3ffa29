"""Train, score and sample GANs from configuration files; ``python train.py --help`` shows how."""

import enum
import pkgutil
import re
import shlex
import signal
import sys
from pathlib import Path
from pydoc import locate
from typing import Annotated, Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ProgressBar, Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import callbacks
import datamodules
import gans
from callbacks.budget import since_start
from callbacks.command_line import switches
from callbacks.command_line.annotations import defaults_of, judge
from callbacks.command_line.classes import CLASSES, LINKED, PARTS, fitting, listed, named
from callbacks.command_line.config_files import options_in, settings_in, with_home
from callbacks.command_line.errors import complaint, fail, is_lightnings, of_settings, quiet, refusal
from callbacks.command_line.help import DESCRIPTION
from callbacks.command_line.mistakes import SHOWING, STUDIES, SUBCOMMANDS
from callbacks.command_line.parsing import Parser
from callbacks.runs.find import compare, config_of, direction_of, find_checkpoint, with_settings_of_run
from callbacks.runs.folder import Run, place
from callbacks.runs.images import Images
from callbacks.runs.record import record, say, stop, summarise, title_of
from callbacks.runs.secrets import masked
from callbacks.runs.wandb import wandb_logger
from callbacks.showing.command import Tools, showing
from callbacks.studies.command import studies
from datamodules.images.module import ImageDataModule
from gans.export import folder, graph, show
from gans.parts.losses import AdversarialLoss
from gans.parts.penalties import Penalty
from gans.parts.precision import native_precision
from gans.training import checkpoints
from gans.training.batches import check_kind
from gans.training.module import GANModule
from gans.training.ranks import check_strategy
from gans.training.translation import Translator, choose_direction

SIGNALS = callbacks.Signals()
WANDB = {"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"project": "gan-lab"}}
OF_DATA = ("image_shape", "num_classes", "domains", "scale")  # what the data tells the model
# Where the numbers of each part of the settings have their ranges.
RANGES: dict[str, Any] = {
    "trainer": switches.RANGES,
    "": {"seed_everything": Annotated[int, "[0, 4294967295]"]},
} | callbacks.SECTIONS


# What a run folder may name; whatever else it names is refused.
CLASSES |= {
    key: named(getattr(package, name) for name in package.__all__ if hasattr(getattr(package, name), "setup"))
    for key, package in {"model": gans, "data": datamodules}.items()
}
PARTS |= {
    base: named(cls for cls in vars(module).values() if isinstance(cls, type) and issubclass(cls, base))
    for module, base in (
        (gans.losses, AdversarialLoss),
        (gans.penalties, Penalty),
        (gans.optimizers, Optimizer),
        (gans.optimizers, LRScheduler),
    )
}
LINKED |= {"model": OF_DATA, "data": ("seed",)}


class CLI(LightningCLI):
    """The command line: models, data and trainer from configuration files, one folder a run."""

    built = False  # whether everything is, so that an error is no longer one in the settings
    only_builds = False  # and trains nothing, to find out whether the settings are right
    asked: dict[str, Any] = {}  # the trainer's settings that are other than Lightning's own

    def __init__(self, typed: list[str]) -> None:
        self.typed = typed  # the words after the subcommand
        super().__init__(
            GANModule,
            ImageDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=Parser,
            parser_kwargs={"description": DESCRIPTION},
            save_config_callback=None,  # Run keeps it when training begins
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={
                "logger": WANDB,
                "min_epochs": 0,
                "check_val_every_n_epoch": None,
                "val_check_interval": 1000,
                "num_sanity_val_steps": 0,
                "enable_autolog_hparams": False,  # the complete configuration is logged instead
                "enable_model_summary": False,
            },
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Only that which is wanted: the parser of each takes as long as a good part of the imports."""
        known = LightningCLI.subcommands()
        return {name: known[name] for name in sys.argv[1:2] if name in known} or {"fit": known["fit"]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for key in ("--run_dir", "--name", "--predict_format", "--predict_zip"):  # see OF_RUN in help.py
            parser.add_argument(key, type=str | None, default=None)
        for key, callback in callbacks.SECTIONS.items():
            parser.add_lightning_class_args(callback, key)
        parser.link_arguments(
            "data", "model.init_args.image_shape", compute_fn=self._shape_for_model, apply_on="instantiate"
        )
        for key in OF_DATA[1:]:
            parser.link_arguments(f"data.{key}", f"model.init_args.{key}", apply_on="instantiate")
        for key in ("features", "weights", "cache_dir"):
            parser.link_arguments(f"score.{key}", f"neighbors.{key}")

    def _parse_ckpt_path(self) -> None:
        """Lightning would let the checkpoint's settings win over the command line's; ours is the other way round."""

    def _set_seed(self) -> None:
        """Called first with what was parsed, so that all of it is judged before anything depends on it."""
        config = self.config[self.subcommand]
        judge(config, RANGES)
        options = dict(options_in(self.typed))
        if "--trainer.check_val_every_n_epoch" in options and "--trainer.val_check_interval" not in options:
            config.trainer.val_check_interval = 1.0  # and not after so many updates
        switches.check_switches(config.trainer)
        CLI.asked = switches.asked(config.trainer)
        self.images = Images(str(self.subcommand), config, self.typed)
        defaults = defaults_of(pkgutil.resolve_name(config.model.class_path))
        for key in OF_DATA:
            given = (config.model.get("init_args") or {}).get(key)
            if given not in (None, []) and given != defaults.get(key):
                raise MisconfigurationException(
                    f"--model.{key}={given} must be left out: the model is told by --data what its images are like"
                )
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.weights_only is False:
            raise MisconfigurationException("weights_only must be true: checkpoints are never read as code")
        self.checkpoint = find_checkpoint(config.ckpt_path, config.run_dir, self.group, anew=self.subcommand == "fit")
        if self.checkpoint is not None:
            checkpoints.read(self.checkpoint)  # one that is damaged is found before anything is begun
        elif self.subcommand != "fit":
            raise MisconfigurationException(
                f"{self.subcommand} needs a trained model: give --ckpt_path (a file, last or best)"
            )
        elif config.ckpt_path is not None and not Path(config.run_dir).exists():
            say(f"{config.run_dir} is not there to go on from: training begins anew")
        config.ckpt_path = self.checkpoint and str(self.checkpoint)
        native, precision = native_precision(config.trainer.accelerator), config.trainer.precision
        if "Precision" in str(config.trainer.plugins):  # which chooses
            pass
        elif precision is None:
            config.trainer.precision = native
        elif str(precision).startswith("bf16") and native == "32-true":
            say(
                f"--trainer.precision={precision} can be a hundred times slower than 32-true here: no instructions for "
                "bfloat16 were found"
            )
        if self.subcommand != "fit":
            config.trainer.logger = False
        yaml.SafeDumper.add_multi_representer(enum.Enum, lambda dumper, value: dumper.represent_data(value.value))
        self.record = record(yaml.safe_load(self._parser(self.subcommand).dump(config, skip_none=False)))
        if self.subcommand == "predict" and self.checkpoint is not None:
            self.images.look(self.record, self.checkpoint, config.run_dir, self.group)
        title = config.name or title_of(masked(self.typed))
        made = Path(config.run_dir) if self.images.made and config.run_dir else self.images.unfinished
        begun = None if made is None else (made, False, True)
        self.place = begun or place(str(self.subcommand), self.checkpoint, config.run_dir, self.group, title)
        path = config_of(self.checkpoint) if self.checkpoint is not None and self.subcommand == "fit" else None
        if path is not None:
            compare(path, settings_in(yaml.safe_dump(self.record)), self.place[0], self.place[2])
        of_data = config.data.get("init_args") or {}
        if of_data.get("seed", 0) is None:  # after the record, or a run would go on with the order of its first seed
            of_data.seed = config.seed_everything if type(config.seed_everything) is int else 0
        # Loggers other than the metrics file come to the trainer when training begins; of Weights & Biases only the
        # arguments are taken here, since it is told the run's folder.
        loggers: list[Any] = [WANDB if logger is True else logger for logger in listed(config.trainer.logger)]
        self.wandb = [logger for logger in loggers if str(logger.get("class_path")).endswith("WandbLogger")]
        config.trainer.logger = [logger for logger in loggers if logger not in self.wandb]

    def _shape_for_model(self, data: ImageDataModule) -> tuple[int, int, int]:
        """The images' shape; asked for when there is data, and before there is a model that cannot use it."""
        if self.subcommand != "predict":
            model = locate(self.config[self.subcommand].model.class_path)
            check_kind(model, data, fitting(model.takes))
        return data.image_shape

    def after_instantiate_classes(self) -> None:
        if self.subcommand != "predict":
            check_kind(self.model, self.datamodule, fitting(self.model.takes))
        self.images.check_source(isinstance(self.model, Translator), self.datamodule)
        # A run that begins from another one's checkpoint in a folder of its own may do so on other images.
        self.datamodule.other_data = self.checkpoint is not None and not self.place[2]

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, with what every run has: a folder, a metrics file, a progress bar and whole checkpoints."""
        trainer = self.config_init[self.subcommand].trainer
        folder, fresh, resumed = self.place
        metrics = callbacks.MetricsFile(folder)
        settings = [{**logger.get("init_args", {}), **logger.get("dict_kwargs", {})} for logger in self.wandb]

        def loggers(run: Path) -> list[Logger]:
            return [*(wandb_logger(given, run, resumed) for given in settings), *trainer.logger]

        command = shlex.join(["python", "train.py", *masked(self.typed)])
        self.run = Run(folder, fresh, self.record, metrics, loggers, resumed, command)
        plugins = [*listed(trainer.plugins), callbacks.AtomicCheckpointIO()]
        given = listed(trainer.callbacks)
        trainer.callbacks = [callbacks.Threads(), SIGNALS, self.run, callbacks.Compute(), *given, self.images.writer]
        if trainer.enable_progress_bar is not False and not any(isinstance(c, ProgressBar) for c in given):
            trainer.callbacks.append(callbacks.Progress())
        try:
            made = super().instantiate_trainer(logger=[metrics], plugins=plugins, **kwargs)
        except Exception as error:  # whatever Lightning and what it needs have against the settings
            raise MisconfigurationException(complaint(error, CLI.asked)) from error
        scores = callbacks.Score | callbacks.Quality
        switches.check_trainer(made, [name for c in made.callbacks if isinstance(c, scores) for name in c.directions])
        check_strategy(made.strategy)
        return made

    def _instantiate_trainer(self, config: dict[str, Any], extra: list[Callback]) -> Trainer:
        if config.get("enable_checkpointing") is False:
            extra = [callback for callback in extra if not isinstance(callback, Checkpoint)]
        return super()._instantiate_trainer(config, extra)

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand != "predict":
            for callback in self.trainer.callbacks:
                if isinstance(callback, callbacks.Score | callbacks.Quality | callbacks.Neighbors):
                    callback.prepare(self.trainer, self.datamodule)
        CLI.built = True
        if CLI.only_builds:
            return
        try:
            super()._run_subcommand(subcommand)
        finally:
            self.run.close()
        self.images.after_training(run, self.run.folder, isinstance(self.model, Translator), self)

    def fit(self, model: GANModule, **kwargs: Any) -> None:
        """Train; say where everything is, also when stopped."""
        timed = any(isinstance(callback, Timer | EarlyStopping) for callback in self.trainer.callbacks)
        if self.trainer.max_steps == -1 == self.trainer.max_epochs and not timed:
            say("training has no end until it is stopped: --trainer.max_steps gives it one")
        callbacks.Budget.before_fit = since_start()
        try:
            self.trainer.fit(model, **kwargs | {"weights_only": True})
        except SIGTERMException:
            summarise(self.trainer, self.run.folder)
            stop(self.trainer, self.run.folder, self.typed, SIGNALS.received or signal.SIGTERM, self.model.validated)
        summarise(self.trainer, self.run.folder)

    def validate(self, model: GANModule, **kwargs: Any) -> None:
        """Print the scores."""
        found = getattr(self.trainer, str(self.subcommand))(model, **kwargs | {"weights_only": True, "verbose": False})
        if not any(found):
            say("nothing is scored: --score.num_images and --quality.metrics ask for scores")

    test = validate

    def predict(self, model: GANModule, ckpt_path: str, **kwargs: Any) -> None:
        """Write images: translations of a folder's, or those of the model's own predict_dataloader."""
        assert self.checkpoint is not None
        if self.images.made:
            return say(f"{self.images.zip} is there already, by the same checkpoint and settings")
        trained = None  # which is looked for only where it matters
        if self.datamodule.direction is not None:
            trained = direction_of(self.checkpoint, checkpoints.read(self.checkpoint))
        choose_direction(model, self.datamodule, trained)
        loader = self.datamodule.predict_dataloader() if isinstance(model, Translator) else model.predict_dataloader()
        loader = self.images.left(model, loader, self.trainer)
        self.trainer.predict(model, loader, ckpt_path=ckpt_path, weights_only=True, return_predictions=False)
        self.images.say(self.run.folder)

    @property
    def group(self) -> str:
        """What is trained on what, such as dcgan-mnist; a folder of this name holds the runs."""
        config = self.config[self.subcommand]
        return "-".join(part.class_path.rpartition(".")[2].lower() for part in (config.model, config.data))


def run(words: list[str], only_builds: bool = False) -> "CLI | None":
    """A command line as if it had been typed."""
    sys.argv[1:], CLI.only_builds, CLI.built = words, only_builds, False
    return main()


def main() -> "CLI | None":
    """Run the command line; what the user got wrong ends in one sentence."""
    arguments = [re.sub(r"\A(--[\w.]+\+?=)?(~.*)", lambda m: (m[1] or "") + with_home(m[2]), w) for w in sys.argv[1:]]
    SIGNALS.install()
    try:
        quiet()
        if arguments[:1] and arguments[0] in STUDIES:
            studies(arguments, run, gans.load_to_sample)
            return None
        if arguments[:1] and arguments[0] in SHOWING:
            showing(arguments, Tools(show.load, show.described, folder.write, show.shown, graph.TOLERANCE))
            return None
        if not arguments:
            arguments = ["--help"]
        elif arguments[0] not in SUBCOMMANDS and arguments not in (["-h"], ["--help"]):
            arguments = ["fit", *arguments]
        typed = arguments[1:]
        if arguments[0] in SUBCOMMANDS:
            settings = with_settings_of_run(
                arguments[0], typed, lambda path: checkpoints.settings(checkpoints.read(path))
            )
            arguments = [arguments[0], *settings]
        sys.argv[1:] = arguments
        torch.set_float32_matmul_precision("high")
        return CLI(typed)
    except callbacks.Stopped as stopped:
        SIGNALS.stop_others()
        print(f"stopped by {signal.Signals(stopped.number).name}", file=sys.stderr)
        sys.exit(128 + stopped.number)
    except (MisconfigurationException, callbacks.TrainingDiverged) as error:
        fail(complaint(error, CLI.asked) if is_lightnings(error) else str(error))
    except Exception as error:
        # Before all is built it is about settings; then only what they ask too much of, and all else is our mistake.
        if (sentence := refusal(error, sys.argv, CLI.asked) if CLI.built else of_settings(error)) is None:
            raise
        fail(sentence)


if __name__ == "__main__":
    main()
