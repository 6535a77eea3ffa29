"""metrics.csv."""

import csv
from types import SimpleNamespace

import pytest
from conftest import fit, images, small
from lightning.pytorch import Trainer
from untimed import rows

from callbacks import LastCheckpoint, MetricsFile, Neighbors, Samples, Score, Views
from datamodules import Digits
from gans import DCGAN, GAN


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    hands = [100.0]
    monkeypatch.setattr("callbacks.runs.metrics_file.time", SimpleNamespace(monotonic=lambda: hands[0]))
    return hands


pytestmark = pytest.mark.usefixtures("clock")


def times(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["time/seconds"]) for row in csv.DictReader(file)]


def test_new_metrics_get_a_column(tmp_path):
    log = MetricsFile(tmp_path)
    log.log_metrics({"a": 1}, step=10)
    log.log_metrics({"b": 2}, step=10)
    log.log_metrics({"a": 3, "b": 4}, step=20)
    assert rows(tmp_path) == [
        {"step": "10", "a": "1.0", "b": ""},
        {"step": "10", "a": "", "b": "2.0"},
        {"step": "20", "a": "3.0", "b": "4.0"},
    ]


def test_a_resumed_run_goes_on_in_the_file(tmp_path):
    for step in (10, 20, 30):
        MetricsFile(tmp_path).log_metrics({"a": step}, step=step) if step == 10 else None
    first = MetricsFile(tmp_path)
    first.log_metrics({"a": 20}, step=20)
    first.log_metrics({"a": 30}, step=30)
    resumed = MetricsFile(tmp_path)  # from a checkpoint at step 10
    resumed.log_metrics({"a": 21, "b": 1}, step=20)
    assert [(r["step"], r["a"], r["b"]) for r in rows(tmp_path)] == [("10", "10.0", ""), ("20", "21.0", "1.0")]


def test_losses_and_rates_are_logged_at_generator_updates(tmp_path):
    fit(small(GAN, n_critic=2), images(64), logger=MetricsFile(tmp_path), log_every_n_steps=3)
    lines = rows(tmp_path)
    assert [row["step"] for row in lines] == ["3", "6"]  # 16 batches, 8 updates
    assert {"loss/generator", "loss/discriminator", "lr/generator", "lr/discriminator"} <= lines[0].keys()
    assert all(float(row["loss/generator"]) > 0 for row in lines)
    assert lines[0]["lr/generator"] == "0.0002"


def test_the_time_goes_on_without_that_for_which_the_run_was_interrupted(clock, tmp_path):
    def log(*seconds):
        for wait in seconds:
            clock[0] += wait
            file.log_metrics({"a": 1.0}, step=int(clock[0]))

    file = MetricsFile(tmp_path)
    log(2, 3)
    clock[0] += 1000
    file = MetricsFile(tmp_path)  # starts up for ten seconds
    clock[0] += 10
    file.cut(1)
    log(4, 0.5)
    assert times(tmp_path) == [2, 6, 6.5]
    file = MetricsFile(tmp_path)  # that nobody tells how many rows there were
    log(7)
    assert times(tmp_path) == [2, 6, 6.5, 6.5]
    clock[0] += 10
    file.cut(file.rows)
    log(1)
    assert times(tmp_path) == [2, 6, 6.5, 6.5, 7.5]


def test_images_a_second(tmp_path, monkeypatch):
    """64 images in 8 updates, at every second of which half a second is over."""
    clock = iter([10.0, 10.5, 11.5])
    monkeypatch.setattr("gans.training.module.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    fit(small(GAN, n_critic=2), images(64), logger=MetricsFile(tmp_path), log_every_n_steps=4)
    with (tmp_path / "metrics.csv").open() as file:
        assert [row["speed/images_per_second"] for row in csv.DictReader(file)] == ["64.0", "32.0"]


def logged(folder, *moments):
    """A file to which steps and their metrics were logged."""
    log = MetricsFile(folder)
    for step, metrics in moments:
        log.log_metrics(metrics, step=step)
    return log


ROWS = [(1, {"a": 1.5}), (2, {"a": 2.5}), (2, {"b": 3.5}), (3, {"c": 4.5, "a": 5.5}), (4, {"d": 6.5})]


@pytest.mark.parametrize("damage", [b"", b"7,1", b"9,1.0\n", b"\0" * 9])
@pytest.mark.parametrize("kept", range(6))
def test_a_cut_file_goes_on_as_if_it_had_not_been_longer(kept, damage, tmp_path, recwarn):
    """Also where columns came after the cut, and where a killed process left half a row."""
    expected = logged(tmp_path / "once", *ROWS)
    logged(tmp_path / "again", *ROWS)
    with (tmp_path / "again/metrics.csv").open("ab") as file:
        file.write(damage)
    again = MetricsFile(tmp_path / "again")
    again.cut(kept)
    assert again.rows == kept
    if kept:
        assert again.path.read_bytes() == logged(tmp_path / "part", *ROWS[:kept]).path.read_bytes()
    else:
        assert not again.path.exists()
    for step, metrics in ROWS[kept:]:
        again.log_metrics(metrics, step=step)
    assert again.rows == expected.rows == 5
    assert again.path.read_bytes() == expected.path.read_bytes()
    assert len(recwarn) == bool(damage)
    assert MetricsFile(tmp_path / "again").rows == 5


def test_a_file_that_is_shorter_than_it_should_be_is_kept_whole(tmp_path):
    logged(tmp_path, *ROWS)
    log = MetricsFile(tmp_path)
    log.cut(99)
    assert log.rows == 5
    log.log_metrics({"a": 1.0}, step=1)  # no row is dropped by its step
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "2", "3", "4", "1"]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda text: text + b"5,1.0", [1, 2, 3]),
        (lambda text: text[:-3], [1, 2]),
        (lambda text: text.replace(b"2,0.0,2.5", b"x,0.0,2.5"), [1, 3]),
        (lambda text: text.replace(b"2,0.0,2.5", b",0.0,2.5"), [1, 3]),
        (lambda text: text.replace(b"2,0.0,2.5", b"2,0.0,2.5,7"), [1, 3]),
        (lambda text: text.replace(b"2,0.0,2.5", b"2,0.0,two"), [1, 3]),
        (lambda text: text.replace(b"2,0.0,2.5", b'2,0.0,"2.5'), [1, 3]),
        (lambda text: text.replace(b"2,0.0,2.5", b"2,0.0,2\0"), [1, 3]),
        (lambda text: text.replace(b"2,0.0,2.5", b"2,0.0,2\xff"), [1, 3]),
        (lambda text: text + b"\0" * 4096, [1, 2, 3]),
    ],
)
def test_whole_rows_of_a_damaged_file_are_kept(change, left, tmp_path, recwarn):
    path = logged(tmp_path, *((step, {"a": step + 0.5}) for step in (1, 2, 3))).path
    path.write_bytes(change(path.read_bytes()))
    log = MetricsFile(tmp_path)
    assert log.rows == len(left)
    log.log_metrics({"a": 4.5}, step=4)
    log.log_metrics({"b": 4.5}, step=4)
    (said,) = recwarn
    assert "metrics.csv is damaged: 1 of its lines are not whole" in str(said.message)
    assert [int(row["step"]) for row in rows(tmp_path)] == [*left, 4, 4]
    assert [row["a"] for row in rows(tmp_path)] == [*(f"{step}.5" for step in left), "4.5", ""]


