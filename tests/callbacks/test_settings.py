import json
import os
import pkgutil
import re
import sys
import time

import pytest
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim.lr_scheduler import StepLR

import datamodules
import gans
from callbacks.command_line.annotations import judge
from callbacks.runs.secrets import masked, without_secrets
from callbacks.runs.settings import allowed_settings
from command_line import CONFIGS, ROOT, run_train
from datamodules.images.module import ImageDataModule
from gans import losses, optimizers, penalties
from gans.training.module import GANModule


def spellings(package, base):
    """All names of the classes that a package or module offers."""
    found = {name: cls for name, cls in vars(package).items() if isinstance(cls, type) and issubclass(cls, base)}
    return {
        spelling: cls
        for name, cls in found.items()
        for spelling in (
            name,
            f"{package.__name__}.{name}",
            f"{cls.__module__}.{name}",
            f"gans.{cls.__module__.split(chr(46))[-1]}.{name}",
        )
    }


CLASSES = {"model": spellings(gans, GANModule), "data": spellings(datamodules, ImageDataModule)}
PARTS = {
    losses.AdversarialLoss: spellings(losses, losses.AdversarialLoss),
    penalties.Penalty: spellings(penalties, penalties.Penalty),
}
CONFIG = {
    "seed_everything": 3,
    "trainer": {"precision": "bf16-mixed", "limit_val_batches": 0.5, "max_steps": 5, "default_root_dir": "out"},
    "model": {
        "class_path": "gans.DCGAN",
        "init_args": {
            "width": 4,
            "loss": {"class_path": "gans.losses.LeastSquares", "init_args": {"a": -1.0}},
            "penalty": None,
            "weight_clip": None,
            "spectral_norm": False,
            "generator_optimizer": {"class_path": "gans.optimizers.Adam", "init_args": {"lr": 0.1}},
            "generator_scheduler": None,
            "diff_augment": "color",
        },
    },
    "data": {
        "class_path": "datamodules.ImageFolder",
        "init_args": {"image_size": 16, "channels": 1, "classes": ["a", "b"], "oversample": {"a": 2}, "augment": None},
    },
    "samples": {"count": 64},
    "score": {"features": "pixels", "num_images": 100, "real_statistics": None},
    "quality": {"metrics": ["psnr"], "luminance": True},
    "neighbors": {"count": 0},
    "views": {"columns": 10},
    "weights_only": None,
}


def written(path, **changes):
    """A run's configuration with some values changed, under keys such as model__init_args__loss."""
    config = yaml.safe_load(yaml.safe_dump(CONFIG))
    for key, value in changes.items():
        *parents, name = key.split("__")
        place = config
        for parent in parents:
            place = place[parent]
        place[name] = value
    path.write_text(yaml.safe_dump(config))
    return path


def allowed(path):
    return allowed_settings(path, CLASSES, PARTS)


def sentence(path):
    """What is said of a file that is refused: one line, not long, with the file's name in it."""
    with pytest.raises(MisconfigurationException) as caught:
        allowed(path)
    said = str(caught.value)
    assert len(said) < 450
    assert said.isprintable()
    assert path.name in said
    assert "--config=PATH" in said
    return said


# What a run folder may say


def test_what_scoring_and_sampling_need_is_left(tmp_path):
    config = allowed(written(tmp_path / "config.yaml"))
    expected = yaml.safe_load(yaml.safe_dump(CONFIG))
    expected["trainer"] = {"precision": "bf16-mixed", "limit_val_batches": 0.5}
    del expected["model"]["init_args"]["generator_optimizer"], expected["model"]["init_args"]["generator_scheduler"]
    del expected["data"]["init_args"]["augment"], expected["samples"], expected["weights_only"]
    assert config == expected


