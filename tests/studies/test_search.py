"""Which settings are tried next."""

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.scores.history import record
from callbacks.studies.found import scored_in
from callbacks.studies.search import Bayesian, Search, score_of
from callbacks.studies.sweep import read_sweep

METRIC = "metric: {name: score/fid, goal: minimize}\n"
PARAMETERS = """
parameters:
  model.generator_optimizer.lr: {distribution: log_uniform_values, min: 1.0e-5, max: 1.0e-1}
  model.loss: {values: [Hinge, [a, b]]}
  model.width: {min: 4, max: 64}
  data.batch_size: {value: 16}
"""


def sweep_of(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text + PARAMETERS)
    return read_sweep(str(tmp_path / "mine.yaml"))


def history(*values):
    return [{"step": n, "scores": {"score/fid": value}} for n, value in enumerate(values, 1)], "score/fid", "min"


def test_random_settings_end_after_so_many(tmp_path):
    search = Search(sweep_of(tmp_path, "method: random\nrun_cap: 3\n"))
    assert [search.next() is None for _ in range(5)] == [False, False, False, True, True]


def test_optuna_goes_to_where_scores_are_better(tmp_path):
    """The farther the rate from 1e-3, the worse; the later half of its settings is nearer than the earlier."""
    from math import log10

    search = Bayesian(sweep_of(tmp_path, "method: bayes\nrun_cap: 40\nmetric: {name: score/fid, goal: minimize}\n"))
    far = []
    while (settings := search.next()) is not None:
        assert settings["model.loss"] in ("Hinge", ["a", "b"])
        assert 4 <= settings["model.width"] <= 64
        assert settings["data.batch_size"] == 16
        far.append(abs(log10(settings["model.generator_optimizer.lr"]) + 3))
        search.done(settings, history(9.0, far[-1]))
    assert len(far) == 40
    assert sum(far[20:]) < 0.7 * sum(far[:20])


def test_what_an_earlier_go_found_is_taken_up(tmp_path):
    sweep = sweep_of(tmp_path, f"method: bayes\nrun_cap: 3\n{METRIC}")
    first, second = Bayesian(sweep), Bayesian(sweep)
    settings = first.next()
    first.done(settings, history(1.0))
    interrupted = first.next()
    second.known(settings, history(1.0))
    second.known(interrupted, None)
    third = second.next()
    assert third not in (None, settings, interrupted)
    second.done(interrupted, history(2.0))  # which went on
    second.done(third, history(3.0))
    assert sorted(trial.value for trial in second._study.trials) == [1.0, 2.0, 3.0]
    assert second.next() is None


def test_nothing_is_tried_twice(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"method: bayes\nrun_cap: 9\n{METRIC}parameters: {{a: {{values: [1,2,3]}}}}\n")
    search = Bayesian(read_sweep(str(tmp_path / "mine.yaml")))
    assert sorted(search.next()["a"] for _ in range(3)) == [1, 2, 3]
    assert search.next() is None


def test_a_hopeless_run_is_ended(tmp_path):
    text = f"method: bayes\nrun_cap: 30\n{METRIC}early_terminate: {{type: hyperband, min_iter: 1, eta: 2}}\n"
    search = Bayesian(sweep_of(tmp_path, text))
    ended = []
    for number in range(20):
        settings = search.next()
        scores = history(*([1.0, 0.9, 0.8, 0.7] if number < 10 else [100.0, 100.0, 100.0, 100.0]))
        hopeless = any(search.hopeless(settings, scores[0][:n], *scores[1:]) for n in range(1, 5))
        search.done(settings, scores)
        ended.append(hopeless)
    assert any(ended[10:])


def test_a_run_is_also_judged_by_its_images_quality(tmp_path):
    text = "method: bayes\nrun_cap: 3\nmetric: {name: quality/psnr, goal: maximize}\n"
    search = Bayesian(sweep_of(tmp_path, text))
    settings = search.next()
    for step, value in ((1, 20.0), (2, 30.0)):
        record(tmp_path / "quality.json", {"step": step, "scores": {"quality/psnr": value}}, "quality/psnr", "max")
        record(tmp_path / "scores.json", {"step": step, "scores": {"score/fid": 1.0}}, "score/fid", "min")
    search.done(settings, scored_in(tmp_path))
    assert [trial.value for trial in search._study.trials] == [30.0]


def test_a_distribution_that_optuna_has_not_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        f"method: bayes\nrun_cap: 3\n{METRIC}parameters: {{a: {{distribution: normal}}}}\n"
    )
    with pytest.raises(MisconfigurationException, match=r"mine\.yaml: parameters\.a: Optuna knows no normal"):
        Bayesian(read_sweep(str(tmp_path / "mine.yaml")))


def test_the_best_value_is_that_of_the_goal():
    assert score_of(history(3.0, 1.0, 2.0), "", "minimize") == 1.0
    assert score_of(history(3.0, 1.0, 2.0), "score/fid", "maximize") == 3.0
    assert score_of(history(3.0), "score/kid", "minimize") is None
    assert score_of(None, "", "minimize") is None
