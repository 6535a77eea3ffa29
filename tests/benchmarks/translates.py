"""Do the translators learn? Each is trained with its small config and measured on held-out images.

    python tests/benchmarks/translates.py [--gans pix2pix cyclegan ...] [--minutes 15] [--out runs/translates]

Every GAN is trained by ``train.py`` in a process of its own and of one thread, for the steps of its config or until so
many minutes of processor time are over. A table is printed, and ``results.csv`` written: each figure beside the one to
compare it with, and their ratio.

- Label maps to photographs (pix2pix, CycleGAN, DiscoGAN, CUT): classes that a small network, which has learned on the
  real training photographs, reads from generated ones, beside real held-out ones (pix2pix's FCN-score, see
  segmentation.py), and beside those generated from other label maps, as a generator that looks at none would have it;
  with them, how much of the labels' entropy it tells.
- pix2pix: sharpness (gradient energy) beside that of "pix2pix-l1", the same training with the L1 loss alone.
- CycleGAN, DiscoGAN: distance between an image and what comes back, beside that of the untrained generators.
- StarGAN: share of translations that are of the domain asked for, to its own discriminator and to a small classifier
  that was trained on the data's classes, beside what these say of real images of the domain. The domains are the
  facades' photographs and label maps, without their pairs.

``GAN.png`` shows images and what becomes of them. Runs that were cut off go on, and those that are finished are not
trained again. SRGAN is measured by super_resolution.py.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import seed_everything
from machine import machine
from segmentation import score, segmentation_of, sharpness, truth
from torch import Tensor
from torchvision.io import read_image
from training import ROOT, asked_of, duration, marks, positive, seed, train

import datamodules
import gans
from callbacks.pictures.images import grid, to_uint8, write_image
from callbacks.scores.classifier import classifier_of
from gans.parts.precision import native_precision
from gans.training.translation import CyclicTranslator, Translator

# By name, the config and further options. An L1 weight so large that Adam, whose steps do not depend on the size of a
# loss, sees nothing else is the L1 loss alone.
RUNS: dict[str, tuple[str, list[str]]] = {
    "pix2pix-l1": ("pix2pix/facades_64", ["--model.l1_weight=1000000"]),
    "pix2pix": ("pix2pix/facades_64", []),
    "cyclegan": ("cyclegan/facades_64", []),
    "discogan": ("discogan/facades_small", []),
    "cut": ("cut/facades_64", []),
    "stargan": ("stargan/image_folder", []),
}
SHOWN = 8  # images in the picture
CACHE = Path("~/.cache/gan-lab").expanduser()
HEAD = "| GAN | Steps | Minutes | Figure | Trained | Beside it | Ratio |\n|---|---|---|---|---|---|---|"
Figures = dict[str, tuple[float, float]]  # by name, with what to compare with


def data_of(run: Path, **kwargs: Any) -> Any:
    """The data of a run, ready to be gone through."""
    settings = yaml.safe_load((run / "config.yaml").read_text())["data"]
    cls = getattr(datamodules, settings["class_path"].rpartition(".")[2])
    data = cls(**settings["init_args"] | {"batch_size": 40} | kwargs)
    data.prepare_data()
    return data


def batches(data: Any, split: str) -> Iterator[Any]:
    """The images of a split as a model gets them, in order."""
    for batch in data.ordered(split):
        yield data.on_after_batch_transfer(batch, 0)


def models_of(run: Path) -> tuple[Translator, Translator]:
    """The model with its last weights, and as it was before training."""
    path = run / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    cls = getattr(gans, checkpoint["gan"]["class"].rpartition(".")[2])
    seed_everything(0, verbose=False)
    return cls.load_to_sample(path), cls.untrained(checkpoint)[0].eval()


def photographs(model: Translator, run: Path) -> tuple[Tensor, Tensor] | None:
    """What a model makes of held-out label maps, and the photographs that belong to these; None if it makes maps."""
    data = data_of(run, paired=True, direction="BtoA")
    sources, targets = map(torch.cat, zip(*batches(data, data.val_split), strict=True))
    torch.manual_seed(0)  # of pix2pix's dropout
    if data_of(run).direction == "BtoA":
        return model.translate(sources), targets
    return (model.translate(sources, to="a"), targets) if isinstance(model, CyclicTranslator) else None


def labels_read(run: Path) -> Figures:
    """The FCN-score of those that make photographs of facades' label maps."""
    data = data_of(run)
    if type(data) is not datamodules.Facades or (made := photographs(models_of(run)[0], run)) is None:
        return {}
    network, classes = segmentation_of(data.data_dir, CACHE), truth(data.data_dir, "val")
    # The last are generated from other label maps: what can be read without having looked at one's own.
    generated, real, others = (score(network, images, classes) for images in (*made, made[0].roll(1, 0)))
    figures = {f"{name} of labels read, %, beside real": (generated[name], real[name]) for name in generated}
    for name in ("per-pixel accuracy", "information"):
        figures[f"{name}, %, beside other label maps'"] = generated[name], others[name]
    return figures


def sharpnesses(run: Path) -> Figures:
    """Gradient energy of pix2pix beside that of the L1 loss alone, and beside that of real photographs."""
    made, real = photographs(models_of(run)[0], run)  # type: ignore[misc]
    figures = {"gradient energy, beside real": (sharpness(made), sharpness(real))}
    alone = run.with_name("pix2pix-l1")
    if run.name == "pix2pix" and (alone / "marks/end.pt").exists():
        blurred, _ = photographs(models_of(alone)[0], alone)  # type: ignore[misc]
        figures["gradient energy, beside L1 alone"] = sharpness(made), sharpness(blurred)
    return figures


