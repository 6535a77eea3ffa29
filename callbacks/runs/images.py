"""Images that are asked for on the command line: what is right to ask for, what is there, what is left to be made."""

import hashlib
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, DistributedSampler, Subset

from callbacks.command_line.config_files import options_in
from callbacks.image_writer import UNFINISHED, ImageWriter, files_in, flat
from callbacks.pictures.images import FORMATS
from callbacks.runs.find import run_of
from callbacks.runs.record import say
from callbacks.score import Score

OF_TRAINER = "precision", "limit_predict_batches", "fast_dev_run"  # what images depend on


class Images:
    """What --predict_format and --predict_zip ask for: of ``predict``, or of a training when it has ended.

    Args:
        subcommand: Of the command line.
        config: All its settings.
        typed: Its words after the subcommand.

    Raises:
        MisconfigurationException: There can be no such images.
    """

    def __init__(self, subcommand: str, config: Any, typed: list[str]) -> None:
        given, zip = config.predict_format, config.predict_zip
        self.format = "png" if given is None else str(given).lower()
        self.zip = None if zip is None else Path(zip)
        self.asked = subcommand == "fit" and (given is not None or zip is not None)
        self.writer = ImageWriter()
        self.unfinished: Path | None = None  # folder of the run that made a part of them
        self.source: str | None = None  # folder of images that are translated after training
        if self.format not in FORMATS:
            raise MisconfigurationException(f"--predict_format={given} must be png, jpg or jpeg")
        options = dict(options_in(typed))
        for option in ("--predict_format", "--predict_zip"):
            if subcommand in ("validate", "test") and option in options:
                raise MisconfigurationException(f"{option} must be left out: {subcommand} writes no images")
        of_trainer = {key: getattr(config.trainer, key) for key in ("fast_dev_run", "enable_checkpointing")}
        if self.asked and (of_trainer["fast_dev_run"] or of_trainer["enable_checkpointing"] is False):
            key = next(key for key, value in of_trainer.items() if value is not None and value == (key[0] == "f"))
            raise MisconfigurationException(
                f"--trainer.{key}={str(of_trainer[key]).lower()} leaves no checkpoint to make images by: leave it out, "
                "or --predict_format and --predict_zip"
            )
        if self.zip is not None and subcommand in ("fit", "predict"):
            _check_file(self.zip)

    # Before they are made

    def look(self, record: dict[str, Any], checkpoint: Path, wanted: str | None, group: str) -> None:
        """Find the images of an earlier ``predict`` that was interrupted.

        Args:
            record: All settings; of the model and of what it is given there are the images made.
            checkpoint: The checkpoint.
            wanted: The folder that --run_dir names; by default it is in that of the checkpoint's run.
            group: Else one in this folder of runs.
        """
        given = {key: record.get(key) for key in ("model", "data", "seed_everything")}
        source = (given["data"] or {}).get("init_args", {}).get("predict_dir") or ""
        below = sorted(Path(source).rglob("*")) if source else []
        files = [path for path in (Path(source), *below) if path.is_file()]
        states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in (checkpoint, *files)]
        of_trainer = {key: record["trainer"].get(key) for key in OF_TRAINER}
        made_of = repr((given, of_trainer, states, self.format))
        identity = hashlib.sha256(made_of.encode(errors="surrogateescape")).hexdigest()
        self.writer = ImageWriter(format=self.format, zip=self.zip, identity=identity)
        run = run_of(checkpoint) or Path("runs") / group
        folders = [Path(wanted)] if wanted else sorted(run.glob("predict-*"), reverse=True)
        of_this = (folder for folder in folders if _text(folder / "images" / UNFINISHED) == identity)
        self.unfinished = next(of_this, None)

    @property
    def made(self) -> bool:
        """Whether the zip file is there, made of the same."""
        if self.zip is None or not self.zip.is_file():
            return False
        try:
            with zipfile.ZipFile(self.zip) as packed:
                return packed.comment == self.writer.identity.encode()
        except (OSError, zipfile.BadZipFile):
            return False

    def left(self, module: Any, loader: Any, trainer: Trainer) -> Any:
        """A loader of what is still to be made, and dealt out to the ranks, of one of all images.

        An item of its data set is a name or a batch of numbers, of which the images' names follow.

        Raises:
            MisconfigurationException: Two images would have one name.
        """
        if not hasattr(module, "predict_names"):
            return loader
        items = getattr(loader.dataset, "names", loader.dataset)
        names = [module.predict_names(item) for item in items]
        limit = trainer.limit_predict_batches
        many = limit * trainer.world_size if isinstance(limit, int) else max(1, int(len(names) * limit))
        names, trainer.limit_predict_batches = names[:many], 1.0
        every = [name for of_item in names for name in of_item]
        name, times = Counter(every).most_common(1)[0]
        if times > 1:
            raise MisconfigurationException(f"{times} images would be called {name}: rename what they are made of")
        if self.zip is not None:
            flat(every)
        self.writer.planned = every
        there = files_in(self.unfinished / "images", self.format) if self.unfinished else {}
        todo = [number for number, of_item in enumerate(names) if not there.keys() >= set(of_item)]
        if self.unfinished:
            say(f"{len(there):,} of {len(every):,} images are in {self.unfinished} already")
        if self.zip is not None and self.zip.is_file():
            say(f"{self.zip} holds other images, which the new ones will take the place of")
        todo = todo or [len(names) - 1]  # so that somebody counts and packs them
        return DataLoader(Subset(loader.dataset, todo), sampler=InTurn(len(todo)), collate_fn=loader.collate_fn)

    def say(self, folder: Path) -> None:
        """Where they are."""
        planned = self.writer.planned
        number = f" ({len(planned):,} .{self.format})" if self.zip is not None and planned is not None else ""
        say(f"images           {self.zip or folder / 'images'}{number}")

    # After a training

    def check_source(self, translates: bool, data: Any) -> None:
        """Find out what a model is to translate when it is trained.

        Raises:
            MisconfigurationException: There is nothing.
        """
        if not self.asked or not translates:
            return
        if data.predict_dir is None and not hasattr(type(data), "source_folder"):
            raise MisconfigurationException(
                "the images that are to be translated after training are missing: name their folder with "
                "--data.predict_dir"
            )

    def after_training(self, run: Callable[[list[str]], Any], folder: Path, translates: bool, cli: Any) -> None:
        """Make them by the best checkpoint, or the last, as if that had been typed; score what was made.

        Args:
            run: What takes the words of a command line.
            folder: Of the training.
            translates: Whether images are made of others.
            cli: The training's data module and trainer.
        """
        if not self.asked:
            return
        files = (folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
        words = [f"--config={folder / 'config.yaml'}", f"--ckpt_path={next(filter(Path.is_file, files))}"]
        data = cli.datamodule
        if translates:
            words.append(f"--data.predict_dir={data.predict_dir or data.source_folder}")
        target = data.target_folder if hasattr(type(data), "target_folder") else None
        score = next((c for c in cli.trainer.callbacks if isinstance(c, Score) and c.directions), None)
        made = run(["predict", *words])
        if target and score and cli.trainer.is_global_zero:
            self._score(made.run.folder / "images", target, score)

    def _score(self, images: Path, target: Path, score: Score) -> None:
        from callbacks.scores.compare import score as compare

        with tempfile.TemporaryDirectory() as folder:
            if self.zip is not None:
                images = Path(folder)
                with zipfile.ZipFile(self.zip) as packed:
                    packed.extractall(images)
            try:
                found = compare(target, images, list(score.metrics), score.features, score.weights, seed=score.seed)
            except MisconfigurationException as error:  # such as images of several sizes
                return say(f"the images are not scored: {error}")
        line = "  ".join(f"score/{name} {value:.5g}" for name, value in found.items())
        say(f"of the images    {line}, against {target}")


class InTurn(DistributedSampler):
    """Numbers dealt out to the ranks in turn; where there are fewer than ranks, some get what others have, too.

    Lightning leaves such a sampler as it is, and the ranks are known when it is gone through.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def _mine(self) -> list[int]:
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, ranks = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if several else (0, 1)
        return list(range(rank, self.count, ranks)) or [rank % self.count]

    def __len__(self) -> int:
        return len(self._mine())

    def __iter__(self) -> Iterator[int]:
        return iter(self._mine())

    def set_epoch(self, epoch: int) -> None:
        """The order is always the same."""


def _check_file(path: Path) -> None:
    """Raise MisconfigurationException where a zip file cannot be written."""
    if path.suffix.lower() != ".zip":
        raise MisconfigurationException(f"--predict_zip={path} must end in .zip")
    if path.is_dir():
        raise MisconfigurationException(f"--predict_zip={path} is a folder: name a file")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise MisconfigurationException(
            f"--predict_zip={path} cannot be written to {folder} ({error.strerror}): name a file somewhere else"
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
