"""Train, score and sample GANs from configuration files; ``python train.py --help`` shows how."""

import netrc
import os
import re
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

import datamodules  # noqa: F401  (so that --data MNIST finds its class)
import gans  # noqa: F401  (so that --model DCGAN finds its class)
from callbacks import (
    EMA,
    AtomicCheckpointIO,
    BestCheckpoint,
    ImageWriter,
    LastCheckpoint,
    MetricsFile,
    Progress,
    Samples,
    Score,
)
from datamodules.base import ImageDataModule
from gans.base import AdversarialModule

SUBCOMMANDS = ("fit", "validate", "test", "predict")
DESCRIPTION = """
Train, score and sample GANs. Without a subcommand it trains:

  python train.py --config configs/quickstart.yaml
  python train.py --config configs/dcgan/mnist.yaml --data.batch_size=32 --trainer.max_steps=1000
  python train.py --config configs/dcgan/mnist.yaml --config mine.yaml      (later files win)
  python train.py --config configs/dcgan/image_folder.yaml --data.data_dir=my_images --data.image_size=64
  python train.py --config configs/dcgan/mnist.yaml --model.generator_optimizer.lr=1e-4
  python train.py --config configs/dcgan/mnist.yaml --model.generator_optimizer=torch.optim.RMSprop
  python train.py --config configs/dcgan/mnist.yaml --trainer.devices=2 --trainer.precision=bf16-mixed
  python train.py --config configs/dcgan/mnist.yaml --ckpt_path=last        (goes on where the newest run stopped)
  python train.py --config configs/dcgan/mnist.yaml --print_config          (the complete settings, nothing run)

From a checkpoint, with the settings of the run that wrote it:

  python train.py validate --ckpt_path=RUN/checkpoints/best.ckpt            (prints the scores)
  python train.py predict --ckpt_path=RUN/checkpoints/best.ckpt --model.predict_images=1000

All settings of a subcommand, with what they mean: python train.py fit --help
"""


class Parser(LightningArgumentParser):
    """Says what is wrong in one sentence, without the page of usage before it."""

    def error(self, message: str, ex: Exception | None = None) -> None:
        sys.exit(f"error: {message}")


class SaveConfig(SaveConfigCallback):
    """Keep the complete configuration in the run folder and in the loggers, without secrets."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        import yaml

        config = without_secrets(yaml.safe_load(self.parser.dump(self.config, skip_none=False)))
        for key in ("ckpt_path", "run_dir"):  # where this run stands, not what it does
            config.pop(key, None)
        path = Path(trainer.default_root_dir) / "config.yaml"
        if not path.exists():  # a resumed run keeps the file it began with
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(config, sort_keys=False))
        for logger in trainer.loggers:
            logger.log_hyperparams(config)


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
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_lightning_class_args(Score, "score")
        parser.add_lightning_class_args(LastCheckpoint, "last")
        parser.add_lightning_class_args(BestCheckpoint, "best")
        parser.link_arguments("data.image_shape", "model.init_args.image_shape", apply_on="instantiate")
        parser.link_arguments("score.monitor", "best.monitor", apply_on="instantiate")
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
        """Write images: those of the model's own predict_dataloader, which needs no data set."""
        self.trainer.predict(model, dataloaders=model.predict_dataloader(), ckpt_path=ckpt_path, weights_only=True)
        say(f"images           {self.run_dir}/images")

    @property
    def name(self) -> str:
        """What is trained on what, such as dcgan-mnist; a folder of this name holds the runs."""
        config = self.config[self.subcommand]
        return "-".join(part.class_path.rpartition(".")[2].lower() for part in (config.model, config.data))


