"""Whatever one can throw at it: mutated configurations and damaged images, each through ``train.py`` for a step or two.

    python tests/benchmarks/fuzz.py [--configs 500] [--images 150] [--seed 0] [--workers 2] [--only N] [--out FOLDER]

A configuration is the complete one of a tiny run of some GAN, in which one to three settings have another value, key or
place, or whose file is damaged; or the mutations are typed. A damaged image lies among good ones, for one of the folder
data modules or for ``predict``. Each case runs in a fork of this process, which has imported everything once, in a
folder of its own, and ends in one of these ways:

    sentence    it stopped with exit code 1 and one line that begins with "error:", the last one
    accepted    it did all it was asked to; what was accepted is listed, to be checked for nonsense
    traceback   it stopped in any other way, such as a traceback, a signal or a failure without a word
    hang        it had not ended after LIMIT seconds, and was killed
    execution   code ran that a configuration or a file smuggled in, which would have left the file CANARY

The exit code is 1 if there was a traceback, a hang or an execution; then the folder of these cases is kept.
"""

import argparse
import contextlib
import copy
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from tqdm import tqdm

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
LIMIT = 60  # seconds a case may take
MEMORY = 12 * 2**30  # bytes of address space, so that nobody's machine suffers
CANARY = "executed"
LOCK = threading.Lock()  # a fork at a time
KINDS = ("sentence", "accepted", "traceback", "hang", "execution")

# What is mutated: command lines of tiny runs

TINY = [
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.max_steps=2",
    "--trainer.max_time=00:00:00:20",  # where a mutation takes max_steps away
    "--trainer.val_check_interval=2",
    "--trainer.enable_progress_bar=false",
    "--data.batch_size=8",
    "--data.num_workers=1",
    "--score.features=pixels",
    "--score.num_images=8",
    "--score.num_real=8",
    "--samples.every_n_steps=1",
    "--samples.count=4",
    "--health.count=8",
]
DIGITS = ["--data=Digits", "--data.image_size=16"]
FOLDER = ["--data.image_size=32", "--data.horizontal_flip=true", "--model.width=4"]
GANS = {
    "GAN": [*DIGITS, "--model.hidden=8"],
    "DCGAN": [*DIGITS, "--model.width=4", "--model.loss=gans.losses.Hinge", "--model.penalty=gans.penalties.R1"],
    "WGANGP": [*DIGITS, "--model.width=4", "--model.n_critic=1"],
    "InfoGAN": [*DIGITS, "--model.width=4"],
    "ACGAN": [*DIGITS, "--model.width=4"],
    "ConvolutionalCGAN": [*DIGITS, "--model.width=4"],
    "StyleGAN": [*DIGITS, "--model.width=4"],
    "SAGAN": ["--data=ImageFolder", "--data.data_dir=../classes", "--data.image_size=32", "--model.width=4"],
    "StarGAN": ["--data=ImageFolder", "--data.data_dir=../classes", *FOLDER, "--model.blocks=1"],
    "Pix2Pix": ["--data=PairedFolder", "--data.data_dir=../pairs", *FOLDER, "--quality.metrics=[ssim]"],
    "CycleGAN": ["--data=UnpairedFolder", "--data.data_dir=../domains", *FOLDER, "--model.blocks=1"],
    "DiscoGAN": ["--data=UnpairedFolder", "--data.data_dir=../domains", "--data.image_size=64", "--model.width=4"],
    "SRResNet": ["--data=SuperResolution", "--data.data_dir=../flat", "--data.image_size=32", "--model.width=4"],
}  # fmt: skip
NUMBERS = [0, -1, 1, 2, 0.5, 1e-30, -0.0, 10**9, 10**18, 10**30, float("nan"), float("inf"), -float("inf")]
WORDS = ["", "abc", "null", "true", "1e-3", "0x10", "010", "12:34", "~", "~/x", ".", "..", "/dev/null", "/etc/passwd"]
WORDS += [
    "last",
    "best",
    "auto",
    "*",
    "a b",
    "ü",
    "\ud83d\ude00",
    "a" * 300,
    "torch.nn.Module",
    "DCGAN",
    "gans.losses.Hinge",
]
OTHERS: list[Any] = [None, True, False, [], {}, [1, 2], ["a"], [None], {"a": 1}, {"class_path": "abc"}]
CODE = [
    *("os.system", "builtins.eval", "builtins.exec", "subprocess.run", "subprocess.Popen", "pathlib.Path.touch"),
    *("torch.load", "runpy.run_path", "fuzz_canary.Class", "fuzz_canary.touch"),
]
TOUCH = f"touch {CANARY}"
CODE_OF_ITS_OWN = f"""
def touch(*_, **__):
    open({CANARY!r}, "w").close()

class Class:
    def __init__(self, *_, **__):
        touch()
"""
SMUGGLED: list[Any] = [
    *({"class_path": name, "init_args": {"command": TOUCH}} for name in CODE[:8]),
    *({"class_path": name, "init_args": {"args": TOUCH, "shell": True}} for name in CODE[:6]),
    *({"class_path": name, "dict_kwargs": {"args": TOUCH, "shell": True}} for name in CODE[:6]),
    *CODE,
    f"!!python/object/apply:os.system ['{TOUCH}']",
    f"__import__('os').system('{TOUCH}')",
    f"$({TOUCH})",
    f"`{TOUCH}`",
    f"; {TOUCH}",
]
LONG = ("num_images", "num_real", "max_time", "max_steps", "max_epochs", "min_steps", "min_epochs", "num_nodes")
"""Settings of which large values merely take long, or wait for other machines."""


