"""Killed again and again at any moment and resumed: does a run end as one that nobody has touched?

    python tests/benchmarks/kill.py [--rounds 20] [--seed 0] [--workers 1] [--variants dcgan ...] [--out FOLDER]

Every round trains a tiny GAN by ``train.py`` in processes of its own, always by the same command with
``--ckpt_path=last``. One to four of them are ended before their end; the next one is let to it. Then the whole run
folder is compared with that of a run of the same settings that was left alone: the same files, all bytes of settings,
metrics, scores and pictures, and all that is in the checkpoints. Both are then trained ten steps further, and compared
once more. Lightning's own counters of batches and epochs, of which nothing here depends, are compared too; where only
they differ, they are named.

A process is ended by SIGKILL at a random time ("time"), at the sight of an unfinished file ("partial"), or from inside
at a random one of all the moments at which it begins with a batch of training or validation, or opens, renames or
removes a file in the run folder ("starting", until training begins; "training", "validation", "writing"; "ending", all
that comes after the last step); some files are left half written. Or it gets SIGTERM or SIGINT at a random time, and
keeps its state. A line a round says where, by the step and the moment; a table at the end counts. The exit code is 1 if
something was other than it should be; then the folder of all runs is kept.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from tqdm import tqdm

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
from untimed import rows  # noqa: E402

from command_line import ROOT, finish, start  # noqa: E402

LIMIT = 120  # seconds that a process may take
INSIDE = ("starting", "training", "validation", "writing", "ending")
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
WAYS = ("time", "partial", *INSIDE, *SIGNALS)
NOTE = "where"  # the file beside the run folder that says how far a process is
PARTIAL = ".partial"
LOCK = ".lock"  # the one file of a run that is not compared
COUNTER = re.compile(r"\.ckpt: (\.epoch|\.loops\.fit_loop\.(epoch_loop|epoch_progress)\..*?) ")  # Lightning's own
FURTHER = 10  # steps after the end
EVERY = 6  # steps between two writes of the last checkpoint
COMMON = [
    f"--config={ROOT / 'configs/quickstart.yaml'}",
    "--run_dir=out",
    "--ckpt_path=last",
    "--trainer.logger=false",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.callbacks+=kill.Watch",
    "--trainer.val_check_interval=12",
    "--trainer.log_every_n_steps=3",
    f"--last.every_n_steps={EVERY}",
    "--samples.every_n_steps=8",
    "--samples.count=16",
    "--views.every_n_steps=16",
    "--views.columns=3",
    "--health.every_n_steps=5",
    "--neighbors.count=2",
    "--neighbors.num_real=50",
    "--score.features=pixels",
    "--score.num_images=100",
    "--score.num_real=100",
]
DIGITS = ["--data=Digits", "--data.image_size=16", "--data.batch_size=64", "--health.count=128"]
DCGAN = [*DIGITS, "--model=DCGAN", "--model.width=4"]
STEPS = "--trainer.max_steps=50"  # the last of a variant's options
PAIRS = ["--data.data_dir=pictures", "--data.image_size=32", "--data.batch_size=2", "--health.count=6"]
SCHEDULE = "torch.optim.lr_scheduler.LinearLR"
VARIANTS = {
    "dcgan": [*DCGAN, STEPS],
    "n_critic": [
        *DIGITS,
        "--model=WGANGP",
        "--model.width=4",
        "--model.n_critic=5",
        f"--model.generator_scheduler={SCHEDULE}",
        "--model.generator_scheduler.total_iters=40",
        "--model.discriminator_scheduler=gans.optimizers.LinearDecay",
        "--model.discriminator_scheduler.constant_steps=10",
        "--model.discriminator_scheduler.decay_steps=40",
        "--trainer.max_steps=36",
    ],
    "accumulation": [*DCGAN, "--model.accumulate_grad_batches=3", STEPS],
    "streamed": [*DCGAN, "--data.resident_bytes=0", "--data.horizontal_flip=true", STEPS],
    "cyclegan": [
        *PAIRS,
        "--data=UnpairedFolder",
        "--model=CycleGAN",
        "--model.width=4",
        "--model.blocks=1",
        "--model.pool_size=10",
        "--trainer.max_steps=38",  # not the end of an epoch, which the loader can put in two ways
    ],
    "epochs": [*DCGAN, "--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=0.5", STEPS],
    "pix2pix": [
        *PAIRS,
        "--data=PairedFolder",
        "--data.load_size=36",
        "--model=Pix2Pix",
        "--model.width=4",
        "--quality.metrics=[psnr,ssim]",
        "--trainer.max_steps=38",
    ],
}


# In the process that is killed


class Watch(Callback):
    """Note every moment, and kill this process at the one that the environment names in KILL, such as "writing 17"."""

    def __init__(self) -> None:
        phase, _, number = os.environ.get("KILL", "").partition(" ")
        self._wanted = phase, int(number or 0)
        self._process = os.getpid()
        self._phase = "starting"
        self._step = 0
        self._counts = dict.fromkeys(INSIDE, 0)
        self._file = os.open(NOTE, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        sys.addaudithook(self._audit)

    def _moment(self, kind: str, what: str, unfinished: Any = None) -> None:
        """Count a moment, at which a file may be there that is not yet finished."""
        phase = self._phase if self._phase == "ending" or kind == "writing" else kind
        phase = kind if phase == "training" else phase
        self._counts[phase] += 1
        note = {"step": self._step, "phase": phase, "what": what, "counts": self._counts}
        os.pwrite(self._file, json.dumps(note).ljust(400).encode(), 0)
        if (phase, self._counts[phase]) == self._wanted:
            if unfinished is not None:
                os.truncate(unfinished, os.stat(unfinished).st_size // 2)  # noqa: PTH116
            os.kill(self._process, signal.SIGKILL)

    def _audit(self, event: str, given: tuple[Any, ...]) -> None:
        """Called by Python before it does what the event says."""
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            return
        if os.getpid() != self._process or not isinstance(given[0], str | Path) or "out/" not in f"{given[0]}/":
            return
        if event == "open" and (given[1] is None or not set(given[1]) & set("wax+")):
            return
        name = re.sub(r"^\.(.*)\.\w+-\w+\.partial$", r"\1" + PARTIAL, Path(given[0]).name)
        if event == "open" and "+" in given[1]:  # it was written, and is opened once more to be sent to the disk
            self._moment("writing", f"half of {name}", given[0])
        self._moment("writing", f"{event.removeprefix('os.')} {name}")

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self._phase, self._step = "training", trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._moment("training", "batch")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._step = trainer.global_step
        if self._step == trainer.max_steps:
            self._phase = "ending"
        self._moment("training", "end of batch")

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        self._moment("validation", "validation")

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._moment("validation", "batch of validation")

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self._moment("validation", "end of validation")

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        self._phase = "ending"
        self._moment("ending", "end of training")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._moment("ending", "teardown")


# Around it


class Whole(NamedTuple):
    """A run that was left alone."""

    folder: Path
    further: Path
    """The folder of its copy that was trained further."""
    counts: dict[str, int]
    """Its moments by phase."""
    seconds: float
    """From the first batch to its end."""


class Wrong(Exception):
    """Something is not as it should be, in one line or with the output of a process."""


def pictures(folder: Path) -> None:
    """Pairs of random pictures, side by side and apart."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 6)):
        for number in range(count):
            pair = draw.integers(256, size=(36, 72, 3), dtype=np.uint8)
            for name, pixels in ((split, pair), (f"{split}A", pair[:, :36]), (f"{split}B", pair[:, 36:])):
                path = folder / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
                os.utime(path, (0, 0))  # by which images are told from others


