"""A model out of a checkpoint: to sample from it, or to train it further."""

import copy
import inspect
import json
from pathlib import Path
from typing import Any, Self

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.parsing import collect_init_args
from torch import Tensor, nn

from gans.training.checkpoints import (
    FACTORIES,
    described,
    is_named,
    is_plain,
    name_of,
    parts_of,
    path_of,
    plain_arguments,
    read,
    read_export,
    rebuilt,
)
from gans.training.players import made, records_of

LOCAL = "pretrained", "vgg_weights"  # settings of training alone, which name files of one machine


class Loadable(LightningModule):
    """What of a GANModule has to do with its settings, and with building it again from them."""

    generator: nn.Module
    averaged_generator: nn.Module | None
    trained_steps: int
    """Generator updates behind the weights that were loaded; 0 for a new model."""

    def __init__(self) -> None:
        super().__init__()
        self.averaged_generator = None
        self.trained_steps = 0
        self._averaging = False  # whether somebody keeps the average up to date
        self._only_samples = False
        self._trained_with: dict[str, Any] = {}  # how optimizers and schedules were, of a model that was loaded

    # Settings

    def keep_settings(self) -> None:
        """Called in the constructor: note what its caller gave it, for checkpoints and for loading them."""
        self.save_hyperparameters()
        frame = inspect.currentframe()
        # The last is the call of the class itself; what it gives to its bases it will give them again.
        given = collect_init_args(frame, [], classes=(Loadable,))[-1]  # type: ignore[arg-type]
        # Checkpoints are read with weights_only=True, so they hold plain values and no Python objects.
        for name, value in list(self.hparams.items()):
            if not is_plain(value) or (name not in given and not name.startswith("_")):
                del self.hparams[name]
        parts = {name: value for name, value in given.items() if not name.endswith(FACTORIES) and not is_plain(value)}
        self._parts = {name: described(value) for name, value in parts.items()}

    # Averaging

    def start_averaging(self) -> None:
        """Give the module an ``averaged_generator``, a copy of the generator as it is now, unless it has one.

        Whoever calls this keeps it up to date in the next training.
        """
        self._averaging = True
        self._copy_generator()

    def _copy_generator(self) -> None:
        if self.averaged_generator is None:
            self.averaged_generator = copy.deepcopy(self.generator).requires_grad_(False)

    # Loading

    @classmethod
    def untrained(cls, checkpoint: dict[str, Any], **kwargs: Any) -> tuple[Self, dict[str, str]]:
        """A new model with the settings that a loaded checkpoint keeps; ``kwargs`` replace them.

        Returns:
            The model, and the class paths of losses and penalties that are none of the lab's, by the argument's name:
            these are left at the class's defaults.

        Raises:
            MisconfigurationException: A setting is of no type that the class takes, or out of range.
        """
        found = {name: part for name, part in parts_of(checkpoint).items() if name not in kwargs}
        built = {name: rebuilt(name, part) for name, part in found.items()}
        known = plain_arguments(cls, checkpoint) | {name: part for name, part in built.items() if part is not None}
        model = made(f"No {cls.__name__} can be built with the checkpoint's settings", cls, **known | kwargs)
        model._trained_with = {
            f"{player}_{kind}": record
            for player, records in records_of(checkpoint["gan"]).items()
            for kind, record in records.items()
            if f"{player}_{kind}" not in kwargs
        }
        return model, {name: path_of(found[name]) for name, part in built.items() if part is None}

    @classmethod
    def load_to_sample(cls, path: str | Path, average: bool = True, map_location: Any = "cpu", **kwargs: Any) -> Self:
        """Build the model that a checkpoint was saved from, in eval mode, ready for ``sample`` or ``translate``.

        Nothing that the file names is imported or called. Losses that are not the lab's are left at the class's
        defaults, and so it cannot be trained.

        Args:
            path: A file written by the trainer.
            average: Sample from the averaged generator where the checkpoint holds one; ``False`` takes the raw one.
            map_location: Device for the weights.
            **kwargs: Constructor arguments that replace the saved ones.

        Raises:
            MisconfigurationException: There is no such file, or it holds another kind of model, weights of other shapes
                or settings that the class does not take.
        """
        model = cls._filled(path, map_location, kwargs)[0]
        if not average:
            model.averaged_generator = None
        model._only_samples = True
        return model.eval()

    @classmethod
    def load_to_train(cls, path: str | Path, map_location: Any = "cpu", **kwargs: Any) -> Self:
        """Build the model that a checkpoint was saved from, to train it further with a new trainer.

        Nothing that the file names is imported or called: optimizers and schedules are those of the class unless they
        are given here, and a warning says where others were used before. To go on with a run as if it had never
        stopped, give its checkpoint to ``trainer.fit(model, data, ckpt_path=...)`` instead.

        Args:
            path: A file written by the trainer.
            map_location: Device for the weights.
            **kwargs: Constructor arguments that replace the saved ones.

        Raises:
            MisconfigurationException: See ``load_to_sample``; or the model was trained with a loss or penalty that is
                none of the lab's, and it is not given here.
        """
        model, missing = cls._filled(path, map_location, kwargs)
        for name, part in missing.items():
            raise MisconfigurationException(
                f"The model was trained with {name}={part}, which is none of the lab's and so was not built again: to "
                f"train it further, give {name}= to load_to_train."
            )
        return model.train()

    load_from_checkpoint = load_to_train  # type: ignore[assignment]  # Lightning's name for it

    def metadata(self) -> dict[str, str]:
        """What ``from_export`` builds the model with: plain settings, as the texts that a safetensors file keeps."""
        gan = {
            "class": name_of(type(self)),
            "settings": {name: value for name, value in self.hparams.items() if name not in LOCAL},
            "parts": self._parts,
            "step": self.trained_steps,
            "images_seen": self.images_seen,
        }
        return {"format": "pt", "gan": json.dumps(gan)}

    @classmethod
    def from_export(cls, folder: str | Path) -> Self:
        """Build the model of an exported folder, in eval mode, ready for ``sample`` or ``translate``.

        Its generator is the one that was exported; all other networks are as they begin, so it cannot be trained.
        Nothing is unpickled, and nothing that the file names is imported or called.

        Args:
            folder: What ``python train.py export`` wrote, or ``generator.safetensors`` in it.

        Raises:
            MisconfigurationException: There is no such file, it holds another kind of model or weights of other shapes,
                or the package safetensors is missing.
        """
        found, weights = read_export(folder)
        if not is_named(cls, found["gan"]["class"]):
            raise MisconfigurationException(f"{folder} holds a {found['gan']['class']}, and not a {cls.__name__}")
        model, _ = cls.untrained(found)
        own = model.generator.state_dict()
        for key in own | weights:
            here, there = (tuple(d[key].shape) if key in d else "missing" for d in (own, weights))
            if here != there:
                raise MisconfigurationException(
                    f"{folder} is damaged: {key} is {there} there and {here} in a {cls.__name__} of its settings"
                )
        model.generator.load_state_dict(weights)
        model.trained_steps = found["global_step"]
        model.images_seen = found["gan"]["images_seen"]
        model.restored()
        model._only_samples = True
        return model.eval()

    @classmethod
    def _filled(cls, path: str | Path, map_location: Any, given: dict[str, Any]) -> tuple[Self, dict[str, str]]:
        checkpoint = read(path, map_location)
        model, missing = cls.untrained(checkpoint, **given)
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
        return model.to(map_location), missing

    def _load_average(self, weights: dict[str, Tensor], drop: bool) -> None:
        """Agree with a checkpoint's weights on whether there is an average."""
        average = "averaged_generator."
        saved = [key for key in weights if key.startswith(average)]
        if saved and drop:
            rank_zero_info("Nothing keeps the checkpoint's averaged generator up to date any more, so it is dropped.")
            for key in saved:
                del weights[key]
        elif saved:
            self._copy_generator()
        elif self.averaged_generator is not None:  # averaging begins with this run
            raw = {key: value for key, value in weights.items() if key.startswith("generator.")}
            weights |= {average + key.removeprefix("generator."): value for key, value in raw.items()}

    def _check_shapes(self, weights: dict[str, Tensor]) -> None:
        own = self.state_dict()
        for key in own | weights:
            here, there = (tuple(getattr(d[key], "shape", ())) if key in d else "missing" for d in (own, weights))
            if here != there:
                raise MisconfigurationException(
                    f"The checkpoint does not fit this {type(self).__name__}: {key} is {there} in the checkpoint and "
                    f"{here} in the model; give --model and --data the settings the checkpoint was trained with."
                )