class Case(NamedTuple):
    """Something to be tried.

    Attributes:
        name: What it is, in a line.
        words: The command line.
        files: What lies in its folder.
        blamed: A word that the sentence must hold; "" for any sentence.
    """

    name: str
    words: list[str]
    files: dict[str, bytes]
    blamed: str = ""


class Outcome(NamedTuple):
    """How a case ended, and the line that says most about it."""

    kind: str
    line: str


# Running cases


def run(case: Case, folder: Path, keep: bool = False) -> Outcome:
    """Try a case in a fork of this process, in a folder that is removed unless something was wrong."""
    folder.mkdir()
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with LOCK:
        child = os.fork()
        if child == 0:
            _child(case.words, folder)
    status, began = None, time.monotonic()
    while status is None and time.monotonic() - began < LIMIT:
        done, code = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if done else None
        time.sleep(0.02)
    if status is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    errors = (folder / ".stderr").read_text(errors="replace")
    outcome = judged(case, status, errors, executed=any(folder.rglob(CANARY)))
    if outcome.kind in ("sentence", "accepted") and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def judged(case: Case, status: int | None, errors: str, executed: bool) -> Outcome:
    """How a case ended, by its exit code (None for one that was killed) and what it printed."""
    lines = [line for line in errors.splitlines() if line.strip()]
    sentences = [line for line in lines if line.startswith("error:")]
    last = lines[-1][:300] if lines else f"exit code {status}, and nothing was printed"
    if executed:
        return Outcome("execution", last)
    if status is None:
        return Outcome("hang", last)
    if status == 0:
        return Outcome("traceback" if "Traceback" in errors else "accepted", "")
    whole = status == 1 and len(sentences) == 1 and lines[-1] == sentences[0] and len(sentences[0]) > 20
    if not whole or "Traceback" in errors:
        return Outcome("traceback", last)
    if case.blamed not in sentences[0]:
        return Outcome("traceback", f"does not name {case.blamed}: {sentences[0]}")
    return Outcome("sentence", sentences[0])


def _child(words: list[str], folder: Path) -> None:
    """In the fork: be ``python train.py words``."""
    code = 70
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.environ["HOME"] = str(folder / "home")
        for number, stream in enumerate((os.devnull, ".stdout", ".stderr")):
            os.dup2(os.open(stream, os.O_RDWR | os.O_CREAT), number)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in enumerate("rww"))
        sys.argv = [str(ROOT / "train.py"), *words]
        sys.path[:0] = [str(folder), str(folder.parent)]
        tqdm._instances.clear()  # the bar of all cases
        tqdm.set_lock(threading.RLock())  # its own is shared by all forks, and one that was killed may hold it
        import train

        try:
            train.main()
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
            if isinstance(exit_.code, str):
                print(exit_.code, file=sys.stderr)
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


