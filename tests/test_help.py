"""Help lists what can be set, and what is wrong on a command line is said with what was probably meant."""

import re
import sys

import pytest

from callbacks.command_line.classes import class_parser, names_for
from callbacks.command_line.help import listed
from command_line import ROOT, run_train
from train import CLASSES

QUICK = ["--config", str(ROOT / "configs/quickstart.yaml")]


def helped(words, folder):
    done = run_train(words, folder)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 120
    return done.stdout


def test_help_is_short_and_says_where_the_rest_is(tmp_path):
    text = helped(["fit", "--help"], tmp_path)
    assert len(text.splitlines()) < 125
    for key in (
        "run_dir=",
        "ckpt_path=",
        "samples.every_n_steps=500",
        "score.num_images=10000",
        "trainer.max_steps=-1",
    ):
        assert f"  --{key}" in text
    for name in (*names_for("model"), *names_for("data")):
        assert re.search(rf"\b{name}\b", text)
    assert "--trainer.help" in text
    assert "--trainer.detect_anomaly" not in text
    assert "  --trainer.detect_anomaly=false" in helped(["--trainer.help"], tmp_path)


def test_help_of_one_section(tmp_path):
    text = helped(["--score.help"], tmp_path)
    assert "  --score.seed=0 " in text
    assert "--health" not in text


def test_help_of_the_gan_and_the_data_that_are_named(tmp_path):
    """In a configuration, as words, and one of the two alone; in any order."""
    (tmp_path / "mine.yaml").write_text("model: SRGAN\ndata: {class_path: datamodules.SuperResolution}\n")
    by_file = helped(["--config=mine.yaml", "--help"], tmp_path)
    by_name = helped(["fit", "-h", "--model=SRGAN", "--data", "SuperResolution"], tmp_path)
    assert by_file == by_name
    for line in ("--model.content=vgg54 ", "--model.width=null ", "--data.test_dir=null ", "--data.scale=4 "):
        assert f"  {line}" in by_file
    assert "There are NonSaturating, Minimax" in " ".join(by_file.split())
    assert re.search(r"--model.discriminator_width=64 .*; at least 1\.\n", by_file)
    assert "With .lr=0.0001 .beta1=0.9" in by_file
    assert "--model.image_shape" not in by_file  # the data says it
    one = helped(["validate", "--model=WGANGP", "--help"], tmp_path)
    assert "  --model.n_critic=5 " in one
    assert "  --data=NAME" in one
    assert "--samples.count" not in one  # which only training has


@pytest.mark.parametrize(("key", "name"), [(key, name) for key in CLASSES for name in names_for(key)])
def test_every_setting_of_every_class_is_explained(key, name):
    cls = CLASSES[key][name]
    lines = listed(class_parser(cls, key), key)
    heads = [i for i, line in enumerate(lines) if line.startswith("  --")]
    assert len(heads) > 5
    for i in heads:
        beside = lines[i].strip().partition(" ")[2] or lines[i + 1]
        assert beside.strip(), lines[i]
        assert not beside.startswith("  --")


