"""What is known of a model beside its weights: from the run that wrote its checkpoint, read as data."""

import base64
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.command_line.classes import CLASSES
from callbacks.runs.find import config_of, read_config, run_of
from callbacks.runs.record import say
from callbacks.scores.history import history_in


@dataclass(frozen=True)
class Facts:
    """What a run says of a moment.

    Attributes:
        data: Name of the data set; empty where nobody knows.
        data_class: Its class, if it is the lab's.
        sides: What its two domains are, A and B, where it has such.
        direction: From which of its domains to which the model was trained to translate, if it has such.
        settings: The data's settings.
        scores: Scores by name.
        protocols: What they depend on.
        versions: Of the programs.
        command: By which the run was begun; empty where nobody knows.
    """

    data: str = ""
    data_class: Any = None
    sides: tuple[str, str] = ("A", "B")
    direction: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""


def facts_of(checkpoint: Path, step: int) -> Facts:
    """What the run of a checkpoint says of it; nothing of one that lies apart.

    Args:
        checkpoint: The file.
        step: Generator updates behind it: scores of other moments are not its own.
    """
    path, run = config_of(checkpoint), run_of(checkpoint)
    try:
        config = {} if path is None else read_config(path)
        versions = yaml.safe_load((run / "versions.yaml").read_text()) if run else {}
    except (MisconfigurationException, OSError, yaml.YAMLError) as error:
        say(f"what is known of the run is left out: {' '.join(str(error).split())[:200]}")
        config, versions = {}, {}
    data = config.get("data")
    data = data if isinstance(data, dict) else {}
    name = str(data.get("class_path", "")).rpartition(".")[2]
    settings = data.get("init_args")
    settings = settings if isinstance(settings, dict) else {}
    versions = {str(k): str(v) for k, v in versions.items() if v} if isinstance(versions, dict) else {}
    scores: dict[str, float] = {}
    protocols: dict[str, dict[str, Any]] = {}
    for kind in ("scores", "quality") if run else ():
        files = [run / f"{kind}.json", *sorted(run.glob(f"*/{kind}.json"))]  # type: ignore[operator, union-attr]
        histories = [found[0] for found in map(history_in, files) if found]
        entries = [entry for history in histories for entry in history if entry["step"] == step]
        for entry in entries[-1:]:  # the run's own, or a later evaluation's
            scores |= {k: float(v) for k, v in entry["scores"].items() if v is not None and math.isfinite(v)}
            if isinstance(entry.get("protocol"), dict):
                protocols[kind] = entry["protocol"]
    cls = CLASSES.get("data", {}).get(name)
    return Facts(
        name,
        cls,
        getattr(cls, "sides", ("A", "B")),
        settings.get("direction") if settings.get("direction") in ("AtoB", "BtoA") else None,
        settings,
        scores,
        protocols,
        {k: v for k, v in versions.items() if k != "command"},
        versions.get("command", ""),
    )


def lines(facts: Facts, values: dict[str, Any]) -> list[str]:
    """What is said of a model in brief, beside its name, its data and its step: images seen, and scores."""
    said = [f"{values['images_seen']:,} images seen"]
    images = next((p["generated_images"] for p in facts.protocols.values() if "generated_images" in p), None)
    scored = [f"{name.partition('/')[2]} {value:.4g}" for name, value in facts.scores.items()]
    if scored:
        of = f" (of {images:,} images)" if isinstance(images, int) else ""
        said.append(f"{', '.join(scored)}{of}")
    return said


def neighbors(checkpoint: Path, step: int) -> dict[str, Any] | None:
    """What a run has found of training images near to samples of its own, at this step; None if nothing.

    Returns:
        The "space" in which they are near, and of each sample its "noise", its "label" and the training images
        "nearest" to it side by side, as the address of a PNG.
    """
    run = run_of(checkpoint)
    found = (
        sorted(run.glob(f"**/neighbors/*_step_{step:07d}.npz"), key=lambda p: p.name.startswith("pixels"))
        if run
        else []
    )
    for path in found:  # in features rather than in pixels
        try:
            with np.load(path, allow_pickle=False) as arrays:
                images, noise, label = (arrays[name] for name in ("images", "noise", "label"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # damaged, or of a GAN that has no noise
            continue
        rows = [np.concatenate(list(row[1:]), axis=2) for row in images]
        pictures = [png_of(torch.from_numpy(row)) for row in rows]
        samples = [
            {"noise": z.tolist(), "label": int(n), "nearest": f"data:image/png;base64,{base64.b64encode(p).decode()}"}
            for z, n, p in zip(noise, label, pictures, strict=True)
        ]
        return {"space": path.name.partition("_step_")[0], "samples": samples}
    return None


def png_of(image: torch.Tensor) -> bytes:
    """A uint8 image (C, H, W) as a PNG file."""
    from torchvision.io import encode_png

    return bytes(encode_png(image).numpy())