# Configurations


def settings_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all settings, those that hold others included."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from settings_in(part, (*path, key))


def at(config: Any, path: tuple[Any, ...]) -> Any:
    """What lies at a place."""
    for key in path:
        config = config[key]
    return config


def mutated(config: dict[str, Any], rng: random.Random) -> tuple[dict[str, Any], str]:
    """A configuration with one setting changed, and what was changed."""
    config = copy.deepcopy(config)
    path = rng.choice([p for p in settings_in(config) if p[-1] != "class_path" or rng.random() < 0.5])
    holder, key = at(config, path[:-1]), path[-1]
    before, name = holder[key], ".".join(map(str, path))
    way = rng.choices(("value", "key", "gone", "moved", "code"), (10, 1.5, 1, 0.5, 2))[0]
    if way == "key" and isinstance(holder, dict):
        wrong = rng.choice([f"{key}s", str(key)[:-1] or "x", str(key).upper(), f"{key} ", "x", "", 1])
        holder[wrong] = holder.pop(key)
        return config, f"{name} is called {wrong!r}"
    if way == "gone" and isinstance(holder, dict):
        del holder[key]
        return config, f"{name} is left out"
    if way == "moved":
        other = rng.choice([p for p in settings_in(config)])
        holder[key] = copy.deepcopy(at(config, other))
        return config, f"{name} = what {'.'.join(map(str, other))} is"
    pool = SMUGGLED if way == "code" else rng.choice((NUMBERS, NUMBERS, WORDS, OTHERS))
    if isinstance(before, bool) or before is None:
        pool = pool if way == "code" else rng.choice((NUMBERS, WORDS, OTHERS))
    value = rng.choice([v for v in pool if not (key in LONG and isinstance(v, int | float) and abs(v) > 1e6)])
    holder[key] = value
    return config, f"{name} = {value!r} (was {str(before)[:60]})"


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
)


def damaged_text(text: str, rng: random.Random) -> tuple[bytes, str]:
    """The file of a configuration that is damaged, and how."""
    lines = text.splitlines()
    number = rng.randrange(len(lines))
    ways: dict[str, Callable[[], Any]] = {
        "cut off": lambda: text[: rng.randrange(len(text))],
        "empty": lambda: "",
        "only a comment": lambda: "# nothing\n",
        "a list": lambda: "- a\n- b\n",
        "a word": lambda: "words\n",
        "a line twice": lambda: "\n".join([*lines[:number], lines[number], *lines[number:]]),
        "the file twice": lambda: text + text,
        "a second trainer": lambda: text + "\ntrainer:\n  max_steps: 1\n",
        "a tab": lambda: "\n".join([*lines[:number], f"\t{lines[number]}", *lines[number + 1 :]]),
        "a line indented": lambda: "\n".join([*lines[:number], f" {lines[number]}", *lines[number + 1 :]]),
        "a line gone": lambda: "\n".join([*lines[:number], *lines[number + 1 :]]),
        "an open quote": lambda: "\n".join([*lines[:number], f'{lines[number]} "', *lines[number + 1 :]]),
        "UTF-16": lambda: text.encode("utf-16"),
        "Latin-1": lambda: (text + "\n# Zürich").encode("latin-1"),
        "UTF-8 with a mark": lambda: text.encode("utf-8-sig"),
        "Windows lines": lambda: text.replace("\n", "\r\n"),
        "zero bytes": lambda: text + "\0\0\0",
        "random bytes": lambda: rng.randbytes(200),
        "some bytes changed": lambda: bytes(b if rng.random() > 0.005 else rng.randrange(256) for b in text.encode()),
        "an alias bomb": lambda: f"{BOMB}\n{text}",
        "an alias bomb in a setting": lambda: f"{BOMB}\nmodel: *a9\n",
        "an alias of itself": lambda: f"{text}\nsamples: &s [*s]\n",
        "deep nesting": lambda: "a: " + "[" * 5000,
        "a tag of Python": lambda: f"{text}\nname: !!python/object/apply:os.system ['{TOUCH}']\n",
        "a new object": lambda: f"{text}\nname: !!python/object/new:os.system ['{TOUCH}']\n",
        "another document": lambda: f"{text}\n---\n{text}",
        "a merge": lambda: f"{text}\nema:\n  <<: *nothing\n",
        "JSON": lambda: json.dumps(yaml.safe_load(text)),
    }
    way = rng.choice(list(ways))
    made = ways[way]()
    return made if isinstance(made, bytes) else made.encode(), f"{way}, about line {number + 1}"


