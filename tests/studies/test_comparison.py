"""Runs side by side: what sets them apart, medians and ranges, and what is no difference."""

import csv
import json
import re

import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torchvision.io import read_image

from callbacks.scores.history import mode_of, record
from callbacks.studies import report
from callbacks.studies.comparison import compare, comparison, how_often, is_better
from callbacks.studies.found import flat, labels, read


@pytest.fixture
def run(tmp_path):
    """Makes the folder of a run."""

    def made(name, values, loss="Hinge", seed=0, lr=2e-4, protocol=None, steps=(10, 20), **more):
        folder = tmp_path / name
        folder.mkdir()
        model = {
            "class_path": "gans.DCGAN",
            "init_args": {"width": 8, "loss": {"class_path": f"gans.losses.{loss}"}, "lr": lr} | more,
        }
        config = {"seed_everything": seed, "model": model, "trainer": {"max_steps": 20, "logger": name}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        lines = ["step,time/seconds,time/images,loss/generator,speed/images_per_second"]
        for step, value in zip(steps, values, strict=True):
            scores = {"score/fid": value, "score/kid": value / 100, "score/kid_std": 0.1}
            entry = {"step": step, "scores": scores, "protocol": protocol or {"generated_images": 100}}
            record(folder / "scores.json", entry, "score/fid", "min")
            lines.append(f"{step},{6 * step},{64 * step},{1 / step},100")
        (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
        return folder

    return made


def test_runs_that_differ_by_the_seed_alone_are_a_row(run, tmp_path):
    for seed, value in enumerate((5.0, 3.0, 4.0)):
        run(f"a{seed}", (9.0, value), "Hinge", seed)
        run(f"b{seed}", (value - 2, 8.0), "Wasserstein", seed)
    first, second = compare(tmp_path)
    assert (first["model.loss"], first["runs"], first["told apart"]) == ("Wasserstein", 3, "")
    assert [first[f"score/fid best{end}"] for end in ("", " low", " high")] == [2.0, 1.0, 3.0]
    assert first["score/fid final"] == 8.0
    assert not any("std" in name for name in first)  # within a run, and none of a run's own scores
    assert (second["model.loss"], second["score/fid best"], second["score/kid final"]) == ("Hinge", 4.0, 0.04)
    assert second["told apart"] == ""  # 8.5 of 9 pairs
    assert (first["minutes"], first["images/s"]) == (2.0, 100.0)
    assert len(first["folders"]) == 3


def test_any_score_can_decide(run):
    folders = [run("a", (1.0, 2.0), "Hinge"), run("b", (3.0, 2.5), "Wasserstein")]
    (first, second) = compare(*folders, metric="score/kid", mode="max")
    assert (first["model.loss"], first["score/kid best"]) == ("Wasserstein", 0.03)
    assert second["score/kid best"] == 0.02  # the best moment is that of the metric
    assert compare(*folders, metric="score/kid")[0]["model.loss"] == "Hinge"
    with pytest.raises(MisconfigurationException, match=r"score/x is a score of none of them.*score/fid, score/kid"):
        compare(*folders, metric="score/x")


def test_what_is_smaller_than_the_spread_is_marked(run, tmp_path):
    for seed in range(3):
        run(f"a{seed}", (9.0, (1.0, 5.0, 9.0)[seed]), "Hinge", seed)
        run(f"b{seed}", (9.0, (2.0, 4.0, 8.0)[seed]), "Wasserstein", seed)
    run("c", (9.0, 100.0), "LeastSquares")
    rows = {row["model.loss"]: row["told apart"] for row in compare(tmp_path)}
    assert rows == {"Wasserstein": "", "Hinge": "~", "LeastSquares": "?"}


def test_three_of_four_pairs_are_not_enough_where_they_may_be_chance():
    """Of two runs each: three of four pairs, but in some samples of them only half."""
    assert not is_better([1.0, 3.0], [2.0, 4.0], "min")
    assert is_better([1.0, 2.0], [3.0, 4.0], "min")
    assert not is_better([1.0, 2.0], [3.0, 4.0], "max")
    spread, shifted = [0.1 * n for n in range(20)], [0.1 * n + 1.0 for n in range(20)]
    assert is_better(spread, shifted, "min")  # 345 of 400, and of many runs


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (["a.b.Hinge", "a.b.Minimax"], ["Hinge", "Minimax"]),
        (["configs/gan/mnist.yaml", "configs/dcgan/mnist.yaml"], ["gan-mnist", "dcgan-mnist"]),
        (["configs/gan/mnist.yaml", "configs/dcgan/cifar10.yaml"], ["mnist", "cifar10"]),
        ([[], [{"class_path": "k.Blur", "init_args": {"p": 1}}, {"class_path": "k.Flip"}]], ["none", "Blur+Flip"]),
        ([{"class_path": "k.Blur", "init_args": {"p": p}} for p in (0.5, 1)], ["Blur(p=0.5)", "Blur(p=1)"]),
        ([None, 0.5, True], ["none", 0.5, True]),
    ],
)
def test_values_are_shown_as_briefly_as_tells_them_apart(values, shown):
    assert list(labels(values).values()) == shown


