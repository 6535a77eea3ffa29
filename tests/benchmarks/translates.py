"""Do the translators learn? Each is trained with its small config for a while and measured on held-out images.

    python tests/benchmarks/translates.py [--gans pix2pix cyclegan ...] [--minutes 24] [--out runs/translates]

Every GAN is trained by ``train.py`` in a process of its own, for the steps of its config or so many minutes of
processor time, whichever comes first. A line a figure is printed and written to ``results.csv``, beside the figure to
compare it with:

- pix2pix: L1 distance to the target, beside that of the mean training target, and of the untrained generator.
- CycleGAN, DiscoGAN: distance between an image and what comes back, beside that of the untrained generators.
- StarGAN: share of translations that are of the domain asked for, to its own discriminator and to a small classifier
  that was trained on the data's classes, beside what these say of real images of the domain.

``GAN.png`` shows images and what becomes of them. Runs that are there already are not trained again. SRGAN is measured
by super_resolution.py.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import seed_everything
from torch import Tensor
from training import ROOT, marks, train

import datamodules
import gans
from callbacks.pictures.images import grid, to_uint8, write_png
from callbacks.scores.classifier import classifier_of
from gans.parts.precision import native_precision
from gans.training.translation import CyclicTranslator, Translator

CONFIGS = {
    "pix2pix": "pix2pix/facades_64",
    "cyclegan": "cyclegan/facades_64",
    "discogan": "discogan/facades_small",
    "stargan": "stargan/cifar10",
}
SHOWN = 8  # images in the picture
Figures = dict[str, tuple[float, float]]  # by name, with what to compare with


def data_of(run: Path) -> Any:
    """The data of a run, ready to be gone through."""
    settings = yaml.safe_load((run / "config.yaml").read_text())["data"]
    cls = getattr(datamodules, settings["class_path"].rpartition(".")[2])
    data = cls(**settings["init_args"] | {"batch_size": 40})
    data.prepare_data()
    return data


def batches(data: Any, split: str) -> Iterator[Any]:
    """The images of a split as a model gets them, in order."""
    for batch in data.ordered(split):
        yield data.on_after_batch_transfer(batch, 0)


def models_of(run: Path) -> tuple[Translator, Translator, dict[str, Any]]:
    """The model with its last weights, as it was before training, and the checkpoint."""
    path = run / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    cls = getattr(gans, checkpoint["gan"]["class"].rpartition(".")[2])
    seed_everything(0, verbose=False)
    return cls.load_to_sample(path), cls.untrained(checkpoint)[0].eval(), checkpoint


def to_target(model: Translator, untrained: Translator, data: Any) -> Figures:
    """pix2pix."""
    mean = torch.cat([batch.target for batch in batches(data, "train")]).mean(0)
    held_out = list(batches(data, data.val_split))
    targets = torch.cat([batch.target for batch in held_out])

    def l1(made: Tensor) -> float:
        return (made - targets).abs().mean().item()

    trained, before = (l1(torch.cat([m.generate(b) for b in held_out])) for m in (model, untrained))
    return {
        "L1 to target, beside mean target": (trained, l1(mean.expand_as(targets))),
        "L1 to target, beside untrained": (trained, before),
    }


def cycle(model: CyclicTranslator, untrained: CyclicTranslator, data: Any) -> Figures:
    """CycleGAN and DiscoGAN."""

    def errors(m: CyclicTranslator) -> Tensor:
        """L1 and squared, of A and of B."""
        found = []
        for a, b in batches(data, data.val_split):
            differences = m.translate(m.translate(a), to="a") - a, m.translate(m.translate(b, to="a")) - b
            found.append(torch.stack([d.pow(p).abs().mean((1, 2, 3)) for d in differences for p in (1, 2)], 1))
        return torch.cat(found).mean(0)

    names = [f"{kind} error of {way}" for way in ("A to B to A", "B to A to B") for kind in ("L1", "squared")]
    pairs = zip(errors(model).tolist(), errors(untrained).tolist(), strict=True)
    return {f"{name}, beside untrained": pair for name, pair in zip(names, pairs, strict=True)}


def domains(model: gans.StarGAN, _: gans.StarGAN, data: Any) -> Figures:
    """StarGAN."""
    classifier = classifier_of(data, Path("~/.cache/gan-lab").expanduser())
    judges = {
        "its discriminator": torch.no_grad()(lambda images: model.judge(images)[1].argmax(1)),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gans", nargs="*", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument("--minutes", type=float, default=24.0, help="minutes of processor time")
    parser.add_argument("--precision", default=native_precision())
    parser.add_argument("--out", default="runs/translates", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options, override = parser.parse_known_args()  # others go to train.py
    options.out = options.out.resolve()
    rows: list[list[Any]] = []
    print(
        f"{'gan':10} {'steps':>6} {'minutes':>7}  {'figure':46} {'trained':>8} {'beside':>8} {'ratio':>6}", flush=True
    )
    for name in options.gans:
        config = ROOT / "configs" / f"{CONFIGS[name]}.yaml"
        settings = yaml.safe_load(config.read_text())
        data_dir = str(Path(settings["data"]["init_args"].get("data_dir", "data")).resolve())
        told = [f"--trainer.precision={options.precision}", f"--trainer.max_steps={settings['trainer']['max_steps']}"]
        if name == "stargan" and (Path(data_dir) / "cifar10/train").is_dir():  # CIFAR-10 as folders of JPEG files
            data_dir += "/cifar10"
            told.append("--data=datamodules.ImageFolder")
        run = options.out / name
        train(config, run, [*told, f"--data.data_dir={data_dir}", *override], 10**12, options.minutes, options.seed)
        model, untrained, _ = models_of(run)
        minutes, steps = marks(run)[-1]["seconds"] / 60, marks(run)[-1]["steps"]
        data = data_of(run)
        measure = to_target if name == "pix2pix" else domains if name == "stargan" else cycle
        for figure, (value, beside) in measure(model, untrained, data).items():  # type: ignore[operator]
            rows.append([name, steps, round(minutes, 1), figure, value, beside, value / beside])
            print(
                f"{name:10} {steps:6,} {minutes:7.1f}  {figure:46} {value:8.4g} {beside:8.4g} {value / beside:6.3f}",
                flush=True,
            )
        shown = model.shown(next(batches(data, data.val_split)))[:SHOWN]
        write_png(grid(shown.flatten(0, 1), shown.shape[1]), options.out / f"{name}.png")
        with (options.out / "results.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["gan", "steps", "minutes", "figure", "trained", "beside", "ratio"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
