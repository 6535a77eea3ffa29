"""metrics.csv."""

import csv

from conftest import fit, images, small

from callbacks import MetricsFile
from gans import GAN


def read(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_new_metrics_get_a_column(tmp_path):
    log = MetricsFile(tmp_path)
    log.log_metrics({"a": 1}, step=10)
    log.log_metrics({"b": 2}, step=10)
    log.log_metrics({"a": 3, "b": 4}, step=20)
    assert read(tmp_path) == [
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
    assert [(r["step"], r["a"], r["b"]) for r in read(tmp_path)] == [("10", "10.0", ""), ("20", "21.0", "1.0")]


def test_losses_and_rates_are_logged_at_generator_updates(tmp_path):
    fit(small(GAN, n_critic=2), images(64), logger=MetricsFile(tmp_path), log_every_n_steps=3)
    rows = read(tmp_path)
    assert [row["step"] for row in rows] == ["3", "6"]  # 16 batches, 8 updates
    assert {"loss/generator", "loss/discriminator", "lr/generator", "lr/discriminator"} <= rows[0].keys()
    assert all(float(row["loss/generator"]) > 0 for row in rows)
    assert rows[0]["lr/generator"] == "0.0002"
