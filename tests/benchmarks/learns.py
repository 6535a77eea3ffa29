"""Do they learn? A leaderboard of GANs trained with their configs for a small budget on MNIST or Fashion-MNIST.

    python tests/benchmarks/learns.py [--gans dcgan cgan/mnist ...] [--steps 1000] [--minutes 5] [--out runs/learns]

Every GAN is trained by ``train.py`` in a process of its own, for so many generator steps or minutes, whichever comes
first. Then 10,000 images are drawn from its averaged generator and compared with the test images in the features of a
small classifier, which is trained once on the training images and kept. A row a GAN is printed and written to
``results.csv``: generator steps, seconds of training, real images seen a second, peak memory of the process, the
Fréchet distance beside that of the same generator untrained, the inception score of the classifier in the place of
Inception, and the shares of the least and most frequent class. "asked" is the share of images that the classifier
finds to be of the class asked for; for InfoGAN, of the class that its categorical code stands for most often.
``samples.png`` shows all GANs, a row each. The first row is the test images themselves. Runs that are there already
are not trained again, so a table can be made in several goes.
"""

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import seed_everything
from torch import Tensor
from torchvision.utils import make_grid

import datamodules
import gans
from callbacks.pictures.images import to_uint8, write_png
from callbacks.scores.classifier import SmallClassifier, classifier_of
from callbacks.scores.distances import ClassSums, Moments, frechet_distance
from gans.parts.precision import native_precision
from gans.training.module import GANModule

ROOT = Path(__file__).parents[2]
COUNT = 10_000  # images to score
SHOWN = 20  # images in a row of the picture
COLUMNS = ("gan", "data", "steps", "seconds", "images/s", "peak MiB", "frechet", "untrained", "ratio", "score",
           "least %", "most %", "asked %")  # fmt: skip


def config_files(names: list[str]) -> list[Path]:
    """The configs of GANs given by folder (dcgan) or folder and file (cgan/mnist); all on MNIST's kind by default."""
    configs = ROOT / "configs"
    found = []
    for name in names or sorted(p.name for p in configs.iterdir() if p.is_dir()):
        files = [configs / f"{name}{end}.yaml" for end in ("", "/mnist", "/fashion_mnist")]
        file = next((f for f in files if f.exists()), None)
        if file is None and not names:
            continue  # a GAN that does not turn noise into images
        if file is None:
            sys.exit(f"error: --gans={name} is no config: give a folder of configs with an mnist.yaml or a file in it")
        found.append(file)
    return found


def train(config: Path, run: Path, options: argparse.Namespace) -> float:
    """Run ``train.py`` unless the run is there already; returns the peak memory of the process in MiB."""
    peak = run / "peak_mib.txt"
    if peak.exists():
        return float(peak.read_text())
    hours, minutes = divmod(round(options.minutes * 60), 3600)
    minutes, seconds = divmod(minutes, 60)
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        f"--config={config}",
        f"--run_dir={run}",
        f"--data.data_dir={options.data_dir}",
        f"--trainer.precision={options.precision}",
        f"--trainer.max_steps={options.steps}",
        f"--trainer.max_time=00:{hours:02}:{minutes:02}:{seconds:02}",
        "--trainer.limit_val_batches=0",
        "--trainer.logger=false",
        "--score.num_images=0",
        f"--seed_everything={options.seed}",
        *options.override,
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: the training of {config} failed")
    megabytes = usage.ru_maxrss / 1024
    peak.write_text(str(megabytes))
    return megabytes


def trained_seconds(checkpoint: dict[str, Any]) -> float:
    """How long the training that wrote a checkpoint took."""
    timer = next(state for key, state in checkpoint["callbacks"].items() if key.startswith("Timer"))
    return timer["time_elapsed"]["train"]


def load(run: Path, trained: bool) -> GANModule:
    """The model of a run, with its last weights or as it was before training."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    cls = getattr(gans, config["model"]["class_path"].rpartition(".")[2])
    path = run / "checkpoints/last.ckpt"
    if trained:
        return cls.load_to_sample(path)
    seed_everything(0, verbose=False)
    return cls.untrained(torch.load(path, weights_only=True)).eval()


def draw(model: GANModule) -> tuple[Tensor, Tensor | None]:
    """COUNT uint8 images, and the class asked for (or the categorical code) of each where there is one."""
    torch.manual_seed(0)
    images, asked = [], []
    for _ in range(0, COUNT, 500):
        noise = model.noise(500)
        images.append(to_uint8(model.sample_from(noise)))
        if model.num_classes:
            asked.append(torch.arange(500) % model.num_classes)
        elif isinstance(model, gans.InfoGAN):
            asked.append(noise[:, : model.categories].argmax(1))
    return torch.cat(images), torch.cat(asked) if asked else None


@torch.no_grad()
def look(images: Tensor, classifier: SmallClassifier) -> tuple[Moments, ClassSums, Tensor]:
    """Sums of the images' features, sums of their class probabilities, and their classes (N,)."""
    moments, sums, classes = Moments(128, images.device), ClassSums(classifier.head.out_features, images.device, 1), []
    for part in images.split(500):
        features, logits = classifier(part)
        moments.update(features)
        sums.update(logits, torch.zeros(len(part), dtype=torch.long))
        classes.append(logits.argmax(1))
    return moments, sums, torch.cat(classes)