def test_how_often_the_one_is_better():
    assert how_often([1.0, 2.0], [2.0, 3.0], "min") == pytest.approx(3.5 / 4)
    assert how_often([1.0, 2.0], [2.0, 3.0], "max") == pytest.approx(0.5 / 4)


def test_scores_of_other_protocols_have_columns_of_their_own(run, tmp_path):
    run("a", (3.0, 2.0), "Hinge")
    run("b", (3.0, 1.0), "Wasserstein", protocol={"generated_images": 50})
    found = comparison([tmp_path])
    assert [column.label for column in found.columns[:2]] == [
        "score/fid (generated_images 100)",
        "score/fid (generated_images 50)",
    ]
    rows = found.rows()
    assert rows[0]["score/fid (generated_images 50) best"] is None
    assert rows[1]["score/fid (generated_images 50) best"] == 1.0
    assert "protocols that differ in generated_images" in report.about(found)


def test_a_long_protocol_is_shown_by_its_first_parts_where_these_tell(run, tmp_path):
    one = {"reference": "mnist-test-28x28x1-d24d0eb6-c6938e9e-all", "seed": 0}
    run("a", (3.0, 2.0), "Hinge", protocol=one)
    run("b", (3.0, 1.0), "Wasserstein", protocol=one | {"reference": "mnist-test-32x32x1-d4a8c5e9-c6938e9e-all"})
    labels = [column.label for column in comparison([tmp_path]).columns[:2]]
    assert labels == ["score/fid (reference mnist-test-28x28x1)", "score/fid (reference mnist-test-32x32x1)"]
    run("c", (3.0, 1.0), "Minimax", protocol=one | {"reference": "mnist-test-28x28x1-eeeeeeee-c6938e9e-all"})
    labels = [column.label for column in comparison([tmp_path]).columns[:3]]
    assert labels[0] == f"score/fid (reference {one['reference']})"
    assert len({*labels}) == 3


def test_a_damaged_run_is_left_out(run, tmp_path):
    run("a", (3.0, 2.0))
    folder = run("b", (3.0, 2.0), "Wasserstein")
    (folder / "config.yaml").write_text("model: [")
    with pytest.warns(UserWarning, match=r"b.config\.yaml is damaged: this run is left out"):
        (row,) = compare(tmp_path)
    assert row["runs"] == 1
    with pytest.raises(MisconfigurationException, match=r"b.config\.yaml is damaged"):
        compare(folder)


def test_quality_chooses_where_it_chose_the_best_checkpoint(run, tmp_path):
    folder = run("a", (3.0, 2.0))
    for step, value in ((10, 30.0), (20, 20.0)):
        record(
            folder / "quality.json",
            {"step": step, "scores": {"quality/psnr": value}, "protocol": {}},
            "quality/psnr",
            "max",
        )
    (row,) = compare(tmp_path)
    assert (row["quality/psnr best"], row["quality/psnr final"], row["score/fid best"]) == (30.0, 20.0, 3.0)


def test_a_run_without_scores_is_counted_apart(run, tmp_path):
    run("a", (9.0, 3.0))
    damaged = run("b", (9.0, 4.0), seed=1)
    (damaged / "scores.json").write_text('{"history": [{"step": 1, "scores": {"score/fid": "low"}}]}')
    state = [{"name": "b", "settings": {"seed_everything": 1}, "status": "failed"}]
    (tmp_path / "study.json").write_text(json.dumps({"runs": state}))
    with pytest.warns(UserWarning, match=r"b.scores\.json is damaged: its scores are left out"):
        found = comparison([tmp_path])
    (row,) = found.rows()
    assert (row["runs"], row["scored"], row["failed"], row["score/fid best"]) == (2, 1, 1, 3.0)
    assert "| 2, 1 scored, 1 failed |" in report.markdown(found)


def test_the_same_run_twice_is_no_second_seed(run, tmp_path):
    run("a", (9.0, 3.0))
    copied = run("b", (9.0, 5.0))
    with pytest.warns(UserWarning, match=r"b is left out: its settings and seed are those of .*a"):
        (row,) = compare(tmp_path, copied)
    assert (row["runs"], row["score/fid best"]) == (1, 3.0)


def test_a_goal_is_not_against_the_scores_own(run, tmp_path):
    run("a", (9.0, 3.0))
    with pytest.raises(MisconfigurationException, match="score/fid is the better the smaller it is"):
        compare(tmp_path, mode="max")
    assert compare(tmp_path, metric="score/kid", mode="max")[0]["score/kid best"] == 0.09  # of which nobody knows
    assert mode_of("score/coverage_classifier") == "max"


