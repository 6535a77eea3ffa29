"""Do they learn? A leaderboard of GANs trained with their configs on MNIST, Fashion-MNIST or CIFAR-10.

    python tests/benchmarks/learns.py [--gans dcgan cgan/mnist ...] [--seeds 0 1 2] [--jobs 2] [--out runs/learns]

Every GAN is trained by ``train.py`` in processes of one thread, a seed each, on so many real images (``--images``, or
what BUDGETS says) or until so many minutes of processor time are over (``--minutes``). From its generator, the averaged
one, 10,000 images are drawn at every mark (25,000 images, 50,000 and so on) and at the end, and compared with the test
images in the features of a small classifier, which is trained once on the training images and kept.

A table is printed, medians over the seeds with the least and the largest: minutes of processor time; Fréchet distances
after 50,000 images, at the best mark and at the end; "ratio", the last one over that of the same generator untrained;
the shares of the rarest and the most frequent class; and "as asked", the images that the classifier finds to be of the
class asked for; InfoGAN's categories are matched with a class each. ``results.csv`` has a line a mark,
``curves.png`` shows distances over images seen, and ``samples.png`` all GANs, a row each, the test images first.

Runs that were cut off go on, and those that are finished are not trained again, so a table can be made in several goes.
CIFAR-10 is read from folders of JPEG files where DATA_DIR/cifar10/train is there.
"""

import argparse
import csv
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from lightning.pytorch import seed_everything
from machine import machine
from torch import Tensor
from torchvision.io import read_image
from torchvision.utils import make_grid
from training import ROOT, asked_of, duration, marks, positive, seed, train

import datamodules
import gans
from callbacks.pictures.curves import curves
from callbacks.pictures.images import labelled, to_uint8, write_image
from callbacks.scores.classifier import SmallClassifier, classifier_of
from callbacks.scores.collect import Collected
from callbacks.scores.distances import ClassSums, Moments, frechet_distance
from callbacks.scores.metrics import ClassAccuracy
from gans.parts.precision import native_precision
from gans.training.module import GANModule
from gans.training.noise import Sampler

COUNT = 10_000  # images to score
SHOWN = 20  # images in a row of the picture
EQUAL = 50_000  # images seen at which all GANs are compared
# Real images that each is trained on: what it needs, and no more than a quarter of an hour of one core takes, on
# CIFAR-10 three.
BUDGETS = {
    "acgan/mnist": 300_000,
    "cgan/cifar10_small": 1_000_000,
    "cgan/convolutional_mnist": 250_000,
    "cgan/mnist": 700_000,
    "dcgan/cifar10_small": 1_000_000,
    "dcgan/mnist": 200_000,
    "gan/mnist": 600_000,
    "infogan/mnist": 500_000,
    "lsgan/mnist": 100_000,
    "r3gan/cifar10_small": 180_000,
    "r3gan/mnist": 80_000,
    "realness_gan/mnist": 250_000,
    "sagan/cifar10_small": 320_000,
    "sagan/mnist": 80_000,
    "stylegan/dcgan_mnist": 200_000,
    "stylegan/mnist": 100_000,
    "wgan/mnist": 400_000,
    "wgan_gp/cifar10_small": 512_000,
    "wgan_gp/fashion_mnist": 200_000,
}
OTHERS = 400_000
COLUMNS = ("gan", "data", "seed", "images", "steps", "seconds", "frechet", "untrained", "score", "least %", "most %",
           "asked %")  # fmt: skip


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
        cls = yaml.safe_load(file.read_text())["model"]["class_path"].rpartition(".")[2]
        if not issubclass(getattr(gans, cls), Sampler):
            sys.exit(f"error: --gans={name} is of {cls}, which makes no images of noise: see translates.py")
        found.append(file)
    return found