def agreement(classes: Tensor, asked: Tensor, by_majority: bool) -> float:
    """Share of images of the class asked for; by majority, a code asks for the class most of its images are of."""
    counts = torch.zeros(int(asked.max()) + 1, int(classes.max()) + 1, dtype=torch.long)
    counts.index_put_((asked, classes), torch.ones_like(classes), accumulate=True)
    right = counts.amax(1).sum() if by_majority else counts.diagonal().sum()
    return 100 * right.item() / len(classes)


def row_of(images: Tensor, asked: Tensor | None, classifier: SmallClassifier, real: Moments, majority: bool) -> dict:
    """The columns that depend on the images alone."""
    moments, sums, classes = look(images, classifier)
    shares = 100 * classes.bincount(minlength=classifier.head.out_features) / len(classes)
    row: dict[str, Any] = {
        "frechet": frechet_distance(*real.compute(), *moments.compute()).item(),
        "score": sums.compute()[0].item(),
        "least %": shares.min().item(),
        "most %": shares.max().item(),
    }
    if asked is not None:
        row["asked %"] = agreement(classes, asked, majority)
    return row


def line_of(row: dict[str, Any]) -> str:
    """A row of the table as text."""
    cells = []
    for column in COLUMNS:
        value = row.get(column, "")
        if isinstance(value, float):
            value = f"{value:.3f}" if column in ("frechet", "untrained", "ratio", "score") else f"{value:.1f}"
        cells.append(f"{value:<28}" if column == "gan" else f"{value:>13}" if column == "data" else f"{value:>9}")
    return " ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gans", nargs="*", default=[], help="folders or files of configs; default: one a folder")
    parser.add_argument("--steps", type=int, default=100_000, help="generator steps")
    parser.add_argument("--minutes", type=float, default=5.0, help="minutes of training")
    parser.add_argument("--precision", default=native_precision())
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--out", default="runs/learns", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options, options.override = parser.parse_known_args()  # others go to train.py, such as --data.batch_size=32
    options.data_dir, options.out = str(Path(options.data_dir).resolve()), options.out.resolve()
    began = time.perf_counter()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{options.minutes:g} min or {options.steps:,} steps, {options.precision}, seed {options.seed}, {device}")
    print(line_of({column: column for column in COLUMNS}), flush=True)
    rows: list[dict[str, Any]] = []
    strips: list[Tensor] = []
    real: dict[tuple[str, int], tuple[SmallClassifier, Moments]] = {}
    for config in config_files(options.gans):
        settings = yaml.safe_load(config.read_text())["data"]
        kind, size = settings["class_path"].rpartition(".")[2], settings["init_args"]["image_size"]
        name = str(config.relative_to(ROOT / "configs").with_suffix(""))
        if (kind, size) not in real:
            # One classifier a data set, at 32 px, for images of any size.
            data = [
                getattr(datamodules, kind)(data_dir=options.data_dir, image_size=s, batch_size=500) for s in (32, size)
            ]
            for module in data:
                module.prepare_data()
            classifier = classifier_of(data[0], Path("~/.cache/gan-lab").expanduser())
            test, labels = map(torch.cat, zip(*data[1].val_dataloader(), strict=True))
            real[kind, size] = classifier, look(test, classifier)[0]
            row = {"gan": f"test images, {size} px", "data": kind}
            rows.append(row | row_of(test, labels, classifier, real[kind, size][1], majority=False))
            strips.append(test[:SHOWN])
            print(line_of(rows[-1]), flush=True)
        classifier, reference = real[kind, size]
        run = options.out / name.replace("/", "-")
        peak = train(config, run, options)
        checkpoint = torch.load(run / "checkpoints/last.ckpt", map_location="cpu", weights_only=True)
        seconds, steps = trained_seconds(checkpoint), checkpoint["global_step"]
        batch = yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]["batch_size"]
        model, untrained = load(run, trained=True), load(run, trained=False)
        majority = isinstance(model, gans.InfoGAN)
        images, asked = draw(model)
        row = {
            "gan": name,
            "data": kind,
            "steps": steps,
            "seconds": seconds,
            "images/s": steps * batch / seconds,
            "peak MiB": peak,
            **row_of(images, asked, classifier, reference, majority),
            "untrained": row_of(*draw(untrained), classifier, reference, majority)["frechet"],
        }
        row["ratio"] = row["frechet"] / row["untrained"]
        rows.append(row)
        strips.append(images[:SHOWN])
        print(line_of(row), flush=True)
        write(options.out, rows, strips)
    print(f"{options.out}/results.csv and samples.png ({time.perf_counter() - began:.0f} s)")


def write(folder: Path, rows: list[dict[str, Any]], strips: list[Tensor]) -> None:
    """The table so far as CSV, and the picture: a row a line of the table, all at 32 px."""
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    padded = [torch.nn.functional.pad(s, [(32 - s.shape[-1]) // 2] * 4) for s in strips]
    write_png(make_grid(torch.cat(padded), nrow=SHOWN, pad_value=255)[:1], folder / "samples.png")


if __name__ == "__main__":
    main()