def find_checkpoint(wanted: str | None, run_dir: str | None, name: str = "*") -> Path | None:
    """The file that --ckpt_path names: a path, or the last or best checkpoint of a run (the newest, unless named).

    Raises:
        MisconfigurationException: There is no such file.
    """
    if wanted is None:
        return None
    if wanted not in ("last", "best"):
        if not Path(wanted).is_file():
            raise MisconfigurationException(f"--ckpt_path={wanted} does not exist; give a .ckpt file, last or best")
        return Path(wanted)
    pattern = f"checkpoints/{wanted}.ckpt"
    found = Path(run_dir).glob(pattern) if run_dir else Path("runs").glob(f"{name}/*/{pattern}")
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise MisconfigurationException(
            f"--ckpt_path={wanted} finds no {pattern} in {run_dir or f'runs/{name}/*'}: "
            "name the run with --run_dir or give the file itself"
        )
    return newest


def run_of(checkpoint: Path | None) -> Path | None:
    """The folder of the run that wrote a checkpoint; None for a file that was moved away from its run."""
    if checkpoint is None or checkpoint.parent.name != "checkpoints":
        return None
    run = checkpoint.parent.parent
    return run if (run / "config.yaml").exists() else None


def run_folder(subcommand: str, checkpoint: Path | None, wanted: str | None, name: str) -> Path:
    """Where this run keeps its files: a resumed run in the folder it began in, any other in a new one.

    Raises:
        MisconfigurationException: The folder asked for holds another run.
    """
    began = run_of(checkpoint)
    now = f"{datetime.now():%Y%m%d-%H%M%S}"
    if subcommand != "fit":
        return Path(wanted) if wanted else (began or Path("runs") / name) / f"{subcommand}-{now}"
    if wanted is None:
        return began or Path("runs") / name / now
    if (Path(wanted) / "config.yaml").exists() and began != Path(wanted):
        raise MisconfigurationException(
            f"--run_dir={wanted} already holds a run: add --ckpt_path=last to go on with it, or name another folder"
        )
    return Path(wanted)


def with_settings_of_run(arguments: list[str]) -> list[str]:
    """Put the configuration that a checkpoint's run has kept in front, where the command line names none."""
    options = {}
    for option in ("--config", "-c", "--ckpt_path", "--run_dir"):
        for i, argument in enumerate(arguments):
            key, equals, value = argument.partition("=")
            if key == option:
                options[option] = value if equals else "".join(arguments[i + 1 : i + 2])
    if "--config" in options or "-c" in options or "--ckpt_path" not in options:
        return arguments
    checkpoint = find_checkpoint(options["--ckpt_path"], options.get("--run_dir"))
    run = run_of(checkpoint)
    if run is None:
        raise MisconfigurationException(
            f"--ckpt_path={checkpoint} has no config.yaml of its run beside it: give the configuration with --config"
        )
    return [f"--config={run / 'config.yaml'}", *arguments]


def prepare_wandb(loggers: Any, run_dir: Path) -> None:
    """Let Weights & Biases write into the run folder, under one id a run, and offline where there is no account."""
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if not str(getattr(logger, "class_path", "")).endswith("WandbLogger"):
            continue
        settings = logger.init_args
        settings.save_dir = str(run_dir)
        settings.name = settings.name or run_dir.name
        if not os.environ.get("WANDB_MODE") and not settings.offline and not has_wandb_key():
            os.environ["WANDB_MODE"] = "offline"
            say("no Weights & Biases account found (wandb login): logging offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        run_dir.mkdir(parents=True, exist_ok=True)


def has_wandb_key() -> bool:
    """Whether Weights & Biases would find a key without asking for one."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def without_secrets(config: Any) -> Any:
    """The configuration with the values of keys such as api_key, token or password left out."""
    if isinstance(config, list):
        return [without_secrets(value) for value in config]
    if not isinstance(config, dict):
        return config
    secret = re.compile(r"(^|_)(api_?key|token|password|secret)($|_)", re.IGNORECASE)
    return {key: "***" if value and secret.search(key) else without_secrets(value) for key, value in config.items()}


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
    except MisconfigurationException as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