SAID = {  # by what is typed: what is said of it
    "--model.lr=1e-3": ["--model.lr does not exist", "did you mean --model.generator_optimizer.lr?"],
    "--model.widht=4": ["did you mean --model.width?"],
    "--model=CUT --model.penalty=R1": ["--model.penalty does not exist", "CUT has its paper's own"],
    "--model.batch_size=4": ["did you mean --data.batch_size?"],
    "--max_steps=4": ["did you mean --trainer.max_steps?"],
    "--epochs=4": ["did you mean --trainer.max_epochs?"],
    "--seed=4": ["did you mean --seed_everything?"],
    "--model.foo=4": ["python train.py fit --model=DCGAN --help lists"],
    "--trainer.foo=4": ["python train.py fit --trainer.help lists"],
    "--model.generator_optimizer.foo=4": ["--model.generator_optimizer.foo", "Adam has lr, beta1"],
    "--model.loss.margin=4": ["--model.loss.margin", "NonSaturating has no settings"],
    "--model.loss=Hinges": ["--model.loss=Hinges", "did you mean Hinge? There are NonSaturating, Minimax"],
    "--model.penalty=R3": ["--model.penalty=R3", "did you mean R1? There are GradientPenalty, R1"],
    "--model.penalty.weight=3": ["--model.penalty.weight=3", "--model.penalty=NAME"],
    "--model=Dcgann": ["--model=Dcgann", "did you mean DCGAN?", "StyleGAN"],
    "--data=Mnist": ["--data=Mnist", "did you mean MNIST?", "UnpairedFolder"],
    "--data=mine.yaml": ["--data=mine.yaml is no file"],
    "--model.generator_optimizer=sgd": ["--model.generator_optimizer=sgd", "did you mean SGD?", "RMSprop"],
    "--score.metrics=[fid] --model.width=x": ["--model.width=x must be a whole number"],
    "--data.seed=x": ["--data.seed=x must be a whole number or null"],
    "--score.foo=4": ["--score.foo does not exist"],
    "--model.generator_scheduler=Cosine": ["--model.generator_scheduler=Cosine", "did you mean CosineAnnealing"],
    "--model.generator_scheduler=CosineAnnealingLR": ["--model.generator_scheduler.T_max is needed"],
    "--data.augment+=kornia.augmentation.RandomAfine": ["did you mean kornia.augmentation.RandomAffine"],
    "--trainer.callbacks+=ModelSumary": ["did you mean ModelSummary"],
    "--model.width=": ["--model.width= must be a whole number"],
    "--model.generator_optimizer.lr=fast": ["--model.generator_optimizer.lr=fast must be a number"],
    "--quality.lpips_net=vgg16": ["--quality.lpips_net=vgg16 must be alex, vgg or squeeze"],
    "--data.oversample.cat=x": ["--data.oversample.cat=x must be a whole number"],
    "--data.classes=[a,b": [r"--data.classes=\[a,b cannot be read", "close its brackets"],
    "--trainer.callbacks=[{class_path:": ["--trainer.callbacks=", "close its brackets"],
    "--model.width": ["--model.width is given no value"],
    "configs/a.yaml": ["configs/a.yaml", "did you mean --config=configs/a.yaml?"],
    "DCGAN": ["did you mean --model=DCGAN?"],
    "\N{EN DASH}config": ["did you mean --config?"],
    "--=3": ["--=3"],
    "-health=3": ["-health=3", "did you mean --health"],
    "-x": ["-x", "two hyphens"],
}


def said(monkeypatch, capsys, *words):
    """What the command line ends with, in this process."""
    import train

    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as end:
        train.main()
    assert "Traceback" not in capsys.readouterr().err
    (line,) = str(end.value.code).splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("typed", SAID)
def test_what_is_wrong_and_what_was_meant(typed, monkeypatch, capsys):
    monkeypatch.setattr("train.SIGNALS.install", lambda: None)
    words = typed.split(" --")
    line = said(monkeypatch, capsys, "fit", *QUICK, words[0], *(f"--{word}" for word in words[1:]))
    for pattern in SAID[typed]:
        assert re.search(pattern.replace("?", r"\?").replace("+", r"\+"), line), line


@pytest.mark.parametrize(
    ("words", "culprits"),
    [
        (["trian", *QUICK], ["trian", "did you mean fit?"]),
        (["Validate"], ["did you mean validate?"]),
        (["fit"], ["--model=DCGAN", "--data=MNIST", "--config=configs/quickstart.yaml"]),
        (["--model=DCGAN"], ["training needs a data set, such as --data=MNIST"]),
        (["--config=nowhere"], ["--config=nowhere cannot be read: File does not exist"]),
        (["--config=nowhere.yaml"], ["--config=nowhere.yaml cannot be read: it does not exist"]),
        (["--config="], ["--config= cannot be read: it holds no settings"]),
        (["predict"], ["--ckpt_path"]),
        (["validate"], ["--ckpt_path"]),
    ],
)
def test_what_is_missing(words, culprits, monkeypatch, capsys):
    monkeypatch.setattr("train.SIGNALS.install", lambda: None)
    line = said(monkeypatch, capsys, *words)
    for culprit in culprits:
        assert culprit in line


def test_mistakes_in_files_name_key_and_file(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("train.SIGNALS.install", lambda: None)
    monkeypatch.chdir(tmp_path)
    for text, culprits in {
        "model: {class_path: DCGAN, init_args: {widht: 3}}": ["did you mean --model.width?"],
        "model: {class_path: DCGAN, init_args: {width: wide}}": ["--model.width=wide must be a whole number"],
        "model: {class_path: DCGAN, init_args: {loss: Hinges}}": ["--model.loss=Hinges", "did you mean Hinge?"],
        "model: {class_path: DCGAN, init_arg: {width: 3}}": ["did you mean --model.width?"],
        "model: {init_args: {generator_optimizer: {class_path: SGD, lr: 3}}}": [
            "--model.generator_optimizer",
            "init_args",
        ],
    }.items():
        (tmp_path / "mine.yaml").write_text(text)
        line = said(monkeypatch, capsys, "fit", *QUICK, "--config=mine.yaml")
        for culprit in (*culprits, "mine.yaml"):
            assert culprit in line