def load(run: Path) -> tuple[GANModule, GANModule]:
    """The model of a run as it was trained last, and as it was before."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    cls = getattr(gans, config["model"]["class_path"].rpartition(".")[2])
    path = run / "checkpoints/last.ckpt"
    seed_everything(0, verbose=False)
    untrained, _ = cls.untrained(torch.load(path, map_location="cpu", weights_only=True))
    return cls.load_to_sample(path), untrained.eval()


def draw(model: GANModule) -> tuple[Tensor, Tensor | None]:
    """COUNT uint8 images, and the class asked for (or the categorical code) of each where there is one."""
    torch.manual_seed(0)
    images, asked = [], []
    for _ in range(0, COUNT, 500):
        classes = torch.arange(500) % max(1, model.num_classes)
        # As the callback that scores does.
        drawn, wanted = model.generate_asked((torch.zeros(500, *model.image_shape), classes))
        images.append(to_uint8(drawn))
        asked += [] if wanted is None else [wanted]
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


def row_of(images: Tensor, asked: Tensor | None, classifier: SmallClassifier, real: Moments, coded: bool) -> dict:
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
        both = Collected(len(classes), asked=torch.stack([asked, classes]), coded=coded)
        row["asked %"] = 100 * float(ClassAccuracy().compute(None, both))
    return row


def rows_of(run: Path, classifier: SmallClassifier, real: Moments) -> list[dict[str, Any]]:
    """A row a mark of a run that is finished, in order; what is drawn at the end lies in ``samples.png`` beside it."""
    kept = run / "scored.yaml"
    if kept.exists():
        return yaml.safe_load(kept.read_text())
    model, untrained = load(run)
    coded = model.asks == "code"
    before = row_of(*draw(untrained), classifier, real, coded)["frechet"]
    network = model.generator if model.averaged_generator is None else model.averaged_generator
    rows = []
    for mark in marks(run):
        network.load_state_dict(mark.pop("generator"))
        images, asked = draw(model)
        rows.append(mark | row_of(images, asked, classifier, real, coded) | {"untrained": before})
    write_image(strip(images), run / "scored.png")
    kept.write_text(yaml.safe_dump(rows))
    return rows


def strip(images: Tensor) -> Tensor:
    """A picture (3, 36, W) of the first images, in a row, at 32 px."""
    padded = torch.nn.functional.pad(images[:SHOWN], [(32 - images.shape[-1]) // 2] * 4)
    return make_grid(padded, nrow=SHOWN, pad_value=255)


def told(values: list[float], digits: int, unit: str = "") -> str:
    """The median of several values, and the least and the largest where they differ."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{middle}{unit}" if low == high else f"{middle}{unit} ({low}-{high})"


def line_of(name: str, data: str, runs: list[list[dict[str, Any]]]) -> str:
    """The row of the table for the runs of a GAN."""
    ends = [run[-1] for run in runs]
    equal = [row for run in runs if (row := next((r for r in run if r["images"] >= EQUAL), None))]
    cells = [
        name,
        data,
        f"{median(row['images'] for row in ends):,.0f}",
        told([row["seconds"] / 60 for row in ends], 1),
        f"{told([r['frechet'] for r in equal], 2)}, {median(r['seconds'] / 60 for r in equal):.1f} min"
        if equal
        else "",
        told([min(row["frechet"] for row in run) for run in runs], 2),
        told([row["frechet"] for row in ends], 2),
        told([row["frechet"] / row["untrained"] for row in ends], 3),
        told([row["least %"] for row in ends], 1, " %"),
        told([row["most %"] for row in ends], 1, " %"),
        told([row["asked %"] for row in ends], 1, " %") if "asked %" in ends[0] else "",
    ]
    return f"| {' | '.join(cells)} |"


HEAD = """\
| GAN | Data | Images | Minutes | At 50,000 | Best | End | Ratio | Least | Most | As asked |
|---|---|---|---|---|---|---|---|---|---|---|"""


