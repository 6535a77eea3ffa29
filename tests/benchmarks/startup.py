"""Seconds until something is to be seen, beside what it takes to import PyTorch and Lightning.

    python tests/benchmarks/startup.py [--turns 5]

The commands take turns, each in a process of its own; medians over all turns, and medians of the ratios to the import
in the same turn. The first step is that of the quickstart: the whole of a run of one step, without pictures or scores.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine
from tqdm import tqdm

TRAIN = str(Path(__file__).parents[2] / "train.py")
QUICKSTART = str(Path(__file__).parents[2] / "configs/quickstart.yaml")
ONE_STEP = ["--trainer.max_steps=1", "--trainer.logger=false", "--score.num_images=0", "--samples.every_n_steps=0"]
COMMANDS = {
    "import torch, lightning": ["-c", "import torch, lightning"],
    "train.py --help": [TRAIN, "--help"],
    "train.py fit --help": [TRAIN, "fit", "--help"],
    "train.py, first step": [TRAIN, "--config", QUICKSTART, *ONE_STEP],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", default=5, type=int)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in tqdm(range(options.turns + 1), desc="turns", leave=False):
            for name, arguments in COMMANDS.items():
                began = time.perf_counter()
                subprocess.run([sys.executable, *arguments], cwd=folder, check=True, capture_output=True)
                if turn:  # the first turn fetches files from the disk
                    seconds[name].append(time.perf_counter() - began)
    print(f"{machine()}\n\n| Command | Seconds | Beside the import |\n|---|---|---|")
    reference = seconds["import torch, lightning"]
    for name, values in seconds.items():
        ratio = statistics.median(v / r for v, r in zip(values, reference, strict=True))
        bar = " (bar 1.25)" if name == "train.py --help" else ""
        print(f"| `{name}` | {statistics.median(values):.1f} | {ratio:.2f}{bar} |")


if __name__ == "__main__":
    main()
