"""Papers that somebody adds with nothing but the README: to the lab, or in a folder of their own."""

import re
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from test_configs import write_pictures
from test_readme import README

from command_line import ROOT, run_train

PAPERS = ROOT / "tests/outside"
QUICK = [
    *("--trainer.accelerator=cpu", "--trainer.max_epochs=-1", "--trainer.logger=false", "--score.num_images=0"),
    *("--data.image_size=16", "--data.batch_size=4", "--samples.count=2", "--views.every_n_steps=0", "--run_dir=out"),
]
NAMES = {"began": "BEGAN", "ralsgan": "RaLSGAN", "travelgan": "TraVeLGAN", "pix2pixhd": "Pix2PixHD"}
DATA = {"began": "Digits", "ralsgan": "Digits", "travelgan": "UnpairedFolder", "pix2pixhd": "PairedFolder"}
SMALL = {
    "began": ["--model.k_rate=0.1", "--model.gamma=1"],
    "ralsgan": ["--model.latent_dim=8"],
    "travelgan": ["--model.blocks=1", "--model.dim=4", "--model.siamese_optimizer.lr=1e-3"],
    "pix2pixhd": ["--model.blocks=1"],
}


def lab_with(folder, **files):
    """A copy of the lab with more papers in it, each a file and a line."""
    for room in ("gans", "datamodules", "callbacks", "tests", "configs"):
        (folder / room).mkdir(parents=True)
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                target = folder / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(path.read_text())
    for name in ("train.py", "README.md", "pyproject.toml"):
        (folder / name).write_text((ROOT / name).read_text())
    for name, text in files.items():
        (folder / f"gans/{name}.py").write_text(text)
        cls = re.search(r"^class (\w+)\((?:NoiseGAN|AnyLoss|AdversarialModule)", text, re.MULTILINE)[1]
        with (folder / "gans/__init__.py").open("a") as init:
            init.write(f'\nfrom gans.{name} import {cls}\n__all__ += ["{cls}"]\n')


def shared_tests(folder, names):
    """Which of the tests that all GANs share some pass; no other ends otherwise."""
    tests = ["tests/gans/test_base.py", "tests/gans/test_translation.py", "tests/gans/test_checkpoints.py"]
    tests += ["tests/gans/test_memory.py", "tests/test_batches.py", "tests/test_by_hand.py"]
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "0",
        "-rp",
        "-p",
        "no:cacheprovider",
        *tests,
        "-k",
        " or ".join(names),
    ]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return [line for line in done.stdout.splitlines() if line.startswith("PASSED")]


def test_the_readmes_own_gan_and_other_papers_pass_the_tests_that_all_share(tmp_path):
    (text,) = (snippet for snippet in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class Mine" in snippet)
    lab_with(tmp_path, mine=text, **{name: (PAPERS / f"{name}.py").read_text() for name in NAMES})
    passed = shared_tests(tmp_path, ["Mine", *NAMES.values()])
    assert sum("[Mine" in line for line in passed) > 35
    assert sum("[Mine" not in line for line in passed) > 150


@pytest.mark.parametrize("name", NAMES)
def test_a_paper_in_a_folder_of_ones_own_trains_on_one_and_two_ranks(name, tmp_path, forking):
    """And goes on with another number of ranks: weights, all optimizers, and what it remembers."""
    text = (PAPERS / f"{name}.py").read_text()
    assert len(text.splitlines()) < 120
    (tmp_path / f"{name}.py").write_text(text)
    for part in ("trainA", "trainB", "valA", "valB"):
        write_pictures(tmp_path / "pictures" / part, 8, 16, 16)
    data = [f"--data={DATA[name]}"] + (["--data.data_dir=pictures"] if "Folder" in DATA[name] else [])
    run = [f"--model={name}.{NAMES[name]}", "--model.width=4", *data, *SMALL[name], *QUICK]
    paths = forking | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{tmp_path}"}
    kept = []
    for steps, devices in ((2, 1), (4, 2), (6, 1)):
        more = ["--ckpt_path=last"] if kept else []
        done = run_train(
            [*run, *more, f"--trainer.devices={devices}", f"--trainer.max_steps={steps}"], tmp_path, **paths
        )
        assert done.returncode == 0, done.stderr
        assert "starts anew" not in done.stdout + done.stderr
        kept.append(torch.load(tmp_path / "out/checkpoints/last.ckpt", weights_only=True))
        assert kept[-1]["global_step"] == steps
        assert len(kept[-1]["gan"]["ranks"]) == devices
        assert len(kept[-1]["optimizer_states"]) == (3 if name == "travelgan" else 2)
    for before, after in pairwise(kept):
        assert before["gan"]["images_seen"] < after["gan"]["images_seen"]
        moved = [key for key, w in before["state_dict"].items() if not torch.equal(w, after["state_dict"][key])]
        assert {key.split(".")[0] for key in moved} >= set(after["gan"]["optimizers"])
    if name == "began":
        seen = [each["gan"]["state"]["k"].item() for each in kept]
        assert len(set(seen)) == 3
        assert all(k >= 0 for k in seen)
    if name == "travelgan":
        assert kept[-1]["optimizer_states"][2]["param_groups"][0]["lr"] == 1e-3
    if name == "ralsgan":
        assert [part["class_path"].rpartition(".")[2] for part in kept[-1]["gan"]["parts"]["penalty"]] == ["R1", "R2"]