def home(folder: Path, variant: str) -> Path:
    """A folder for a run, with the pictures that it needs."""
    folder.mkdir(parents=True)
    if VARIANTS[variant][0] == PAIRS[0]:
        # Either layout alone: a folder of both would be ambiguous.
        source = Path(tempfile.mkdtemp(dir=folder.parent))
        pictures(source)
        paired = variant == "pix2pix"
        for name in ("train", "test") if paired else ("trainA", "trainB", "testA", "testB"):
            shutil.move(source / name, folder / "pictures" / name)
        shutil.rmtree(source)
    return folder


def length(variant: str) -> int:
    """The steps of a run."""
    return int(VARIANTS[variant][-1].rpartition("=")[2])


def noted(folder: Path) -> dict[str, Any]:
    """How far a process is."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((folder / NOTE).read_text())
    return {"step": 0, "phase": "starting", "what": "", "counts": dict.fromkeys(INSIDE, 0)}


def steps_of(folder: Path) -> dict[str, int]:
    """The steps at which a run's checkpoints stand, by name.

    Raises:
        Wrong: One cannot be read.
    """
    steps = {}
    for path in sorted((folder / "out/checkpoints").glob("[!.]*.ckpt")):
        try:
            steps[path.name] = torch.load(path, weights_only=True)["global_step"]
        except Exception as error:
            raise Wrong(f"lost checkpoint: {path.name} cannot be read ({error})") from error
    return steps


def wait(process: Any, folder: Path, what: str) -> Any:
    """Wait for the end of a process; its exit code and output.

    Raises:
        Wrong: It hangs.
    """
    process.join(LIMIT)
    hangs = process.exitcode is None
    done = finish(process, folder, timeout=0)
    if hangs:
        raise Wrong(f"hangs, {what}:\n{done.stdout}{done.stderr}")
    return done


def leave_alone(variant: str, folder: Path) -> Whole:
    """Train to the end.

    Raises:
        Wrong: It has no good end.
    """
    home(folder, variant)
    process = start([*COMMON, *VARIANTS[variant]], folder)
    began = time.monotonic()
    first = 0.0
    while process.is_alive() and time.monotonic() - began < LIMIT:
        if not first and noted(folder)["phase"] != "starting":
            first = time.monotonic()
        time.sleep(0.01)
    seconds = time.monotonic() - first
    done = wait(process, folder, variant)
    if done.returncode:
        raise Wrong(f"{variant} ends with {done.returncode}:\n{done.stdout}{done.stderr}")
    counts = noted(folder)["counts"]
    further = Path(shutil.copytree(folder, f"{folder}-further"))
    complete(variant, further, FURTHER)
    return Whole(folder, further, counts, seconds)


def end(process: Any, way: str, folder: Path, whole: Whole, left: float, dice: random.Random) -> None:
    """End a process from outside, unless it is at its end before; ``left`` is the share of the run that is to come."""

    def alive() -> bool:
        return process.is_alive() and time.monotonic() - began < LIMIT

    began = time.monotonic()
    while alive() and noted(folder)["phase"] == "starting":
        time.sleep(0.01)
    if way == "partial":
        seen: set[Path] = set()
        skipped = dice.randint(1, 1 + int(whole.counts["writing"] * left / 5))  # a file has about five moments
        while alive() and len(seen) < skipped:
            seen |= set((folder / "out").rglob(f".*{PARTIAL}"))
    else:
        moment = time.monotonic() + dice.uniform(0, whole.seconds * left)
        while alive() and time.monotonic() < moment:
            time.sleep(0.001)
    if alive():
        os.kill(process.pid, SIGNALS.get(way, signal.SIGKILL))


def interrupt(variant: str, way: str, folder: Path, whole: Whole, dice: random.Random) -> str:
    """Begin or go on with a run, and end it in one of the ways; says where.

    Raises:
        Wrong: A process hangs or fails, or what it has kept is less than it should be.
    """
    (folder / NOTE).unlink(missing_ok=True)
    before = steps_of(folder)
    left = 1 - before.get("last.ckpt", 0) / length(variant)
    # The end of a run that goes on is as long as that of the whole; its start, where files are there, has more moments.
    most = {way: int(count * left) for way, count in whole.counts.items()}
    most |= {"starting": whole.counts["starting"] + 5, "ending": whole.counts["ending"]}
    moment = f"{way} {dice.randint(1, max(1, most[way]))}" if way in INSIDE else ""
    process = start([*COMMON, *VARIANTS[variant]], folder, **({"KILL": moment} if moment else {}))
    if way not in INSIDE:
        end(process, way, folder, whole, left, dice)
    done = wait(process, folder, f"{moment or way} {noted(folder)}")
    note, code = noted(folder), done.returncode
    where = f"{moment or way} (step {note['step']}, {note['what'] or note['phase']})"
    right = {"SIGTERM": (0, 128 + signal.SIGTERM), "SIGINT": (128 + signal.SIGINT,)}.get(way, (-signal.SIGKILL,))
    stopped = "stopped by SIG" in done.stdout
    if code not in (0, *right) or (code == 0 and way == "SIGINT" and stopped):
        raise Wrong(f"ends with {code}, {where}:\n{done.stdout}{done.stderr}")
    now = steps_of(folder)
    for name, step in before.items():
        if now.get(name, -1) < step:
            raise Wrong(f"lost checkpoint: {name} was of step {step} and is of {now.get(name)}, {where}")
    # Of a process that was killed, the one of this very step may not have been written yet.
    least = note["step"] if stopped else max(0, note["step"] - 1) // EVERY * EVERY
    if now.get("last.ckpt", 0) < least:
        raise Wrong(f"lost checkpoint: last.ckpt is of step {now.get('last.ckpt')}, and {least} was kept, {where}")
    return where if code or stopped else f"{moment or way} (at its end before)"


def complete(variant: str, folder: Path, further: int = 0) -> None:
    """Let a run come to its end, or so many steps further.

    Raises:
        Wrong: It does not.
    """
    arguments = [*COMMON, *VARIANTS[variant][:-1], f"--trainer.max_steps={length(variant) + further}"]
    done = wait(start(arguments, folder), folder, "to its end")
    if done.returncode:
        raise Wrong(f"ends with {done.returncode}:\n{done.stdout}{done.stderr}")


# What is compared


def differences(run: Path, other: Path) -> list[str]:
    """What is not the same in two run folders, by name."""

    def files(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != LOCK}

    here, there = files(run), files(other)
    found = [f"missing {name}" for name in sorted(there - here)] + [f"new {name}" for name in sorted(here - there)]
    for name in sorted(here & there):
        if name.endswith(".ckpt"):
            values = [torch.load(folder / name, map_location="cpu", weights_only=True) for folder in (run, other)]
            for value in values:
                source = next(p["source"] for p in value.values() if isinstance(p, dict) and "source" in p)
                source.pop("data_dir", None)  # its own, of data that has one
            found += [f"{name}: {key}" for key in unequal(*values)]
        elif name == "metrics.csv":
            found += [name] if rows(run) != rows(other) else []
        elif (run / name).read_bytes() != (other / name).read_bytes():
            found.append(name)
    return found


def unequal(a: Any, b: Any, key: str = "") -> list[str]:
    """The names of what is not the same in two checkpoints, bit for bit."""
    if type(a) is not type(b):
        return [f"{key} {a!r:.40} {b!r:.40}"]
    if isinstance(a, dict):
        missing = [f"{key}.{name}" for name in a.keys() ^ b.keys()]
        return missing + [found for name in a.keys() & b.keys() for found in unequal(a[name], b[name], f"{key}.{name}")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [f"{key} of {len(a)} and {len(b)}"]
        return [found for i, (x, y) in enumerate(zip(a, b, strict=True)) for found in unequal(x, y, f"{key}.{i}")]
    if isinstance(a, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
        return [] if same else [key]
    return [] if a == b or (a != a and b != b) else [f"{key} {a!r:.40} {b!r:.40}"]


# Rounds


class Outcome(NamedTuple):
    """What a round has shown."""

    variant: str
    ways: list[str]
    """In which processes were ended, without those that were at their end before."""
    where: list[str]
    counters: list[str]
    """Lightning's, that differ."""
    wrong: list[str]