def test_names_in_pictures_are_short_and_of_one_group_each(run, tmp_path):
    for number in range(3):
        run(f"r{number}", (9.0, 3.0 + number), loss="x" * 60 + str(min(number, 1)) + "y" * 60, lr=number)
    found = comparison([tmp_path], ["model.loss", "model.lr"])
    shown = report.names(found)
    assert len({*shown}) == 3
    assert all(len(name) <= report.LONG + 5 for name in shown)
    assert shown[0].endswith("lr=0")


def test_a_study_is_told_apart_by_what_it_tried(run, tmp_path):
    """Also where it tried one class with several arguments, which other settings follow."""
    tried = [
        {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}},
        {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}},
        {"class_path": "Adam", "init_args": {"lr": 0.0005}},
    ]
    state = []
    for number, optimizer in enumerate(tried):
        for seed in (0, 1):
            name = f"run{number}{seed}"
            run(name, (9.0, 3.0 + number), seed=seed, lr=number, momentum=[0, 0.9, None][number])
            settings = {"model.optimizers": optimizer, "seed_everything": seed, "trainer.max_steps": 10}
            state.append({"name": name, "settings": settings})
    (tmp_path / "study.json").write_text(json.dumps({"runs": state}))
    found = comparison([tmp_path])
    assert found.axes == ("model.optimizers",)
    shown = [row["model.optimizers"] for row in found.rows()]
    assert shown == ["SGD(lr=0.01)", "SGD(lr=0.01, momentum=0.9)", "Adam(lr=0.0005)"]
    assert [row["runs"] for row in found.rows()] == [2, 2, 2]


def test_as_few_settings_as_suffice_tell_runs_apart(run, tmp_path):
    run("a", (1.0, 1.0), "Hinge", lr=1e-3)
    run("b", (1.0, 1.0), "Wasserstein", lr=1e-4)
    found = comparison([tmp_path])
    assert (found.axes, found.tied) == (("model.loss",), ("model.lr",))
    assert comparison([tmp_path], ["model.lr"]).axes == ("model.lr",)


def test_settings_are_flat_as_they_are_typed():
    nested = {
        "model": {"class_path": "gans.GAN", "init_args": {"loss": {"class_path": "a.Hinge"}, "width": 3, "x": None}}
    }
    assert dict(flat(nested)) == {"model": "GAN", "model.loss": "Hinge", "model.width": 3, "model.x": None}


def test_what_is_missing_or_damaged(run, tmp_path):
    folder = run("a", (1.0, 1.0))
    (folder / "scores.json").write_text("{")
    (folder / "metrics.csv").write_text("step,loss/generator\n1,0.5\nx,y\n2,\n")
    found = read(folder)
    assert (found.moments, found.monitor) == ([], "")
    assert found.curves == {"loss/generator": [(1, 0.5)]}
    assert (folder / "scores.json").read_text() == "{"  # nothing is put aside: it is somebody's run
    assert compare(folder)[0]["runs"] == 1
    with pytest.raises(MisconfigurationException, match=r"nowhere does not exist: name folders of runs"):
        compare(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MisconfigurationException, match=r"empty holds no run"):
        compare(tmp_path / "empty")


def test_the_files_that_can_be_pasted(run, tmp_path):
    for seed in range(2):
        run(f"a|{seed}", (9.0, 3.0 + seed), "Hinge", seed)
        run(f"<b{seed}>", (9.0, 8.0), "Wasserstein", seed)
    found = comparison([tmp_path])
    asked = []

    def draw(folder, count):
        asked.append(folder.name)
        return torch.zeros(count, 1, 16, 16) if "b" in folder.name else None

    files = report.write(found, tmp_path / "out", "A <title> of DATA", draw)
    assert {path.name for path in files} == {
        "compare.md", "compare.csv", "compare.html", "curves.png", "samples.png",
    }  # fmt: skip
    table = [line for line in (tmp_path / "out/compare.md").read_text().splitlines() if line.startswith("|")]
    assert "| Hinge | 2 | 3.5 (3 to 4) |" in table[2]
    with (tmp_path / "out/compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model.loss"] for row in rows] == ["Hinge", "Wasserstein"]
    assert float(rows[0]["score/fid best high"]) == 4
    page = (tmp_path / "out/compare.html").read_text()
    assert "<title>A &lt;title&gt; of DATA</title>" in page
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert data["rows"][0][0] == {"text": "Hinge", "value": "Hinge"}
    line = next(line for line in data["curves"]["lines"] if line["name"] == "loss/generator")
    assert (line["steps"], line["images"], line["minutes"]) == ([10, 20], [640, 1280], [1.0, 2.0])
    assert data["samples"][0].startswith("data:image/png;base64,")
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")  # it needs nothing from elsewhere
    assert "https://" not in page
    assert read_image(str(tmp_path / "out/samples.png")).shape[1] < 60  # one row: the other runs have no generator