@pytest.mark.parametrize("content", [b"", b"step,a", b"1,2.0\r\n2,3.0\r\n", b"\0\0\0\n1\n", b"\xff\xfe,step\n1,2\n"])
def test_a_file_without_a_header_is_put_aside(content, tmp_path):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.warns(UserWarning, match=r"metrics\.csv has no line with the names .* kept as .*metrics\.csv\.damaged"):
        logged(tmp_path, *ROWS[:2])
    assert (tmp_path / "metrics.csv.damaged").read_bytes() == content
    assert [row["a"] for row in rows(tmp_path)] == ["1.5", "2.5"]


def test_rows_wait_for_room_on_the_disk(full_disk, tmp_path, recwarn):
    """Half a row fits; then a whole new column does not."""
    log = logged(tmp_path / "full", *ROWS[:2])
    before = log.path.read_bytes()
    with full_disk(len(before) + 3):
        log.log_metrics({"a": 7.5}, step=3)
        assert log.path.read_bytes() == before
        log.log_metrics({"b": 8.5}, step=4)
        assert log.rows == 4
    assert log.path.read_bytes() == before
    assert [p.name for p in log.path.parent.iterdir()] == ["metrics.csv"]
    log.log_metrics({"c": 9.5}, step=5)
    expected = [*ROWS[:2], (3, {"a": 7.5}), (4, {"b": 8.5}), (5, {"c": 9.5})]
    assert log.path.read_bytes() == logged(tmp_path / "empty", *expected).path.read_bytes()
    (said,) = recwarn
    assert str(said.message).endswith("metrics.csv cannot be written (File too large); training goes on")


def test_rows_that_still_wait_are_written_at_the_end(full_disk, tmp_path):
    log = logged(tmp_path, *ROWS[:1])
    with full_disk(3), pytest.warns(UserWarning, match="cannot be written"):
        log.log_metrics({"a": 2.5}, step=2)
    log.finalize("success")
    assert [row["a"] for row in rows(tmp_path)] == ["1.5", "2.5"]


def test_a_cut_that_finds_no_room_is_made_later(full_disk, tmp_path):
    logged(tmp_path, *ROWS)
    log = MetricsFile(tmp_path)
    with full_disk(3), pytest.warns(UserWarning, match="cannot be written"):
        log.cut(2)
    log.log_metrics({"a": 9.5}, step=3)
    assert [row["a"] for row in rows(tmp_path)] == ["1.5", "2.5", "9.5"]


def test_nothing_but_checkpoints_ends_a_training(tmp_path, recwarn):
    """Files stand where folders should be, and folders where files should be."""
    for name in ("metrics.csv", "scores.json"):
        (tmp_path / name).mkdir()
    for name in ("samples", "views", "neighbors"):
        (tmp_path / name).write_text("")
    score = Score(features="pixels", num_images=50, num_real=60, cache_dir=str(tmp_path / "cache"))
    samples = Samples(1, count=4)
    digits = Digits(data_dir=str(tmp_path / "data"), image_size=16, batch_size=64)
    trainer = Trainer(
        logger=MetricsFile(tmp_path),
        callbacks=[samples, Views(1, columns=2), Neighbors(2, num_real=64), score, LastCheckpoint(1)],
        enable_progress_bar=False,
        accelerator="cpu",
        max_steps=3,
        log_every_n_steps=1,
        val_check_interval=1,
        num_sanity_val_steps=0,
    )
    trainer.fit(small(DCGAN), digits)
    assert trainer.global_step == 3
    assert samples.latest is None
    said = [str(w.message).removeprefix(f"{tmp_path}/") for w in recwarn if "training goes on" in str(w.message)]
    assert all(" cannot be written (" in sentence for sentence in said)
    names = sorted(sentence.split(" ")[0].split("/")[0] for sentence in said)
    assert names == ["metrics.csv", "neighbors", "samples", "scores.json", "views"]
