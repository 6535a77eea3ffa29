"""How large pages of ``train.py explore`` are, and how fast their networks run in Chromium, beside PyTorch.

    python tests/benchmarks/showing.py [--sizes 32 64 128 256] [--gans DCGAN StyleGAN Pix2Pix CycleGAN] [--turns 5]

Networks are of the classes' default width and untrained. A page is opened from its file, and draws one image at a time;
PyTorch does the same with one thread, in float32. Medians. Needs ``pip install -e '.[test-browser]'`` and a Chromium.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from machine import machine
from playwright.sync_api import sync_playwright
from tqdm import tqdm

import gans
from callbacks.showing.page import page
from callbacks.showing.runtime import runtime
from gans.export.show import shown

NOISE = "async () => { await lab.models[0].draw([lab.current()], [lab.large[0]], 1); return lab.milliseconds; }"
IMAGE = "async () => { await lab.use(); return lab.milliseconds; }"
PLAIN = {"title": "", "facts": [], "colours": {}, "directions_of_data": ["A to B", "B to A"], "neighbors": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=[32, 64, 128, 256], type=int, nargs="+")
    parser.add_argument("--gans", default=["DCGAN", "StyleGAN", "Pix2Pix", "CycleGAN"], nargs="+")
    parser.add_argument("--turns", default=5, type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = runtime()
    rows = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        cases = [(name, size) for name in options.gans for size in options.sizes]
        for name, size in tqdm(cases, desc="pages", leave=False):
            model = getattr(gans, name)((3, size, size)).eval()
            values, networks = shown(model)
            path = Path(folder) / "page.html"
            path.write_text(page("", [values | PLAIN], [networks], files), encoding="utf-8")
            place = browser.new_page()
            began = time.perf_counter()
            place.goto(path.as_uri())
            place.wait_for_selector("#main:not([hidden])", timeout=300_000)
            loaded = time.perf_counter() - began
            script = NOISE if "directions" in values else IMAGE
            drawn = [place.evaluate(script) for _ in range(options.turns + 1)][1:]
            place.close()
            portable = model.portable()["generator"]
            given = portable.draw(batch=1, height=size, width=size)
            beside = []
            for _ in range(options.turns + 1):
                began = time.perf_counter()
                portable.call(*given)
                beside.append((time.perf_counter() - began) * 1000)
            here, there = statistics.median(drawn), statistics.median(beside[1:])
            network = sum(map(len, networks.values())) / 2**20
            whole = path.stat().st_size / 2**20
            numbers = network, whole, loaded, here, here / there
            rows.append(f"| {name} | {size} | {' | '.join(f'{number:.1f}' for number in numbers)} |")
        version = browser.version
        browser.close()
    print(f"{machine()}, Chromium {version}\n")
    print("| GAN | px | ONNX, MiB | Page, MiB | Loaded after, s | ms an image | Beside PyTorch |")
    print("|---|---|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()
