"""Two nodes, by the README's torchrun command: two agents that know of each other by the network alone.

Both run on this machine, one process each, in different time zones and home directories: whatever a rank names by its
own clock, or finds in its own cache, would show.
"""

import re
import shlex
import shutil
import socket
import subprocess
import sys

import pytest
from test_train import NO_LOGGER, QUICK, assert_same, load
from untimed import rows

from command_line import ROOT, environment, run_train

COMMAND = re.search(r"`(torchrun --nnodes=2 [^`]*)`", (ROOT / "README.md").read_text())[1]
STEPS = 16  # before the interruption, and once more after it; an epoch has 28
SETTINGS = [
    *QUICK,
    f"--trainer.val_check_interval={STEPS}",
    f"--last.every_n_steps={STEPS}",
    f"--samples.every_n_steps={STEPS}",
    "--trainer.log_every_n_steps=4",
]


def on_two_nodes(*arguments, folder, **more):
    """Run the README's command on two nodes at the same time, to the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = COMMAND.replace("HOST:29500", f"127.0.0.1:{port}")
    command = command.replace("--nproc_per_node=4", "--nproc_per_node=1").replace("devices=4", "devices=1")
    before, after = command.split("train.py --config ...")
    launcher = [sys.executable, "-m", "torch.distributed.run", *shlex.split(before)[1:]]
    words = [*launcher, str(ROOT / "train.py"), *map(str, arguments), *shlex.split(after)]
    logs = [folder / f"node{node}.txt" for node in (0, 1)]
    nodes = []
    for log, zone in zip(logs, ("UTC", "UTC-5"), strict=True):
        home = folder / f".{log.stem}"  # and with it the cache of statistics, which only the first rank's node keeps
        home.mkdir(exist_ok=True)
        with log.open("w") as file:
            variables = environment(folder) | {"TZ": zone, "HOME": str(home)} | more
            nodes.append(subprocess.Popen(words, cwd=folder, env=variables, stdout=file, stderr=subprocess.STDOUT))
    try:
        codes = [node.wait(120) for node in nodes]
    finally:
        for node in nodes:
            node.terminate()  # takes its process along
    assert codes == [0, 0], "\n".join(log.read_text()[-3000:] for log in logs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One node with two ranks, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = [*SETTINGS, NO_LOGGER, f"--trainer.max_steps={2 * STEPS}", "--trainer.devices=2", "--run_dir=out"]
    done = run_train(arguments, folder)
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Two nodes up to the middle, with the default logger and in the default folder."""
    folder = tmp_path_factory.mktemp("half")
    on_two_nodes(*SETTINGS, f"--trainer.max_steps={STEPS}", folder=folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["last", "file"])
def test_two_nodes_resumed_equal_one_node_that_was_not_interrupted(whole, half, tmp_path, kind):
    """Bit for bit: weights, optimizers, every rank's random state, losses and scores."""
    folder = shutil.copytree(half, tmp_path / "half")
    (run,) = folder.glob("runs/*/*")
    checkpoint = "last" if kind == "last" else run / "checkpoints/last.ckpt"
    on_two_nodes(*SETTINGS, NO_LOGGER, f"--trainer.max_steps={2 * STEPS}", f"--ckpt_path={checkpoint}", folder=folder)
    assert list(folder.glob("runs/*/*")) == [run]
    assert load(run / "checkpoints/last.ckpt")["global_step"] == 2 * STEPS
    assert_same(load(run / "checkpoints/last.ckpt"), load(whole / "checkpoints/last.ckpt"))
    assert rows(run) == rows(whole)


def test_two_nodes_keep_everything_in_one_folder(half):
    (run,) = half.glob("runs/*/*")
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and "wandb" not in path.parts}
    picture = f"samples/step_{STEPS:07d}.png"
    assert {"config.yaml", "metrics.csv", "scores.json", "checkpoints/last.ckpt", "checkpoints/best.ckpt", picture} <= (
        files
    )
    assert len(list(run.glob("wandb/offline-run-*"))) == 1
    assert {path.name for path in half.iterdir() if not path.name.startswith(".")} == {
        "data", "runs", "node0.txt", "node1.txt",
    }  # fmt: skip


def test_predict_on_two_nodes_writes_into_one_folder(half, tmp_path, forking):
    """The ranks are forks here, which torchrun starts in the place of a Python."""
    folder = shutil.copytree(half, tmp_path / "half")
    on_two_nodes(
        "predict", "--ckpt_path=last", "--model.predict_images=67", folder=folder, PYTHON_EXEC=forking["FORKS"]
    )
    (images,) = folder.glob("runs/*/*/predict-*/images")
    names = {f"{number:05d}.png" for number in range(67)}
    assert {path.name for path in images.iterdir()} == names | {"grid.png"}
    assert len({(images / name).read_bytes() for name in names}) == 67  # each rank draws its own