def play(number: int, seed: int, variant: str, whole: Whole, out: Path) -> Outcome:
    """One round."""
    dice = random.Random(f"{seed} {number}")
    folder = home(out / f"{number:03d}-{variant}", variant)
    ways: list[str] = []
    where: list[str] = []
    found: list[str] = []
    try:
        for _ in range(dice.randint(1, 4)):
            way = dice.choice(WAYS)
            where.append(interrupt(variant, way, folder, whole, dice))
            ways += [] if "at its end" in where[-1] else [way]
        complete(variant, folder)
        found = differences(folder / "out", whole.folder / "out")
        complete(variant, folder, FURTHER)
        found += [f"further: {name}" for name in differences(folder / "out", whole.further / "out")]
    except Wrong as error:
        found.append(str(error))
    wrong = [name for name in found if not COUNTER.search(name)]
    if not wrong:
        shutil.rmtree(folder)
    counters = {match[1].rpartition(".")[2] for name in found if (match := COUNTER.search(name))}
    return Outcome(variant, ways, where, sorted(counters), wrong)


def line_of(number: int, outcome: Outcome) -> str:
    """A round as a line of text, and the first of what is wrong below it."""
    result = f"{len(outcome.wrong)} WRONG" if outcome.wrong else "equal" if not outcome.counters else "counters"
    lines = [f"{number:>3} {outcome.variant:<12} {result:<8} {len(outcome.where)} times: {', '.join(outcome.where)}"]
    if outcome.counters:
        lines.append(f"counters that differ: {', '.join(outcome.counters)}")
    return "\n    ".join([*lines, *outcome.wrong[:8]])