def comes_back(run: Path) -> Figures:
    """Distances of CycleGAN and DiscoGAN."""
    data = data_of(run)

    def errors(m: CyclicTranslator) -> Tensor:
        """L1 and squared, of A and of B."""
        found = []
        for a, b in batches(data, data.val_split):
            differences = m.translate(m.translate(a), to="a") - a, m.translate(m.translate(b, to="a")) - b
            found.append(torch.stack([d.pow(p).abs().mean((1, 2, 3)) for d in differences for p in (1, 2)], 1))
        return torch.cat(found).mean(0)

    names = [f"{kind} error of {way}" for way in ("A to B to A", "B to A to B") for kind in ("L1", "squared")]
    trained, untrained = (errors(model).tolist() for model in models_of(run))  # type: ignore[arg-type]
    return {f"{name}, beside untrained": pair for name, *pair in zip(names, trained, untrained, strict=True)}  # type: ignore[misc]


def domains(run: Path) -> Figures:
    """StarGAN's translations into every other domain."""
    model, data = models_of(run)[0], data_of(run)
    assert isinstance(model, gans.StarGAN)
    classifier = classifier_of(data, CACHE)
    judges = {
        "its discriminator": torch.no_grad()(lambda images: model.judge(images).rest[0].argmax(1)),
        "a classifier": lambda images: classifier(to_uint8(images)).logits.argmax(1),
    }
    right: dict[str, list[list[Tensor]]] = {name: [[], []] for name in judges}
    for image, label in batches(data, data.val_split):
        for name, judge in judges.items():
            right[name][1].append(judge(image) == label)
        for shift in range(1, len(model.domains)):
            asked = (label + shift) % len(model.domains)
            translated = model.translate(image, model.vector(asked))
            for name, judge in judges.items():
                right[name][0].append(judge(translated) == asked)
    return {
        f"% as asked to {name}, beside real": tuple(100 * torch.cat(r).float().mean().item() for r in both)  # type: ignore[misc]
        for name, both in right.items()
    }


MEASURES = {
    "pix2pix-l1": (labels_read, sharpnesses),
    "pix2pix": (labels_read, sharpnesses),
    "cyclegan": (labels_read, comes_back),
    "discogan": (labels_read, comes_back),
    "cut": (labels_read,),
    "stargan": (domains,),
}


def options_of(name: str, facades: Path, out: Path) -> list[str]:
    """What ``train.py`` is told of a run beside its config: as many steps as that says, and where the data is."""
    config, options = RUNS[name]
    settings = yaml.safe_load((ROOT / f"configs/{config}.yaml").read_text())
    folder = as_domains(facades, out / "domains") if name == "stargan" else facades
    return [f"--trainer.max_steps={settings['trainer']['max_steps']}", *options, f"--data.data_dir={folder}"]


def as_domains(facades: Path, folder: Path) -> Path:
    """The two halves of the facades' files as images of two domains, a folder each, for StarGAN."""
    for file in sorted(facades.glob("*/*.jpg")):
        both = read_image(str(file))
        for domain, half in zip(("photograph", "labels"), both.chunk(2, 2), strict=True):
            path = folder / file.parent.name / domain / f"{file.stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                write_image(half, path)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    there = [name for name, (config, _) in RUNS.items() if (ROOT / f"configs/{config}.yaml").exists()]
    parser.add_argument("--gans", nargs="*", default=there, choices=there)
    parser.add_argument("--minutes", type=duration, default=15.0, help="minutes of processor time at most")
    parser.add_argument("--jobs", type=positive, default=2, help="trainings at a time")
    parser.add_argument("--precision", default=native_precision())
    parser.add_argument("--data_dir", default="data", type=Path, help="holds facades")
    parser.add_argument("--out", default="runs/translates", type=Path)
    parser.add_argument("--seed", type=seed, default=0)
    options, override = parser.parse_known_args()  # others go to train.py
    out, facades = options.out.resolve(), options.data_dir.resolve() / "facades"
    if not list(facades.glob("train/*.jpg")):
        sys.exit(f"error: --data_dir={options.data_dir} has no facades/train/*.jpg: give the folder that holds facades")
    print(f"{machine()}, {options.precision}, one thread a run, seed {options.seed}\n\n{HEAD}", flush=True)
    torch.set_num_threads(1)
    rows: list[list[Any]] = []
    planned = {}
    for name in options.gans:
        told = [f"--trainer.precision={options.precision}", *options_of(name, facades, out), *override]
        # Steps end the training, so there is no limit to images.
        planned[name] = ROOT / f"configs/{RUNS[name][0]}.yaml", out / name, told, 10**12, options.minutes, options.seed
        asked_of(*planned[name])  # before anything is trained
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = {name: pool.submit(train, *each) for name, each in planned.items()}
        for name, training in runs.items():
            training.result()
            run = out / name
            end = marks(run)[-1]
            ending = [end["steps"], end["seconds"] / 60]
            link = f"[{name}](../../configs/{RUNS[name][0]}.yaml)"
            figures = [found for measure in MEASURES[name] for found in measure(run).items()]
            for figure, (value, beside) in figures:
                row = [name, *ending, figure, value, beside, value / beside if beside else float("nan")]
                rows.append(row)
                print("| {} | {:,} | {:.1f} | {} | {:.4g} | {:.4g} | {:.3f} |".format(link, *row[1:]), flush=True)
            data = data_of(run)
            shown = models_of(run)[0].shown(next(batches(data, data.val_split)))[:SHOWN]
            write_image(grid(shown.flatten(0, 1), shown.shape[1]), out / f"{name}.png")
            with (out / "results.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["gan", "steps", "minutes", "figure", "trained", "beside", "ratio"])
                writer.writerows(rows)


if __name__ == "__main__":
    main()
