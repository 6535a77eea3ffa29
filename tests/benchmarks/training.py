"""What the benchmarks of learning share: ``train.py`` in a process of its own, for so many images or so much time.

A run keeps what its generator was like after 25,000 images, 50,000 and so on, in ``RUN/marks``; a run that was cut off
goes on, and one that is finished is not trained again. ``RUN/asked.yaml`` says what was asked of it, so that neither is
taken for a run with other settings.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback

ROOT = Path(__file__).parents[2]
FIRST = 25_000  # images at the first mark; each is at twice the one before


def positive(text: str) -> int:
    """A whole number from 1 on, for options of a command line."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def duration(text: str) -> float:
    """Minutes, more than none."""
    if not 0 < (number := float(text)) < float("inf"):
        raise ValueError
    return number


def seed(text: str) -> int:
    """A whole number from 0 on."""
    if (number := int(text)) < 0:
        raise ValueError
    return number


class Marks(Callback):
    """Write the generator (its average, where there is one) at every mark and at the end, which is here, too.

    Args:
        folder: Where to.
        images: Real images after which training ends.
        minutes: Minutes of processor time after which it ends in any case.
    """

    def __init__(self, folder: str, images: int, minutes: float) -> None:
        self.folder, self.images, self.minutes = Path(folder), images, minutes
        self.seconds = 0.0  # of processor time, without what came before training

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": time.process_time() - self.began}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds = state["seconds"]

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.began = time.process_time() - self.seconds
        self.next = FIRST
        while self.next <= module.images_seen:
            self.next *= 2

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        seconds, seen = time.process_time() - self.began, module.images_seen
        over = seen >= self.images or seconds >= 60 * self.minutes or trainer.global_step >= trainer.max_steps
        if seen < self.next and not over:
            return
        name = "end" if over else str(self.next)
        network = module.generator if module.averaged_generator is None else module.averaged_generator
        found = {"generator": network.state_dict(), "images": seen, "seconds": seconds, "steps": trainer.global_step}
        torch.save(found, self.folder / f"{name}.partial")
        (self.folder / f"{name}.partial").rename(self.folder / f"{name}.pt")
        while self.next <= seen:
            self.next *= 2
        trainer.should_stop = trainer.should_stop or over


def asked_of(config: Path, run: Path, options: list[str], images: int, minutes: float, seed: int) -> dict[str, Any]:
    """What a run is asked for, see ``train``.

    Raises:
        SystemExit: The run is there with other settings.
    """
    asked = {"config": yaml.safe_load(config.read_text()), "options": options, "images": images, "minutes": minutes}
    asked["seed"] = seed
    kept = run / "asked.yaml"
    before = yaml.safe_load(kept.read_text()) if kept.exists() else asked
    if other := [name for name in asked if before.get(name) != asked[name]]:
        told = f"{run} was trained with other settings ({', '.join(other)}), those in its asked.yaml"
        sys.exit(f"error: {told}; give another --out, or delete it")
    return asked


def train(config: Path, run: Path, options: list[str], images: int, minutes: float, seed: int) -> None:
    """Train with a config until the run has a last mark, with one thread on a CPU.

    Steps are not limited by the config, but may be by the options.

    Args:
        config: The configuration.
        run: The run's folder.
        options: Further ones of ``train.py``.
        images: Real images to see.
        minutes: Minutes of processor time after which training ends in any case.
        seed: Of the run.

    Raises:
        SystemExit: The run is there with other settings, or the training was not finished.
    """
    asked = asked_of(config, run, options, images, minutes, seed)
    if (run / "marks/end.pt").exists() and (run / "checkpoints/last.ckpt").exists():
        return
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        f"--config={config}",
        f"--run_dir={run}",
        "--ckpt_path=last",
        f"--seed_everything={seed}",
        "--trainer.max_steps=1000000000",
        "--trainer.limit_val_batches=0",
        "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
        "--trainer.callbacks+=training.Marks",
        f"--trainer.callbacks.folder={run}/marks",
        f"--trainer.callbacks.images={images}",
        f"--trainer.callbacks.minutes={minutes}",
        "--score.num_images=0",
        *options,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    run.mkdir(parents=True, exist_ok=True)
    (run / "asked.yaml").write_text(yaml.safe_dump(asked))
    with (run.parent / f"{run.name}.log").open("w") as log:
        status = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log).returncode
    if status or not (run / "marks/end.pt").exists():
        tail = "".join((run.parent / f"{run.name}.log").read_text().splitlines(keepends=True)[-5:])
        sys.exit(f"error: the training of {config} was not finished:\n{tail}")


def marks(run: Path) -> list[dict[str, Any]]:
    """What the marks of a run hold, in the order of images seen."""
    found = (torch.load(path, map_location="cpu", weights_only=True) for path in (run / "marks").glob("*.pt"))
    return sorted(found, key=lambda mark: mark["images"])