@pytest.mark.parametrize("shipped", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_allowed(shipped, tmp_path):
    """As a run writes it down, without aliases."""
    given = yaml.safe_load(shipped.read_text())
    (tmp_path / "config.yaml").write_text(json.dumps(given))
    config = allowed(tmp_path / "config.yaml")
    for key in ("model", "data"):
        arguments, kept = given[key].get("init_args", {}), config[key]["init_args"]
        for name, value in arguments.items():
            if name.endswith(("_optimizer", "_scheduler")):
                assert name not in kept
            elif isinstance(value, dict) and "class_path" in value:
                assert kept[name] == {"init_args": {}} | value
            else:
                assert kept[name] == value


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "DCGAN", "data": "datamodules.digits.Digits"},
        {"model": {"class_path": "gans.dcgan.DCGAN"}},
        {"model__init_args__loss": "Hinge"},
        {"model__init_args__penalty": "gans.penalties.R1"},
        {"model__init_args__penalty": ["R2", {"class_path": "gans.penalties.R1", "init_args": {"weight": 1.0}}]},
        {"trainer": {"precision": 32, "limit_test_batches": 3, "limit_predict_batches": None}},
        {"seed_everything": True},
        {"data__init_args__augment": [{"class_path": "kornia.augmentation.RandomAffine"}]},
    ],
)
def test_other_spellings(changes, tmp_path):
    allowed(written(tmp_path / "config.yaml", **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {
            "trainer": {
                name: {"class_path": "os.system", "init_args": {"command": "true"}}
                for name in ("callbacks", "plugins", "strategy", "profiler", "logger", "accelerator", "nonsense")
            }
        },
        *(
            {name: {"class_path": "os.system"}}
            for name in ("samples", "ema", "health", "last", "best", "ckpt_path", "run_dir", "weights_only")
        ),
        {"weights_only": False},
        {"model__init_args__generator_optimizer": {"class_path": "os.system", "init_args": {"command": "true"}}},
        {"model__init_args__discriminator_scheduler": "runpy.run_path"},
    ],
)
def test_what_only_training_needs_is_not_looked_at(changes, tmp_path):
    assert "os." not in str(config := allowed(written(tmp_path / "config.yaml", **changes)))
    assert "weights_only" not in config
    assert "runpy" not in str(config)


