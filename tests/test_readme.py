"""What the README and the configs show works as it stands there."""

import json
import re
import shlex

import pytest
import torch
from test_configs import write_pictures

from command_line import CONFIGS, ROOT, run_train

README = (ROOT / "README.md").read_text()
PLACEHOLDERS = re.compile(r"RUN|HOST|\.\.\.|=last|--help|predict|validate")
COMMANDS = [
    line.split("train.py")[1].partition("  #")[0].strip()
    for line in README.splitlines()
    if "python train.py --config" in line and not PLACEHOLDERS.search(line)
]


def test_snippets_run(tmp_path, monkeypatch):
    """In order, in one folder, as a reader would paste them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippets) == 3
    names = {}
    for snippet in snippets:
        names = {"__name__": "readme"}
        exec(snippet, names)
        if "images" in names:
            assert names["images"].shape[1:] == (1, 32, 32)
        if "Mine" in names:
            assert names["Mine"]((1, 8, 8)).sample(2).shape == (2, 1, 8, 8)
    assert len(names["Shapes"](image_size=16).items("train")[0]) == 1000


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_valid(command, tmp_path):
    arguments = [str(ROOT / word) if word.startswith("configs/") else word for word in shlex.split(command)]
    done = run_train([*arguments, "--print_config"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "max_steps" in done.stdout
    assert "Unable to serialize" not in done.stdout


def test_both_stages_of_super_resolution_as_they_stand_there(tmp_path):
    """The second needs nothing but the first's checkpoint and the photographs; its run then needs the first no more."""
    write_pictures(tmp_path / "my_photographs", 4, 80, 96)
    write_pictures(tmp_path / "my_test_photographs", 1, 40, 32)
    quick = ["--trainer.max_steps=2", "--trainer.logger=false", "--trainer.accelerator=cpu", "--data.batch_size=2"]
    for stage, less in (
        ("pretrain", ["--model.width=8", "--model.blocks=2"]),
        ("finetune", ["--model.critic_warm_up=2"]),
    ):
        (command,) = (
            line for line in README.splitlines() if line.startswith(f"python train.py --config configs/srgan/{stage}")
        )
        words = shlex.split(
            command.partition("  #")[0].replace("RUN", "pretrain").replace("configs/", f"{ROOT}/configs/")
        )[2:]
        done = run_train([*words, *quick, *less, f"--run_dir={stage}"], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "pretrain/checkpoints/best.ckpt").unlink()
    done = run_train(["validate", "--ckpt_path=finetune/checkpoints/last.ckpt"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "quality/psnr" in done.stdout
    saved = torch.load(tmp_path / "finetune/checkpoints/last.ckpt", weights_only=True)
    assert saved["state_dict"]["generator.output.weight"].shape == (3, 8, 9, 9)


def test_every_config_begins_with_its_command():
    for path in CONFIGS:
        assert path.read_text().startswith(f"# python train.py --config {path.relative_to(ROOT)}")


@pytest.mark.slow
def test_the_quickstart_learns_digits(tmp_path):
    """The distance to the digits falls well below that of the first score, and the pictures are there."""
    done = run_train(["--config", ROOT / "configs/quickstart.yaml", "--run_dir=out"], tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    history = json.loads((tmp_path / "out/scores.json").read_text())["history"]
    assert history[-1]["scores"]["score/frechet_pixels"] < 0.5
    assert (tmp_path / "out/samples/step_0001500.png").exists()
