"""Configuration files as people write them, and paths that begin with ~."""

import json
import math

import pytest
import yaml

from callbacks.command_line.config_files import UNFOLDED, settings_in, text_of, with_home
from command_line import ROOT, assert_one_sentence, run_train

QUICK = ["--config", ROOT / "configs/quickstart.yaml", "--trainer.accelerator=cpu", "--trainer.logger=false"]
ALIASES = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]
WRONG = {  # by what is wrong: what a file holds, and what is said of it beside its name
    "empty": (b"", ["holds no settings"]),
    "comments alone": (b"# model: DCGAN\n---\n", ["holds no settings"]),
    "a list": (b"- model: DCGAN\n", ["holds a list"]),
    "a word": (b"max_steps 3\n", ["holds only 'max_steps 3'"]),
    "a tab": (b"model:\n\tclass_path: DCGAN\n", ["line 2, column 1", "tab"]),
    "an indentation": (b"model:\n   class_path: DCGAN\n  init_args:\n", ["line 3"]),
    "an open quote": (b'name: "x\nmodel: DCGAN\n', ["line 3", "quoted scalar from line 1"]),
    "an open bracket": (b"data:\n  classes: [a, b\n", ["line 3", "flow sequence from line 2"]),
    "two documents": (b"model: DCGAN\n---\ndata: MNIST\n", ["line 2", "another document"]),
    "a key twice": (
        b"trainer:\n  max_steps: 3\nmodel: DCGAN\ntrainer:\n  min_steps: 1\n",
        ["key trainer", "lines 1 and 4"],
    ),
    "an inner key twice": (b"trainer:\n  max_steps: 3\n  max_steps: 4\n", ["key max_steps", "lines 2 and 3"]),
    "a key twice in JSON": (b'{"a": {"b": 1, "b": 2}}', ["key b", "line 1"]),
    "a key that is a list": (b"? [a, b]\n: 1\n", ["key must be a word"]),
    "UTF-16": ("name: x".encode("utf-16"), ["UTF-16", "save it as UTF-8"]),
    "Latin-1": ("model: DCGAN\nname: Bäume".encode("latin-1"), ["line 2 is not UTF-8", "0xe4"]),
    "a program": (b"\x7fELF\x02\x00", ["no text"]),
    "control characters": (b"name: \x07", ["special characters"]),
    "many aliases": ("\n".join(ALIASES).encode(), ["aliases unfold"]),
    "long aliases": (b"a: &a " + b"x" * 50_000 + b"\nb: [" + b"*a," * 100 + b"]", ["aliases unfold"]),
    "an alias in itself": (b"model: &a\n  class_path: *a\n", ["*a stands inside of itself"]),
    "an alias of nothing": (b"model: *a\n", ["undefined alias 'a'"]),
    "depth": (b"model: " + b"[" * 50_000, ["levels"]),
    "size": (b"name: " + b"x" * 200_000, ["100 kB"]),
    "a long number": (b"name: " + b"9" * 5000, ["4300 digits"]),
    "code": (b"model: !!python/object/apply:os.system ['touch marker']\n", ["tag", "os.system"]),
    "half a character": (b'{"name": "\\ud83d"}', ["line 1, column 10", "half a character"]),
    "another tag": (b"model: !DCGAN {}\n", ["tag !DCGAN"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_file_and_where(case, tmp_path):
    content, said = WRONG[case]
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ValueError) as error:
        settings_in(text_of(tmp_path / "mine.yaml"))
    for words in said:
        assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_opened(tmp_path):
    for path, words in (
        (tmp_path, "directory"),
        (tmp_path / "nowhere.yaml", "No such file"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(ValueError, match=words):
            text_of(path)


VALUES = {
    "1e-3": 0.001,
    "1E5": 100_000.0,
    "2.": 2.0,
    "-.5": -0.5,
    ".inf": math.inf,
    "1_000": 1000,
    "010": 10,  # as it is typed on the command line, and not octal
    "0x1f": 31,
    "1:30": "1:30",  # and not 90
    "10:00:00:00": "10:00:00:00",
    "2024-01-02": "2024-01-02",
    "on": True,
    "No": False,
    "~": None,
    "1.2.3": "1.2.3",
    "1e": "1e",
    "=": "=",
}


def test_values_mean_what_they_mean_on_the_command_line():
    assert {text: settings_in(f"a: {text}")["a"] for text in VALUES} == VALUES
    assert math.isnan(settings_in("a: .nan")["a"])
    assert list(settings_in("1: a\non: b\nnull: c\n010: d")) == ["1", "on", "null", "010"]  # keys are words


def test_files_of_all_sorts(tmp_path):
    expected = {"model": {"class_path": "DCGAN", "init_args": {"width": 3}}}
    text = yaml.safe_dump(expected)
    for content in (
        b"\xef\xbb\xbf" + text.encode(),
        text.replace("\n", "\r\n").encode(),
        json.dumps(expected, indent=1).encode(),
        b"%YAML 1.2\n---\n" + text.encode() + b"...\n",
        b"x: &x {width: 3}\nmodel: {class_path: DCGAN, init_args: {<<: *x}}\n",
    ):
        (tmp_path / "mine.yaml").write_bytes(content)
        assert settings_in(text_of(tmp_path / "mine.yaml"))["model"] == expected["model"]
    assert settings_in(json.dumps({"\N{CAMERA}": ["\N{CAMERA}"]})) == {"\N{CAMERA}": ["\N{CAMERA}"]}
    assert settings_in(yaml.safe_dump({"a": "caf\udce9"})) == {"a": "caf\udce9"}  # a file's name in Latin-1
    assert settings_in("a: {<<: {b: 1, c: 2}, b: 3}") == {"a": {"b": 3, "c": 2}}
    assert settings_in("class_path: A\ninit_args:\n  # width: 3") == {"class_path": "A"}
    many = "a: &a " + "x" * 1000 + "\nb: [" + "*a, " * (UNFOLDED // 2000) + "]"
    assert len(settings_in(many)["b"]) == UNFOLDED // 2000


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert with_home("~/x") == f"{tmp_path}/x"
    assert with_home("~") == str(tmp_path)
    for text in ("x~/y", "~nobody-of-this-name/x", "a/~/b", ""):
        assert with_home(text) == text
    assert settings_in("a: [~/x, '~/y']\nb: ~") == {"a": [f"{tmp_path}/x", f"{tmp_path}/y"], "b": None}


# Through the command line


@pytest.mark.parametrize("case", ["a key twice", "Latin-1", "many aliases"])
def test_the_command_line_names_the_file(case, tmp_path):
    content, said = WRONG[case]
    (tmp_path / "mine.yaml").write_bytes(content)
    assert_one_sentence(run_train([*QUICK, "--config=mine.yaml"], tmp_path), ["--config=mine.yaml", *said])
    assert_one_sentence(run_train([*QUICK, "--score=mine.yaml"], tmp_path), ["--score=mine.yaml", *said])


def test_home_in_words_lists_and_files(tmp_path):
    """A whole run whose every path lies in the home directory, which is the folder that it runs in."""
    (tmp_path / "mine.yaml").write_text(
        "model: {class_path: DCGAN, init_args: {width: 4, generator_optimizer: {init_args: {lr: 1e-3}}}}\n"
        "data: {class_path: Digits, init_args: {image_size: 16, data_dir: ~/data}}\n"
        "trainer: {max_steps: 1, max_time: 10:00:00:00}\n"
        "score: {features: pixels, cache_dir: '~/cache', num_images: 64}\n"
    )
    done = run_train([*QUICK[2:], "--config", "~/mine.yaml", "--run_dir=~/run"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"run", "cache", "data"}
    assert not (tmp_path / "~").exists()
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert config["model"]["init_args"]["generator_optimizer"]["init_args"]["lr"] == 0.001
    assert config["trainer"]["max_time"] == "10:00:00:00"
    done = run_train(
        ["predict", "--ckpt_path=~/run/checkpoints/last.ckpt", "--run_dir=~/made", "--model.predict_images=2"], tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "made/images").glob("0*.png"))) == 2
    options = ["--ckpt_path", "~/a.ckpt", "--score.weights=~/b.pt", "--data.classes=[~/c,d]", "--data.predict_dir=~/e"]
    options += ["--trainer.default_root_dir=~/f", "--quality.lpips_weights=~/g", "--score.real_statistics=~/h"]
    done = run_train([*QUICK, *options, "--print_config"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "~" not in done.stdout.replace("~/.cache/gan-lab", "")
    for name in ("a.ckpt", "b.pt", "c", "e", "f", "g", "h"):
        assert f"{tmp_path}/{name}" in done.stdout


def test_sections_that_are_no_mappings(tmp_path):
    (tmp_path / "mine.yaml").write_text("trainer: 3\n")
    assert_one_sentence(run_train([*QUICK, "--config=mine.yaml"], tmp_path), ["trainer holds 3", "mine.yaml"])
    assert_one_sentence(run_train([*QUICK, "--config", "score: [1"], tmp_path), ["--config=score: [1", "column 10"])


def test_one_word_for_the_optimizers_and_schedules_of_all_networks(tmp_path):
    typed = [
        "--model.optimizers=RMSprop",
        "--model.optimizers.lr",
        "1e-3",
        "--model.schedulers={class_path: ConstantLR}",
    ]
    done = run_train([*QUICK, *typed, "--print_config"], tmp_path)
    assert done.returncode == 0, done.stderr
    model = yaml.safe_load(done.stdout)["model"]["init_args"]
    for network in ("generator", "discriminator"):
        assert model[f"{network}_optimizer"]["class_path"] == "torch.optim.RMSprop"
        assert model[f"{network}_optimizer"]["init_args"]["lr"] == 1e-3
        assert model[f"{network}_scheduler"]["class_path"] == "torch.optim.lr_scheduler.ConstantLR"
    assert_one_sentence(run_train([*QUICK, "--model.optimizers.rate=1"], tmp_path), ["_optimizer.rate does not exist"])
    assert_one_sentence(run_train(["--model.optimizers.lr=1"], tmp_path), ["--model.optimizers"])
