"""The runs of a study: which of them are made, and how they end; with a small program in the place of train.py."""

import json
import os
import shutil
import signal
import threading
import time

import pytest
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.studies.runner import Study
from callbacks.studies.search import Search
from callbacks.studies.sweep import read_sweep

PROGRAM = """
import os, pathlib, sys, time
words = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:] if "=" in word)
folder = pathlib.Path(words["run_dir"])
folder.mkdir(exist_ok=True)
with (folder / "made").open("a") as file:
    file.write(f"{os.getpid()} {os.environ.get('WANDB_RUN_GROUP')}\\n")
(folder / "config.yaml").touch()
if words.get("model.width") == "13":
    sys.exit("error: 13 brings bad luck")
if words.get("model.width") == "99":
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def handlers():
    """A study takes signals, as a process of its own does."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def study(tmp_path):
    """Makes a study of some parameters in one folder, as a new process would that goes on with it."""
    (tmp_path / "program.py").write_text(PROGRAM)
    opened = []

    def made(parameters, seeds=(), words=(), base=()):
        for earlier in opened:
            os.close(earlier._lock)
        opened.clear()
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({"method": "grid", "parameters": parameters}, sort_keys=False))
        sweep = read_sweep(str(path))
        sweep = sweep.with_seeds(list(seeds)) if seeds else sweep
        study = Study(sweep, tmp_path / "out", str(tmp_path / "program.py"), list(base), list(words), 2)
        study.open()
        opened.append(study)
        return study

    yield made
    for earlier in opened:
        os.close(earlier._lock)


def run(study):
    study.run(Search(study.sweep))
    return {run.name: run.status for run in study.runs.values()}


def times_made(tmp_path):
    return {path.parent.name: len(path.read_text().splitlines()) for path in tmp_path.glob("out/*/made")}


WIDTHS = {"model.width": {"values": [4, 8]}}


def test_more_values_add_runs_and_make_none_again(study, tmp_path):
    assert run(study(WIDTHS)) == {"width=4": "finished", "width=8": "finished"}
    more = {"model.width": {"values": [4, 8, 16]}}
    assert run(study(more)) == dict.fromkeys(("width=4", "width=8", "width=16"), "finished")
    assert times_made(tmp_path) == {"width=4": 1, "width=8": 1, "width=16": 1}
    group = (tmp_path / "out/width=4/made").read_text().split()[1]
    assert group == "mine"


@pytest.mark.parametrize(
    "changed",
    [{"seeds": [0, 1]}, {"parameters": WIDTHS | {"model.loss": {"values": ["Hinge", "Minimax"]}}}],
    ids=["seeds", "an axis"],
)
def test_runs_of_other_axes_are_left_out_and_kept(changed, study, tmp_path, capsys):
    run(study(WIDTHS))
    now = study(**{"parameters": WIDTHS} | changed)
    assert "2 runs in" in capsys.readouterr().out
    assert len(run(now)) == 4
    assert not {"width=4", "width=8"} & set(now.runs)
    kept = {run["name"] for run in json.loads((tmp_path / "out/study.json").read_text())["runs"]}
    assert kept == {"width=4", "width=8", *now.runs}
    assert set(times_made(tmp_path).values()) == {1}
    assert run(study(WIDTHS)) == {"width=4": "finished", "width=8": "finished"}  # as if nothing had been between
    assert set(times_made(tmp_path).values()) == {1}


def test_fewer_values_leave_the_others_out(study, tmp_path):
    run(study(WIDTHS))
    assert run(study({"model.width": {"values": [8]}})) == {"width=8": "finished"}
    assert times_made(tmp_path) == {"width=4": 1, "width=8": 1}


def test_other_settings_for_all_are_refused(study):
    run(study(WIDTHS))
    with pytest.raises(MisconfigurationException, match=r"other settings \(nothing there, --data.batch_size=8 now\)"):
        study(WIDTHS, words=["--data.batch_size=8"])


def test_a_configuration_that_changed_is_refused(study, tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("model: {class_path: gans.GAN}")
    run(study(WIDTHS, base=[f"--config={base}"]))
    base.write_text("# said otherwise\nmodel:\n  class_path: gans.GAN\n")
    assert set(run(study(WIDTHS, base=[f"--config={base}"])).values()) == {"finished"}
    base.write_text("model: {class_path: gans.DCGAN}")
    with pytest.raises(MisconfigurationException, match=r"base\.yaml says something else than when the runs in .*out"):
        study(WIDTHS, base=[f"--config={base}"])


def test_a_run_whose_folder_was_removed_is_made_again(study, tmp_path):
    run(study(WIDTHS))
    shutil.rmtree(tmp_path / "out/width=4")
    assert run(study(WIDTHS)) == {"width=4": "finished", "width=8": "finished"}
    assert times_made(tmp_path) == {"width=4": 1, "width=8": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"runs": [{"name": "a", "settings": {}, "words": [], "configs": {}, "status": "done"}]}',
        '{"runs": [{"name": "a"}]}',
        '{"runs": {"a": 1}}',
        "{",
    ],
)
def test_a_damaged_state_is_named(text, study, tmp_path):
    run(study(WIDTHS))
    (tmp_path / "out/study.json").write_text(text)
    with pytest.raises(MisconfigurationException, match=r"study\.json is damaged: remove it"):
        study(WIDTHS)


def test_one_that_fails_is_told_of_and_tried_again(study, tmp_path):
    widths = {"model.width": {"values": [13, 8]}}
    first = study(widths)
    assert run(first) == {"width=13": "failed", "width=8": "finished"}
    assert first.runs["width=13"].told == "13 brings bad luck"
    (tmp_path / "program.py").write_text(PROGRAM.replace('"13"', '"no"'))
    assert run(study(widths)) == {"width=13": "finished", "width=8": "finished"}
    assert times_made(tmp_path) == {"width=13": 2, "width=8": 1}


def test_one_that_is_stopped_from_outside_has_failed(study, tmp_path):
    def stop():
        path = tmp_path / "out/width=99/made"
        for _ in range(300):
            if path.exists() and path.read_text():
                os.kill(int(path.read_text().split()[0]), signal.SIGKILL)
                return
            time.sleep(0.1)

    thread = threading.Thread(target=stop)
    thread.start()
    found = study({"model.width": {"values": [99, 8]}})
    assert run(found) == {"width=99": "failed", "width=8": "finished"}
    assert found.runs["width=99"].told == "it was killed by SIGKILL; the same command goes on with it"
    thread.join()


def test_a_folder_that_is_none_is_named(study, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(MisconfigurationException, match=r"--run_dir=.*out cannot be written to: "):
        study(WIDTHS)


def test_runs_of_one_name_have_folders_of_their_own(study, tmp_path):
    """Numbers that are the same in four digits."""
    assert len(run(study({"model.lr": {"values": [0.123451, 0.123452]}}))) == 2
    assert times_made(tmp_path) == {"lr=0.1235": 1, "lr=0.1235-2": 1}