def config_case(number: int, configs: dict[str, dict[str, Any]], seed: int) -> Case:
    """The numbered case of a mutated configuration."""
    rng = random.Random(f"{seed} config {number}")
    gan = rng.choice(list(configs))
    config, text = configs[gan], yaml.safe_dump(configs[gan], sort_keys=False)
    way = rng.choices(("file", "damaged", "typed"), (5, 1.5, 2))[0]
    if way == "damaged":
        content, what = damaged_text(text, rng)
        return Case(f"{gan}: {what}", ["fit", "--config=config.yaml"], {"config.yaml": content})
    if way == "typed":
        path = rng.choice([p for p in settings_in(config) if all(isinstance(k, str) for k in p)])
        key = ".".join(k for k in path if k not in ("init_args", "class_path"))
        pool = rng.choice((NUMBERS, WORDS, OTHERS, SMUGGLED))
        value = rng.choice([v for v in pool if not (path[-1] in LONG and isinstance(v, int | float) and abs(v) > 1e6)])
        shown = value if isinstance(value, str) else json.dumps(value)
        word = rng.choice(
            4 * [f"--{key}={shown}"] + [f"--{key}", f"--{key}s={shown}", f"-{key}={shown}", f"{key}={shown}"]
        )
        word = word.encode(errors="replace").decode()
        return Case(f"{gan}: {word}", ["fit", "--config=config.yaml", word], {"config.yaml": text.encode()})
    changes = []
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        config, what = mutated(config, rng)
        changes.append(what)
    text = yaml.safe_dump(config, sort_keys=False)
    words = [f"{gan}: {', '.join(changes)}", ["fit", "--config=config.yaml"]]
    return Case(*words, {"config.yaml": text.encode(errors="surrogatepass")})  # type: ignore[arg-type]


# Images


FORMATS = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP", "ppm": "PPM"}
MODES = {"PNG": ("RGB", "L", "RGBA", "LA", "P", "1", "I;16"), "TIFF": ("RGB", "L", "CMYK", "F", "I", "LAB", "RGBA")}


def picture(rng: random.Random, mode: str = "RGB", size: tuple[int, int] = (70, 66)) -> Image.Image:
    """A random picture."""
    noise = np.frombuffer(rng.randbytes(size[0] * size[1] * 4), np.uint8).reshape(size[1], size[0], 4)
    if mode in ("F", "I", "I;16"):
        values = {
            "F": noise[..., 0] / np.float32(255),
            "I": noise[..., 0] * np.int32(2**23),
            "I;16": noise[..., 0] * np.uint16(257),
        }
        return Image.fromarray(values[mode])
    return (
        Image.fromarray(noise[..., :3]).convert("L" if mode in ("1", "P", "LA") else "RGB").convert(mode)
        if mode != "LAB"
        else (Image.frombytes("LAB", size, noise[..., :3].tobytes()))
    )


