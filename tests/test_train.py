"""The command line, through ``python train.py`` in a process of its own, on the embedded digits."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from torchvision.io import read_image
from untimed import rows

from command_line import ROOT, assert_one_sentence, environment, finish, run_train, start
from gans.parts.precision import native_precision

QUICK = [
    "--config",
    str(ROOT / "configs/quickstart.yaml"),
    "--trainer.accelerator=cpu",
    "--model.width=4",
    "--data.image_size=16",
    "--data.batch_size=32",
    "--samples.every_n_steps=10",
    "--last.every_n_steps=10",
    "--score.num_images=200",
    "--score.num_real=200",
    "--trainer.val_check_interval=10",
    "--trainer.log_every_n_steps=5",
]
NO_LOGGER = "--trainer.logger=false"


def train(*arguments, folder, check=True, **variables):
    done = run_train(arguments, folder, **variables)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def load(path):
    """Every checkpoint can be read without running code from it."""
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One whole run with the default logger."""
    folder = tmp_path_factory.mktemp("run")
    done = train(*QUICK, "--trainer.max_steps=25", "--run_dir=out", folder=folder)
    return folder / "out", done


def test_a_run_leaves_everything_in_its_folder_and_says_where(run):
    out, done = run
    for path in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "samples/step_0000025.png"):
        assert (out / path).exists()
        assert f"out/{path}" in done.stdout
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["model"]["init_args"]["width"] == 4
    assert config["model"]["init_args"]["generator_optimizer"]["init_args"]["lr"] == 2e-4  # defaults too
    assert config["trainer"]["precision"] == native_precision("cpu")
    logged = rows(out)
    assert {"loss/generator", "loss/discriminator", "score/frechet_pixels"} <= logged[0].keys()
    scores = json.loads((out / "scores.json").read_text())
    assert [entry["step"] for entry in scores["history"]] == [10, 20, 25]  # once more at the end
    assert "Warning" not in done.stderr
    assert "25/25" in done.stdout  # the progress bar


def test_wandb_without_an_account_logs_offline_and_says_how_to_sync(run):
    out, done = run
    folders = list((out / "wandb").glob("offline-run-*"))
    assert len(folders) == 1
    assert f"wandb sync out/wandb/{folders[0].name}" in done.stdout


def test_validate_and_predict_from_a_checkpoint_alone(run):
    out, _ = run
    files = [p for p in out.rglob("*") if p.is_file() and "wandb" not in p.parts]
    before = {p: p.stat().st_mtime for p in files}
    done = train("validate", f"--ckpt_path={out}/checkpoints/best.ckpt", folder=out.parent)
    assert "score/frechet_pixels" in done.stdout
    (scores,) = out.glob("validate-*/scores.json")
    best = json.loads((out / "scores.json").read_text())["best"]
    assert json.loads(scores.read_text())["final"]["scores"] == pytest.approx(best["scores"])
    assert json.loads(scores.read_text())["final"]["step"] == best["step"]
    done = train("predict", f"--ckpt_path={out}/checkpoints/best.ckpt", "--model.predict_images=5", folder=out.parent)
    (images,) = out.glob("predict-*/images")
    assert sorted(p.name for p in images.iterdir()) == [f"{i:05d}.png" for i in range(5)] + ["grid.png"]
    assert read_image(str(images / "00000.png")).shape == (1, 16, 16)
    assert str(images.relative_to(out.parent)) in done.stdout or str(images) in done.stdout
    after = {p: p.stat().st_mtime for p in before}
    assert after == before  # the run itself is as it was


def test_test_prints_scores(run):
    out, _ = run
    done = train("test", "--ckpt_path=best", "--run_dir", out, folder=out.parent, check=False)
    assert "score/frechet_pixels" in done.stdout, done.stderr


def test_validate_says_where_nothing_is_scored(run):
    out, _ = run
    words = ["validate", f"--ckpt_path={out}/checkpoints/best.ckpt", "--score.num_images=0"]
    assert "nothing is scored: --score.num_images" in train(*words, folder=out.parent).stdout


def test_a_compiled_run_writes_what_any_run_writes(run, tmp_path):
    """With everything that looks at the model meanwhile; its checkpoint goes on uncompiled."""
    out, _ = run
    steps = ["--run_dir=out", NO_LOGGER]
    train(*QUICK, *steps, "--trainer.max_steps=20", "--model.compile=true", "--health.every_n_steps=5", folder=tmp_path)
    compiled, plain = (load(folder / "checkpoints/last.ckpt") for folder in (tmp_path / "out", out))
    assert list(compiled["state_dict"]) == list(plain["state_dict"])
    assert "loss/generator" in rows(tmp_path / "out")[0]
    train(*QUICK, *steps, "--trainer.max_steps=25", "--ckpt_path=last", "--model.compile=false", folder=tmp_path)
    assert load(tmp_path / "out/checkpoints/last.ckpt")["global_step"] == 25