class Judge:
    """The classifiers and test images of the data sets that configs ask for, made when they are first needed."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.known: dict[Any, tuple[SmallClassifier, Moments, Tensor]] = {}

    def options(self, config: Path) -> list[str]:
        """What ``train.py`` is told about the data of a config."""
        folder = self.data_dir / "cifar10"
        if yaml.safe_load(config.read_text())["data"]["class_path"].endswith("CIFAR10") and folder.is_dir():
            return ["--data=datamodules.ImageFolder", f"--data.data_dir={folder}"]
        return [f"--data.data_dir={self.data_dir}"]

    def of(self, run: Path) -> tuple[SmallClassifier, Moments, Tensor, str]:
        """The classifier, the statistics of the test images, these images and the data's name, for a run."""
        settings = yaml.safe_load((run / "config.yaml").read_text())["data"]
        cls = getattr(datamodules, settings["class_path"].rpartition(".")[2])
        folder, size = settings["init_args"]["data_dir"], settings["init_args"]["image_size"]
        if (cls, folder, size) not in self.known:
            # One classifier a data set, at 32 px, for images of any size.
            at_32, at_size = (cls(data_dir=folder, image_size=s, batch_size=500) for s in (32, size))
            for module in (at_32, at_size):
                module.prepare_data()
            classifier = classifier_of(at_32, Path("~/.cache/gan-lab").expanduser())
            test, labels = map(torch.cat, zip(*at_size.val_dataloader(), strict=True))
            real = look(test, classifier)[0]
            row = row_of(test, labels, classifier, real, coded=False)
            print(f"test images of {Path(folder).name}, {size} px: {row['asked %']:.1f} % classified right", flush=True)
            self.known[cls, folder, size] = classifier, real, test
        return *self.known[cls, folder, size], Path(folder).name if cls is datamodules.ImageFolder else cls.__name__


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gans", nargs="*", default=[], help="folders or files of configs; default: one a folder")
    parser.add_argument("--seeds", nargs="+", type=seed, default=[0, 1, 2])
    parser.add_argument("--images", type=positive, help="real images to train on; default: what BUDGETS says")
    parser.add_argument("--minutes", type=duration, default=15.0, help="minutes of processor time at most")
    parser.add_argument("--jobs", type=positive, default=2, help="trainings at a time")
    parser.add_argument("--precision", default=native_precision())
    parser.add_argument("--data_dir", default="data", type=Path)
    parser.add_argument("--out", default="runs/learns", type=Path)
    options, override = parser.parse_known_args()  # others go to train.py, such as --data.batch_size=32
    options.seeds = list(dict.fromkeys(options.seeds))
    out, judge = options.out.resolve(), Judge(options.data_dir.resolve())
    began = time.perf_counter()
    print(f"{machine()}, {options.precision}, one thread a run, seeds {options.seeds}\n\n{HEAD}", flush=True)
    torch.set_num_threads(1)
    configs = config_files(options.gans)
    names = {config: str(config.relative_to(ROOT / "configs").with_suffix("")) for config in configs}
    planned = []
    for number in options.seeds:
        for config, name in names.items():
            run = out / f"{name.replace('/', '-')}-{number}"
            budget = options.images or BUDGETS.get(name, OTHERS)
            told_train = [f"--trainer.precision={options.precision}", *judge.options(config), *override]
            planned.append((config, run, told_train, budget, options.minutes, number))
            asked_of(*planned[-1])  # before anything is trained
    with ThreadPoolExecutor(options.jobs) as pool:
        trainings = [pool.submit(train, *each) for each in planned]
        scored: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in names.values()}
        data, strips = {}, {}
        for (config, run, *_, number), training in zip(planned, trainings, strict=True):
            training.result()
            classifier, real, test, name_of_data = judge.of(run)
            name = names[config]
            scored[name].append(rows_of(run, classifier, real))
            data[name] = name_of_data
            strips.setdefault(name_of_data, strip(test[:: len(test) // SHOWN]))
            strips.setdefault(name, read_image(str(run / "scored.png")))
            print(line_of(f"{name}, seed {number}", name_of_data, scored[name][-1:]), flush=True)
            write(out, options.seeds, {name: rows for name, rows in scored.items() if rows}, data, strips)
    print(f"\n{HEAD}")
    for name, rows in scored.items():
        print(line_of(f"[{name}](../../configs/{name}.yaml)", data[name], rows))
    print(f"\n{out}/results.csv, curves.png and samples.png ({time.perf_counter() - began:.0f} s)")


def write(out: Path, seeds: list[int], scored: dict, data: dict[str, str], strips: dict[str, Tensor]) -> None:
    """The marks so far as CSV, the curves and the picture of samples."""
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for name, runs in scored.items():
            for seed, run in zip(seeds, runs, strict=False):
                writer.writerows({"gan": name, "data": data[name], "seed": seed} | row for row in run)
    lines = {name: [[(row["images"], row["frechet"]) for row in run] for run in runs] for name, runs in scored.items()}
    write_image(curves(lines, "images seen", "Frechet distance"), out / "curves.png")
    height = max(len(picture[0]) for picture in strips.values())
    rows = [torch.nn.functional.pad(picture, (0, 0, 0, height - len(picture[0]))) for picture in strips.values()]
    write_image(labelled(torch.cat(rows, 1), list(strips)), out / "samples.png")


if __name__ == "__main__":
    main()