def table(outcomes: list[Outcome]) -> str:
    """Counts of all rounds, by variant."""
    results = ("Equal", "Equal but for counters", "Lost checkpoints", "Differing or failed")
    columns = ("Variant", "Rounds", *WAYS, *results)
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name in [*dict.fromkeys(o.variant for o in outcomes), "all"]:
        mine = [o for o in outcomes if name in (o.variant, "all")]
        ways = Counter(way for o in mine for way in o.ways)
        lost = sum(any(what.startswith("lost checkpoint") for what in o.wrong) for o in mine)
        wrong = sum(bool(o.wrong) for o in mine)
        counters = sum(bool(o.counters) and not o.wrong for o in mine)
        equal = len(mine) - wrong - counters
        cells = [name, len(mine), *(ways[way] for way in WAYS), equal, counters, lost, wrong - lost]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", default=20, type=int)
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--workers", default=1, type=int, help="rounds at a time")
    parser.add_argument("--variants", default=list(VARIANTS), nargs="+", choices=VARIANTS)
    parser.add_argument("--out", default=None, type=Path, help="a new folder for the runs; by default a temporary one")
    options = parser.parse_args()
    out = (options.out or Path(tempfile.mkdtemp(prefix="kill-"))).resolve()
    began = time.monotonic()
    sys.warnoptions.append("ignore:resource_tracker")  # for the one that learns what killed processes have left
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # another number might add up in another order
    variants = options.variants[: options.rounds]
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(options.workers) as pool:
        runs = pool.map(leave_alone, variants, [out / f"whole-{name}" for name in variants])
        try:
            wholes = dict(zip(variants, tqdm(runs, "left alone", len(variants), leave=False), strict=True))
        except Wrong as error:
            sys.exit(f"error: {error}")
        numbers = range(options.rounds)
        names = [variants[number % len(variants)] for number in numbers]
        rounds = [pool.submit(play, n, options.seed, name, wholes[name], out) for n, name in enumerate(names)]
        for number, each in enumerate(tqdm(rounds, "rounds", leave=False)):
            outcomes.append(each.result())
            tqdm.write(line_of(number, outcomes[-1]))
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    kills = sum(len(outcome.ways) for outcome in outcomes)
    print(f"\n{table(outcomes)}\n\n{len(outcomes)} rounds, {kills} times ended, in {time.monotonic() - began:.0f} s")
    if wrong:
        sys.exit(f"error: {len(wrong)} rounds are wrong; the runs are in {out}")
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