# Exact resume


def assert_same(a, b):
    """Checkpoints alike bit for bit, but for what depends on the clock and the folder."""
    assert a["global_step"] == b["global_step"]
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "gan"):
        assert_equal(a[key], b[key], key)


def assert_equal(a, b, path):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_equal(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{path}.{i}")
    else:
        assert a == b, path


@pytest.mark.parametrize(
    "settings",
    [
        ["--data.horizontal_flip=true"],
        ["--data.resident_bytes=0", "--data.num_workers=1"],
        [
            "--model.n_critic=2",
            "--model.accumulate_grad_batches=3",
            "--model.generator_scheduler=torch.optim.lr_scheduler.LinearLR",
        ],
    ],
    ids=["resident", "streamed", "n_critic, accumulation and scheduler"],
)
def test_a_killed_run_resumed_equals_one_that_was_not(tmp_path, settings):
    """Killed between checkpoints in the middle of the second epoch (55 batches an epoch)."""
    every = 4 if "--model.n_critic=2" in settings else 20
    arguments = [
        *QUICK,
        NO_LOGGER,
        f"--trainer.max_steps={every * 4}",
        f"--last.every_n_steps={every}",
        f"--trainer.log_every_n_steps={every // 4}",
        *settings,
    ]
    train(*arguments, "--run_dir=whole", folder=tmp_path)
    death = ["--trainer.callbacks+=command_line.Die", f"--trainer.callbacks.step={every * 3 + 2}"]
    killed = train(*arguments, "--run_dir=killed", *death, folder=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert load(tmp_path / "killed/checkpoints/last.ckpt")["global_step"] == every * 3
    train(*arguments, "--run_dir=killed", "--ckpt_path=last", folder=tmp_path)
    assert_same(load(tmp_path / "whole/checkpoints/last.ckpt"), load(tmp_path / "killed/checkpoints/last.ckpt"))
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")  # losses and scores, to the last digit


def test_sigterm_writes_a_checkpoint_and_exits_cleanly(tmp_path):
    arguments = [*QUICK, NO_LOGGER, "--trainer.max_steps=100000", "--last.every_n_steps=100000", "--run_dir=out"]
    running = start(arguments, tmp_path)
    started = time.monotonic()
    while not (tmp_path / "out/samples/step_0000020.png").exists() and time.monotonic() - started < 120:
        assert running.is_alive(), finish(running, tmp_path).stderr
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGTERM)
    done = finish(running, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "--ckpt_path=out/checkpoints/last.ckpt" in done.stdout
    assert load(tmp_path / "out/checkpoints/last.ckpt")["global_step"] >= 20


# Two ranks


def test_two_ranks_train_score_and_resume(tmp_path, forking):
    """The first time in a Python of its own each."""
    arguments = [*QUICK, NO_LOGGER, "--trainer.devices=2", "--run_dir=out"]
    train(*arguments, "--trainer.max_steps=20", folder=tmp_path)
    train(*arguments, "--trainer.max_steps=30", "--ckpt_path=last", folder=tmp_path, **forking)
    assert load(tmp_path / "out/checkpoints/last.ckpt")["global_step"] == 30
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert [entry["step"] for entry in scores["history"]] == [10, 20, 30]
    validated = []
    for devices in (1, 2):
        words = ["validate", "--ckpt_path=last", "--run_dir=out", f"--trainer.devices={devices}"]
        train(*words, folder=tmp_path, **forking)
        (scores,) = tmp_path.glob("out/validate-*/scores.json")
        validated.append(json.loads(scores.read_text())["final"]["scores"])
        scores.unlink()
    assert validated[0] == pytest.approx(validated[1], rel=1e-9)
    options = ["--ckpt_path=out/checkpoints/last.ckpt", "--model.predict_images=67", "--trainer.devices=2"]
    train("predict", *options, folder=tmp_path, **forking)
    (images,) = tmp_path.glob("out/predict-*/images")
    assert len(list(images.glob("0*.png"))) == 67
    assert len({path.read_bytes() for path in images.glob("0*.png")}) == 67  # each rank draws its own


# What users get wrong


def broken(folder):
    (folder / "broken").mkdir()
    (folder / "broken/a.png").write_bytes(b"not a picture")
    return f"--data.data_dir={folder}/broken"


FOLDER = ["--config", str(ROOT / "configs/dcgan/image_folder.yaml"), "--score.features=pixels", NO_LOGGER]
MISTAKES = {
    "unknown key": ([*QUICK, "--model.widht=4"], ["widht"]),
    "unknown trainer key": ([*QUICK, "--trainer.max_step=4"], ["max_step"]),
    "wrong class": ([*QUICK, "--model=DCGNA"], ["DCGNA"]),
    "wrong type": ([*QUICK, "--trainer.max_steps=many"], ["max_steps", "many"]),
    "wrong type in the model": ([*QUICK, "--model.width=wide"], ["width", "wide"]),
    "missing config": (["--config=nowhere.yaml"], ["nowhere.yaml"]),
    "missing data folder": ([*FOLDER, "--data.data_dir=nowhere"], ["nowhere", "--data.data_dir"]),
    "missing data set": (
        [
            "--config",
            str(ROOT / "configs/dcgan/mnist.yaml"),
            "--score.features=pixels",
            "--data.data_dir=nowhere",
            NO_LOGGER,
        ],
        ["nowhere", "MNIST"],
    ),
    "size": ([*QUICK, "--data.image_size=28"], ["28", "--data.image_size"]),
    "batch size": ([*QUICK, "--data.batch_size=2000"], ["2000", "1797", "--data.batch_size"]),
    "missing checkpoint": ([*QUICK, "--ckpt_path=nowhere.ckpt"], ["nowhere.ckpt"]),
    "nothing to resume": ([*QUICK, "--ckpt_path=last"], ["last"]),
    "no weights": ([*QUICK, "--score.features=inception"], ["--score.weights", "--score.features"]),
    "predict without checkpoint": (["predict", *QUICK], ["--ckpt_path"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence_and_no_training(mistake, tmp_path):
    arguments, culprits = MISTAKES[mistake]
    done = train(*arguments, folder=tmp_path, check=False)
    assert_one_sentence(done, culprits)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_broken_and_an_empty_folder(tmp_path):
    done = train(*FOLDER, broken(tmp_path), folder=tmp_path, check=False)
    assert_one_sentence(done, ["a.png"])
    (tmp_path / "empty").mkdir()
    done = train(*FOLDER, f"--data.data_dir={tmp_path}/empty", folder=tmp_path, check=False)
    assert_one_sentence(done, ["empty"])


def test_a_checkpoint_of_another_model_and_a_used_folder(run):
    out, _ = run
    done = train(*QUICK, "--model=GAN", f"--ckpt_path={out}/checkpoints/last.ckpt", folder=out.parent, check=False)
    assert_one_sentence(done, ["gans.dcgan.DCGAN", "gans.gan.GAN"])
    done = train(*QUICK, "--run_dir=out", folder=out.parent, check=False)
    assert_one_sentence(done, ["--run_dir=out"])


# Help and composition


def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path):
    """The command line with all models, data and callbacks, beside what Lightning imports by itself."""
    code = """
import sys, lightning, lightning.pytorch.cli
before = {name.partition(".")[0] for name in sys.modules}
import train
print(*sorted({name.partition(".")[0] for name in sys.modules} - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    new = set(done.stdout.split())
    assert {"gans", "datamodules", "callbacks"} <= new
    assert not new & {"wandb", "kornia", "torch_fidelity", "sklearn", "matplotlib", "torchvision", "PIL", "pandas"}


def test_help_shows_the_forms(tmp_path):
    """In a Python of its own, as users start it."""
    command = [sys.executable, ROOT / "train.py", "--help"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=120, check=True
    )
    for form in ("--config configs/quickstart.yaml", "--ckpt_path=last", "predict --ckpt_path", "--print_config"):
        assert form in done.stdout


def test_bfloat16_where_it_is_emulated_is_said_to_be_slow(tmp_path):
    done = train(*QUICK, "--trainer.precision=bf16-mixed", "--trainer.max_steps=1", NO_LOGGER, folder=tmp_path)
    assert ("--trainer.precision=bf16-mixed can be" in done.stdout) == (native_precision("cpu") == "32-true")


def test_configs_compose_and_values_override(tmp_path):
    (tmp_path / "mine.yaml").write_text("data:\n  init_args:\n    batch_size: 48\ntrainer:\n  max_steps: 7\n")
    done = train(
        *QUICK,
        "--config=mine.yaml",
        "--data.batch_size=16",
        "--model.generator_optimizer.lr=1e-4",
        "--model.discriminator_optimizer=torch.optim.RMSprop",
        "--model.loss=gans.losses.Minimax",
        "--print_config",
        folder=tmp_path,
    )
    config = yaml.safe_load(done.stdout)
    assert config["trainer"]["max_steps"] == 7
    assert config["data"]["init_args"]["batch_size"] == 16
    assert config["model"]["init_args"]["generator_optimizer"]["init_args"]["lr"] == 1e-4
    assert config["model"]["init_args"]["discriminator_optimizer"]["class_path"] == "torch.optim.RMSprop"
    assert config["model"]["init_args"]["loss"]["class_path"] == "gans.losses.Minimax"


def test_secrets_stay_out_of_the_saved_configuration():
    from callbacks.runs.secrets import without_secrets

    config = {"logger": [{"init_args": {"api_key": "s3cret", "project": "p"}}], "tokenizer": "kept", "token": None}
    assert without_secrets(config) == {
        "logger": [{"init_args": {"api_key": "***", "project": "p"}}],
        "tokenizer": "kept",
        "token": None,
    }