def encoded(image: Image.Image, kind: str) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A file that says it is very large, and holds nothing."""
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def damaged_image(rng: random.Random) -> tuple[str, bytes, str]:
    """A file name, its bytes, and how they were damaged."""
    ending = rng.choice(list(FORMATS))
    kind = FORMATS[ending]
    mode = rng.choice(MODES.get(kind, ("RGB", "L")))
    data = encoded(picture(rng, mode), kind)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 10, 100))):
        changed[rng.randrange(len(data))] = rng.randrange(256)
    start = rng.randrange(len(data))
    ways: dict[str, Callable[[], bytes]] = {
        "as it is": lambda: data,
        "cut off": lambda: data[:start],
        "the beginning only": lambda: data[: rng.randrange(40)],
        "without its beginning": lambda: data[start:],
        "bytes changed": lambda: bytes(changed),
        "zeros in the middle": lambda: data[:start] + bytes(min(300, len(data) - start)) + data[start + 300 :],
        "more behind it": lambda: data + rng.randbytes(1000),
        "empty": lambda: b"",
        "a text": lambda: b"This is no picture.\n" * 20,
        "HTML": lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "zeros": lambda: bytes(1000),
        "random bytes": lambda: rng.randbytes(1000),
        "PostScript": lambda: f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%{TOUCH}) (w) file\n".encode(),
        "a pickle": lambda: f"cos\nsystem\n(S'{TOUCH}'\ntR.".encode(),
        "a huge PNG": lambda: huge_png(rng.choice((20_000, 200_000, 2**31 - 1)), rng.choice((1, 20_000, 2**31 - 1))),
        "one pixel": lambda: encoded(picture(rng, size=(1, 1)), kind),
        "thin": lambda: encoded(picture(rng, size=(rng.choice((1, 2, 8000)), 3)), kind),
        "of another format": lambda: encoded(picture(rng), rng.choice(list(FORMATS.values()))),
        "of another mode": lambda: encoded(picture(rng, rng.choice(MODES["TIFF"])), "TIFF"),
    }
    way = rng.choice(list(ways))
    stem = rng.choice(("broken", "broken", "a b", "ü", "x.y", "-x", "$(touch executed)", "%d", "{0}", "x\ny"))
    return f"{stem}.{ending}", ways[way](), f"{kind} {mode} {way}"


def image_case(number: int, checkpoints: dict[str, Path], seed: int) -> Case:
    """The numbered case of a damaged image."""
    rng = random.Random(f"{seed} image {number}")
    name, data, what = damaged_image(rng)
    place = rng.choice(("classes", "flat", "pairs", "domains", "large", "predict"))
    skip = ["--data.skip_broken=true"] if rng.random() < 0.3 else []
    blamed = name if name.isprintable() else ""
    good = {f"{i}.png": encoded(picture(rng), "PNG") for i in range(9)}
    if place == "predict":
        gan = rng.choice(list(checkpoints))
        words = ["predict", f"--ckpt_path={checkpoints[gan]}", "--data.predict_dir=in", "--run_dir=out"]
        files = {f"in/{n}": d for n, d in ({"good.png": good["0.png"]} | {name: data}).items()}
        words += [*skip, "--trainer.accelerator=cpu"]
        return Case(f"predict by {gan}: {name!r}: {what} {''.join(skip)}", words, files, blamed)
    folders = {
        "classes": ("DCGAN", "ImageFolder", ["data/a", "data/b"]),
        "flat": ("Pix2Pix", "Restoration", ["data"]),
        "pairs": ("Pix2Pix", "PairedFolder", ["data/train"]),
        "domains": ("CycleGAN", "UnpairedFolder", ["data/trainA", "data/trainB"]),
        "large": ("SRResNet", "SuperResolution", ["data"]),
    }
    gan, kind, where = folders[place]
    files = {f"{folder}/{n}": d for folder in where for n, d in good.items()}
    files[f"{rng.choice(where)}/{name}"] = data
    options = [
        w for w in (*GANS[gan], *TINY) if w.startswith(("--model.width", "--model.blocks", "--trainer", "--score"))
    ]
    words = [f"--model={gan}", f"--data={kind}", "--data.data_dir=data", "--data.image_size=32", *options]
    words += ["--data.batch_size=4", "--data.num_workers=1", "--samples.every_n_steps=0", "--health.every_n_steps=0"]
    return Case(f"{place}: {name!r}: {what} {''.join(skip)}", ["fit", *words, *skip], files, blamed)


# The whole


def prepare(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Path]]:
    """Good pictures, the complete configurations of the tiny runs, and checkpoints of some."""
    rng = random.Random(0)
    for name, folders in {
        "classes": ("a", "b"), "flat": (".",), "pairs": ("train",), "domains": ("trainA", "trainB"),
    }.items():  # fmt: skip
        for part in folders:
            (folder / name / part).mkdir(parents=True, exist_ok=True)
            for number in range(12):
                size = (140, 70) if name == "pairs" else (70, 70)
                picture(rng, size=size).save(folder / name / part / f"{number}.png")
    configs: dict[str, dict[str, Any]] = {}
    for gan, words in tqdm(GANS.items(), desc="complete settings", leave=False):
        case = Case(gan, ["fit", f"--model={gan}", *words, *TINY, "--print_config"], {})
        outcome = run(case, folder / f"print-{gan}", keep=True)
        text = (folder / f"print-{gan}/.stdout").read_text()
        if outcome.kind != "accepted":
            sys.exit(f"{gan}: {outcome}")
        configs[gan] = yaml.safe_load(text)
    checkpoints = {}
    for gan in ("Pix2Pix", "CycleGAN", "StarGAN", "SRResNet"):
        outcome = run(
            Case(gan, ["fit", f"--model={gan}", *GANS[gan], *TINY, "--run_dir=out"], {}), folder / f"run-{gan}", True
        )
        if outcome.kind != "accepted":
            sys.exit(f"{gan}: {outcome}")
        checkpoints[gan] = folder / f"run-{gan}/out/checkpoints/last.ckpt"
    return configs, checkpoints


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=int, default=500, help="mutated configurations")
    parser.add_argument("--images", type=int, default=150, help="damaged images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="cases at a time")
    parser.add_argument("--only", nargs="*", help="cases to try, such as config-17 or image-3; their folders are kept")
    parser.add_argument("--out", type=Path, help="folder for the cases; by default a temporary one")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    import sklearn.datasets  # noqa: F401
    import wandb  # noqa: F401

    import train  # noqa: F401

    folder = arguments.out or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fuzz_canary.py").write_text(CODE_OF_ITS_OWN)
    configs, checkpoints = prepare(folder)
    names = [f"config-{i}" for i in range(arguments.configs)] + [f"image-{i}" for i in range(arguments.images)]

    def attempt(name: str) -> tuple[str, Case, Outcome]:
        kind, _, number = name.partition("-")
        case = config_case(int(number), configs, arguments.seed) if kind == "config" else (
            image_case(int(number), checkpoints, arguments.seed)
        )  # fmt: skip
        return name, case, run(case, folder / name, keep=bool(arguments.only))

    counts: dict[str, Counter[str]] = {"config": Counter(), "image": Counter()}
    found: list[tuple[str, Case, Outcome]] = []
    with ThreadPoolExecutor(arguments.workers) as pool:
        chosen = arguments.only or names
        for name, case, outcome in tqdm(pool.map(attempt, chosen), total=len(chosen), desc="cases", unit="case"):
            counts[name.partition("-")[0]][outcome.kind] += 1
            found.append((name, case, outcome))
            if outcome.kind not in ("sentence", "accepted") or arguments.only:
                tqdm.write(f"{outcome.kind:10} {name}  {case.name}\n           {outcome.line}")
    for title, kind in (("accepted", "accepted"), ("sentences", "sentence")):
        print(f"\n{title}:")
        for name, case, outcome in found:
            if outcome.kind == kind:
                print(f"  {name:10}  {case.name}" + (f"\n              {outcome.line}" if outcome.line else ""))
    print(f"\n{'':8}" + "".join(f"{kind:>11}" for kind in KINDS))
    for part, count in counts.items():
        print(f"{part + 's':8}" + "".join(f"{count[kind]:11,}" for kind in KINDS))
    wrong = sum(count[kind] for count in counts.values() for kind in KINDS[2:])
    if wrong or arguments.only or arguments.out:
        print(f"cases are in {folder}")
    else:
        shutil.rmtree(folder)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
