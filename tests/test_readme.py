"""What the README and the configs show works as it stands there."""

import json
import re
import shlex

import pytest

from command_line import ROOT, run_train

README = (ROOT / "README.md").read_text()
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
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
    assert len(snippets) == 4
    names = {}
    for snippet in snippets:
        names = {"__name__": "readme"}
        exec(snippet, names)
        if "images" in names:
            assert names["images"].shape[1:] == (1, 32, 32)
    model = names["Mine"](image_shape=(1, 8, 8))
    assert model.sample(2).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_valid(command, tmp_path):
    arguments = [str(ROOT / word) if word.startswith("configs/") else word for word in shlex.split(command)]
    done = run_train([*arguments, "--print_config"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "max_steps" in done.stdout
    assert "Unable to serialize" not in done.stdout


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