EVIL = {"class_path": "os.system", "init_args": {"command": "true"}}
REFUSED = {
    "a function as model": ({"model": EVIL}, "model=os.system"),
    "a model that is not listed": ({"model__class_path": "torch.nn.Linear"}, "model=torch.nn.Linear"),
    "a base of models": (
        {"model__class_path": "gans.training.module.LightningModule"},
        "model=gans.training.module.LightningModule",
    ),
    "a model in the run's folder": ({"model__class_path": "evil.DCGAN"}, "model=evil.DCGAN"),
    "a file as model": ({"model": "evil.yaml"}, "model=evil.yaml"),
    "no model": ({"model": None}, "model=None"),
    "a list of models": ({"model": ["gans.DCGAN"]}, "model=['gans.DCGAN']"),
    "a list as class_path": ({"model__class_path": ["gans.DCGAN"]}, "model=['gans.DCGAN']"),
    "data that are not listed": ({"data__class_path": "subprocess.Popen"}, "data=subprocess.Popen"),
    "a model as data": ({"data__class_path": "gans.DCGAN"}, "data=gans.DCGAN"),
    "dict_kwargs": ({"model__dict_kwargs": {"a": 1}}, "model.dict_kwargs="),
    "init_args that are a list": ({"model__init_args": ["os.system"]}, "model.init_args=['os.system']"),
    "an unknown argument": ({"model__init_args__hook": EVIL}, "model.hook="),
    "an argument of var-keywords": ({"model__init_args__kwargs": EVIL}, "model.kwargs="),
    "a dotted argument": ({"model__init_args__loss.class_path": "os.system"}, "model.loss.class_path=os.system"),
    "a class in a plain argument": ({"model__init_args__width": EVIL}, "model.width="),
    "a class in a list": ({"data__init_args__classes": [EVIL]}, "data.classes="),
    "a class in a mapping": ({"data__init_args__oversample": {"cat": EVIL}}, "data.oversample.cat="),
    "a word in place of a list": ({"data__init_args__classes": "{class_path: os.system}"}, "data.classes="),
    "a word outside of a choice": ({"data__init_args__channels": "evil.yaml"}, "data.channels=evil.yaml"),
    "a loss that is not listed": ({"model__init_args__loss": EVIL}, "model.loss=os.system"),
    "a loss as a word": ({"model__init_args__loss": "evil.Loss"}, "model.loss=evil.Loss"),
    "a loss as YAML in a word": ({"model__init_args__loss": "{class_path: os.system}"}, "model.loss={class_path"),
    "a penalty as a word": ({"model__init_args__penalty": "subprocess.Popen"}, "model.penalty=subprocess.Popen"),
    "a penalty among several": ({"model__init_args__penalty": ["R1", EVIL]}, "model.penalty=os.system"),
    "a penalty as loss": ({"model__init_args__loss": "gans.penalties.R1"}, "model.loss=gans.penalties.R1"),
    "a class in a loss": (
        {"model__init_args__loss": {"class_path": "gans.losses.LeastSquares", "init_args": {"a": EVIL}}},
        "model.loss.a=",
    ),
    "dict_kwargs of a loss": (
        {"model__init_args__loss": {"class_path": "gans.losses.Hinge", "dict_kwargs": {"a": 1}}},
        "model.loss.dict_kwargs=",
    ),
    "augmentation that unpickles": (
        {"data__init_args__augment": [{"class_path": "torch.jit.load", "init_args": {"f": "x.pt"}}]},
        "data.augment=torch.jit.load",
    ),
    "augmentation as a word": ({"data__init_args__augment": "evil.Module"}, "data.augment=evil.Module"),
    "features of one's own": ({"score__features": "evil.Net"}, "score.features=evil.Net"),
    "features of the neighbours": ({"neighbors__features": "evil.Net"}, "neighbors.features=evil.Net"),
    "features that are a class": ({"score__features": EVIL}, "score.features="),
    "an unknown key of the score": ({"score__hook": EVIL}, "score.hook="),
    "a class among the metrics": ({"quality__metrics": [EVIL]}, "quality.metrics="),
    "the score as a class": ({"score": EVIL}, "score.class_path=os.system"),
    "the views as a word": ({"views": "os.system"}, "views=os.system"),
    "a precision that is a class": ({"trainer__precision": EVIL}, "trainer.precision="),
    "an unknown precision": ({"trainer__precision": "evil.Plugin"}, "trainer.precision=evil.Plugin"),
    "a class of a limit": ({"trainer__limit_val_batches": EVIL}, "trainer.limit_val_batches="),
    "the trainer as a list": ({"trainer": [EVIL]}, "trainer="),
    "a seed that is a class": ({"seed_everything": EVIL}, "seed_everything="),
    "an unknown key": ({"hooks": EVIL}, "hooks="),
    "another configuration": ({"config": "evil.yaml"}, "config=evil.yaml"),
    "a key that is a number": ({"7": 1}, "7=1"),
    "a long value": ({"model": "x" * 10_000}, "model=xxx"),
    "a long key": ({"x" * 10_000: 1}, "xxx"),
    "a value of many lines": ({"model": "a\n\x1b[31mb\nerror: c"}, "model=a"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_run_folder_may_not_say(case, tmp_path):
    changes, culprit = REFUSED[case]
    said = sentence(written(tmp_path / "config.yaml", **changes))
    assert culprit in said
    assert "only read as far as scoring and sampling need it" in said


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
BROKEN = {
    "empty": b"",
    "a list": b"- 1\n",
    "a word": b"config",
    "not text": b"\xff\xfe\x00model",
    "control characters": b"model: \x00\x07",
    "damaged": b"model: [1, 2\ndata: }",
    "Python's tags": b"model: !!python/object/apply:os.system ['true']",
    "a tag": b"model: !!str gans.DCGAN",
    "aliases": BOMB.encode(),
    "an alias to itself": b"&a model: *a",
    "several documents": b"model: DCGAN\n---\ndata: Digits\n",
    "a key that is a list": b"? [a, b]\n: 1\n",
    "deep": b"model: " + b"[" * 50_000,
    "a long number": b"model: " + b"9" * 10_000,
    "a long hexadecimal number": b"model: 0x" + b"f" * 10_000,
    "large": b"model: " + b"x" * 1_100_000,
    "a number in base 60": b"model: " + b"1:" * 49_000 + b"1",
}


@pytest.mark.parametrize("case", BROKEN)
def test_files_that_are_no_configuration(case, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(BROKEN[case])
    started = time.process_time()
    sentence(path)
    assert time.process_time() - started < 5


def test_pipes_folders_and_files_that_are_not_there(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link", "nowhere", "."):
        with pytest.raises(MisconfigurationException, match="it is no file"):
            allowed(tmp_path / name)


def test_a_link_is_judged_as_any_file(tmp_path):
    written(tmp_path / "other.yaml", model=EVIL)
    (tmp_path / "config.yaml").symlink_to("other.yaml")
    assert "model=os.system" in sentence(tmp_path / "config.yaml")


def test_the_sentence_keeps_the_end_of_a_long_path(tmp_path):
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    assert "config.yaml" in sentence(written(folder / "config.yaml", model=EVIL))


# What stands for code


class Parsed(Exception):
    pass


def parsed(monkeypatch, *arguments):
    """What ``train.py`` makes of a command line, before anything is made of it."""
    from train import CLI

    found = []

    def stop(cli):
        found.append(cli.config[cli.subcommand])
        raise Parsed

    monkeypatch.setattr(CLI, "before_instantiate_classes", stop)
    typed = list(map(str, arguments))
    monkeypatch.setattr(sys, "argv", ["train.py", "fit", *typed])
    with pytest.raises(Parsed):
        CLI(typed)
    return found[0]


QUICK = ["--config", ROOT / "configs/quickstart.yaml"]
FINE = {
    "short names": ["--model.generator_optimizer=RMSprop", "--model.loss=Hinge"],
    "schedules": [
        "--model.generator_scheduler=torch.optim.lr_scheduler.LinearLR",
        "--model.discriminator_scheduler=gans.optimizers.LinearDecay",
        "--model.discriminator_scheduler.constant_steps=1",
        "--model.discriminator_scheduler.decay_steps=1",
    ],
    "augmentation": ["--data.augment+=kornia.augmentation.RandomAffine", "--data.augment.degrees=10"],
    "callbacks": ["--trainer.callbacks+=lightning.pytorch.callbacks.LambdaCallback"],
}


@pytest.mark.parametrize("case", FINE)
def test_classes_are_accepted(case, monkeypatch):
    judge(parsed(monkeypatch, *QUICK, *FINE[case]), {})


def test_class_names_alone_do_and_the_labs_own_win(monkeypatch, tmp_path):
    """PyTorch has an Adam, too."""
    (tmp_path / "mine.yaml").write_text("model: {init_args: {discriminator_optimizer: {class_path: Adam}}}")
    given = ["--config", ROOT / "configs/quickstart.yaml", "--config", tmp_path / "mine.yaml", "--data=Digits"]
    given += ["--model=WGAN", "--model.loss=Hinge", "--model.generator_optimizer", "Adam", "--trainer.logger=CSVLogger"]
    given += ["--model.generator_optimizer.beta1=0.1", "--model.discriminator_optimizer={class_path: Adam}"]
    given += ["--model.generator_scheduler=LinearDecay", "--model.discriminator_scheduler=StepLR"]
    given += [f"--model.generator_scheduler.{kind}_steps=3" for kind in ("constant", "decay")]
    config = parsed(monkeypatch, *given, "--model.discriminator_scheduler.step_size=3", "--trainer.logger.save_dir=out")
    model = config.model.init_args
    for key, cls in {
        "generator_optimizer": optimizers.Adam,
        "discriminator_optimizer": optimizers.Adam,
        "generator_scheduler": optimizers.LinearDecay,
        "discriminator_scheduler": StepLR,
        "loss": losses.Hinge,
    }.items():
        assert pkgutil.resolve_name(model[key].class_path) is cls
    assert model.generator_optimizer.init_args.beta1 == 0.1
    assert config.trainer.logger.class_path == "lightning.pytorch.loggers.CSVLogger"
    assert (config.model.class_path, config.data.class_path) == ("gans.WGAN", "datamodules.Digits")


def test_the_labs_classes_are_shown_as_they_are_typed(tmp_path):
    given = ["--model.generator_optimizer=Adam", "--model.loss=gans.parts.losses.Hinge", "--model.penalty=R1"]
    done = run_train([*QUICK, *given, "--print_config"], tmp_path)
    paths = re.findall(r"class_path: (gans\S+)", done.stdout)
    assert set(paths) == {"gans.DCGAN", "gans.losses.Hinge", "gans.penalties.R1", "gans.optimizers.Adam"}, done.stderr


def test_shipped_configs_name_classes(monkeypatch):
    """One a paper; tests/test_configs.py trains with all of them."""
    for folder in sorted({path.parent for path in CONFIGS} - {ROOT / "configs"}):
        judge(parsed(monkeypatch, "--config", min(folder.glob("*.yaml"))), {})


FUNCTIONS = {
    "an optimizer": (
        {"model": {"init_args": {"generator_optimizer": EVIL}}},
        ["--model.generator_optimizer=os.system is a function: give a class of torch.optim.Optimizer"],
    ),
    "a schedule": (
        {
            "model": {
                "init_args": {"generator_scheduler": {"class_path": "runpy.run_path", "init_args": {"path_name": "x"}}}
            }
        },
        ["--model.generator_scheduler=runpy.run_path", "LRScheduler"],
    ),
    "a callback's": (
        {
            "trainer": {
                "callbacks": [
                    {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"setup": EVIL}}
                ]
            }
        },
        ["--trainer.callbacks.setup=os.system is a function: give a class"],
    ),
}


@pytest.mark.parametrize("case", FUNCTIONS)
def test_functions_of_configuration_files_are_refused(case, tmp_path, monkeypatch):
    config, culprits = FUNCTIONS[case]
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(MisconfigurationException) as caught:
        judge(parsed(monkeypatch, *QUICK, "--config", tmp_path / "evil.yaml"), {})
    for culprit in culprits:
        assert culprit in str(caught.value)


def test_functions_of_the_command_line_are_refused(monkeypatch):
    options = ["--trainer.callbacks=lightning.pytorch.callbacks.LambdaCallback", "--trainer.callbacks.setup=os.getcwd"]
    with pytest.raises(MisconfigurationException, match=r"--trainer\.callbacks\.setup=\w+\.getcwd is a function"):
        judge(parsed(monkeypatch, *QUICK, *options), {})


@pytest.mark.parametrize(
    ("settings", "culprit"),
    [
        ({"model": {"class_path": "gans.cgan.one_hot"}}, "--model=gans.cgan.one_hot is a function"),
        ({"a": [{"b": print}]}, "--a.b=builtins.print is a function"),
        ({"a": lambda: 0}, "is a function"),
        (
            {"a_optimizer": {"class_path": "subprocess.Popen"}},
            "--a_optimizer=subprocess.Popen is another class: give a class of torch.optim.Optimizer",
        ),
        (
            {"a_scheduler": {"class_path": "torch.optim.Adam"}},
            "--a_scheduler=torch.optim.Adam is another class: give a class of torch.optim.lr_scheduler",
        ),
        ({"a": {"class_path": "math.pi"}}, "--a=math.pi is no class: give a class$"),
    ],
)
def test_more_of_what_is_no_class(settings, culprit):
    with pytest.raises(MisconfigurationException, match=culprit):
        judge(settings, {})


def test_settings_that_only_look_like_classes_are_left_alone():
    judge({"a": {"class_path": 5}, "b": {"class_path": "nowhere.Net"}, "c": int, "d": [None, "os.system"]}, {})


# Secrets

SECRET_KEYS = """
api_key apiKey x-api-key API_KEY apikey APIKey wandb_api_key token hf_token accessToken session_token id_token
password passwd db_password pwd passphrase secret client_secret clientSecret aws_secret_access_key aws_access_key_id
access_key AWSSecretAccessKey private_key privateKey credentials credential auth basic_auth authorization Authorization
proxy-authorization cookie Set-Cookie bearer bearer_token secrets ssh_key encryption_key OAuth2 jwt password2
"""
OTHER_KEYS = """
tokenizer author authors num_tokens max_tokens keyboard monkey key passes keys api accessory secretary bypass width
public_key cache_key authority private keypoints pin_memory class_path
"""


@pytest.mark.parametrize("value", ["s3cret", 12345, ["s3cret"], {"of": {"it": "s3cret"}}], ids=str)
def test_keys_that_hold_secrets(value):
    for key in SECRET_KEYS.split():
        assert without_secrets({"logger": [{"init_args": {key: value, "project": "p"}}]}) == {
            "logger": [{"init_args": {key: "***", "project": "p"}}]
        }, key


def test_keys_that_hold_none():
    config = {key: "kept" for key in OTHER_KEYS.split()}
    assert without_secrets(config) == config
    config = {"token": None, "password": "", "use_auth_token": False, "auth": True, "secrets": []}
    assert without_secrets(config) == config


HEX = "0123456789abcdef0123456789abcdef01234567"
TEXTS = {
    "https://me:s3cret@host/a?b=c": "https://me:***@host/a?b=c",
    "http://me:s3@cr#et@host:80/a": "http://me:***@host:80/a",
    "redis://:s3cret@host": "redis://:***@host",
    "https://host/a?token=s3cret&b=c": "https://host/a?token=***&b=c",
    "https://host/a?b=c&api_key=s3cret#d": "https://host/a?b=c&api_key=***#d",
    "https://host/a?key=s3cret": "https://host/a?key=***",
    "https://host/a?X-Amz-Credential=s3cret&X-Amz-Date=1&X-Amz-Signature=s3cret": (
        "https://host/a?X-Amz-Credential=***&X-Amz-Date=1&X-Amz-Signature=***"
    ),
    "Bearer s3cret": "Bearer ***",
    "Basic s3cret==": "Basic ***",
    "Authorization: Basic s3cret": "Authorization: ***",
    "X-Api-Key: s3cret": "X-Api-Key: ***",
    "Server=a;Password=s3cret;Database=b": "Server=a;Password=***;Database=b",
    "curl -H 'Authorization: Token s3cret'": "curl -H 'Authorization: ***",
    '{"a": 1, "api_key": "s3 cret", "b": 2}': '{"a": 1, "api_key": ***, "b": 2}',
    "-----BEGIN RSA PRIVATE KEY-----\ns3cret\n-----END RSA PRIVATE KEY-----": "***",
    "-----BEGIN PRIVATE KEY-----\ns3cret": "***",
    "hf_abcdefghijklmnopqrstuvwxyz": "***",
    "see ghp_abcdefghijklmnopqrstuvwxyz0123456789 there": "see *** there",
    "gho_abcdefghijklmnopqrstuvwxyz0123456789": "***",
    "github_pat_11ABCDEFG0abcdefghijkl_mnopqrst": "***",
    "https://ghp_abcdefghijklmnopqrstuvwxyz0123456789@github.com/a": "https://***@github.com/a",
    "sk-proj-abcdefghijklmnopqrstuvwxyz": "***",
    "AKIAABCDEFGHIJKLMNOP": "***",
    "xoxb-1234567890-abcdefghij": "***",
    "https://hooks.slack.com/services/T0/B0/s3cret": "https://hooks.slack.com/services/***",
    HEX: "***",
}
KEPT = [
    "https://host:8080/a?width=3",
    "git+ssh://git@github.com/a/b",
    "runs/task-dcgan-digits-with-a-long-name",
    "sk-learn",
    "hf_hub",
    "Basic GAN of ours",
    "a.b:C",
    "DATA_DIR/.cache",
    f"{HEX}0",
    f"at {HEX}",
    "max_tokens=3",
    "C:/data",
]


def test_values_that_hold_secrets():
    assert {text: without_secrets({"a": [text]})["a"][0] for text in TEXTS} == TEXTS
    assert without_secrets(KEPT) == KEPT
    assert without_secrets({"commit": HEX}) == {"commit": HEX}
    once = without_secrets(list(TEXTS))
    assert without_secrets(once) == once


def test_words_of_a_command_line():
    words = [
        *("fit", "--config", "a.yaml", "--a.b.api_key=s3cret", "--api_key", "s3cret", "--model.width=4"),
        *("--password", "--model", "DCGAN", "--url=https://me:s3cret@host", "--note", "Bearer s3cret"),
        *("--trainer.logger={class_path: A, init_args: {token: s3cret, project: p}}", "-x", HEX),
    ]
    assert masked(words) == [
        *("fit", "--config", "a.yaml", "--a.b.api_key=***", "--api_key", "***", "--model.width=4"),
        *("--password", "--model", "DCGAN", "--url=https://me:***@host", "--note", "Bearer ***"),
        *("--trainer.logger={class_path: A, init_args: {token: ***, project: p}}", "-x", "***"),
    ]
    assert masked([]) == []
