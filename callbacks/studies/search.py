"""Which settings are tried next: all of a grid, so many at random, or those that Optuna proposes."""

from collections.abc import Iterator
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.scores.history import Mode
from callbacks.studies.sweep import Sweep

TRIES = 100  # to find settings that were not tried before
History = tuple[list[dict[str, Any]], str, Mode]


class Search:
    """The settings of a grid, or drawn at random, one after the other."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._left: Iterator[dict[str, Any]] = sweep.settings()

    def next(self) -> dict[str, Any] | None:
        """Settings of the next run; None when there are no more."""
        return next(self._left, None)

    def known(self, settings: dict[str, Any], history: History | None) -> None:
        """Called with what a run of an earlier go was scored, or None."""

    def done(self, settings: dict[str, Any], history: History | None) -> None:
        """Called with what a run was scored, or None, at its end."""

    def hopeless(self, settings: dict[str, Any], history: list[dict[str, Any]], monitor: str, mode: Mode) -> bool:
        """Whether a run that goes on is no longer worth it."""
        return False


class Bayesian(Search):
    """Optuna's tree-structured Parzen estimator; with ``early_terminate``, its Hyperband prunes.

    Raises:
        MisconfigurationException: Optuna is not installed, or a distribution is none of its own.
    """

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(sweep)
        try:
            import optuna
        except ImportError as error:
            raise MisconfigurationException("method bayes needs Optuna: pip install -e '.[studies]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        kinds = optuna.distributions
        self._distributions: dict[str, Any] = {}
        for key, p in sweep.parameters.items():
            kind = p["distribution"]
            if kind in ("constant", "categorical"):
                # By number, since Optuna takes no lists.
                self._distributions[key] = kinds.CategoricalDistribution(range(len(p.get("values", [None]))))
            elif kind == "int_uniform":
                self._distributions[key] = kinds.IntDistribution(p["min"], p["max"])
            elif kind in ("uniform", "log_uniform_values"):
                self._distributions[key] = kinds.FloatDistribution(p["min"], p["max"], log=kind != "uniform")
            elif kind == "q_uniform":
                self._distributions[key] = kinds.FloatDistribution(p["min"], p["max"], step=p.get("q", 1.0))
            else:
                raise MisconfigurationException(
                    f"{sweep.path}: parameters.{key}: Optuna knows no {kind}; take uniform, q_uniform, "
                    "log_uniform_values, int_uniform or values"
                )
        early = sweep.early_terminate
        pruner = (
            optuna.pruners.HyperbandPruner(early["min_iter"], reduction_factor=early.get("eta", 3)) if early else None
        )
        self._study = optuna.create_study(
            direction="maximize" if sweep.goal == "maximize" else "minimize",
            sampler=optuna.samplers.TPESampler(seed=0),
            pruner=pruner or optuna.pruners.NopPruner(),
        )
        self._asked = 0
        self._trials: dict[str, Any] = {}
        self._pruned: set[str] = set()
        self._seen: set[str] = set()
        self._optuna = optuna

    def next(self) -> dict[str, Any] | None:
        if self._asked >= (self.sweep.runs or 0):
            return None
        for _ in range(TRIES):
            trial = self._study.ask(self._distributions)
            settings = {}
            for key, p in self.sweep.parameters.items():
                value = trial.params[key]
                settings[key] = p["values"][value] if "values" in p else p.get("value", value)
            if str(settings) not in self._seen:
                self._asked += 1
                self._seen.add(str(settings))
                self._trials[str(settings)] = trial
                return settings
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)  # what was tried before
        return None

    def known(self, settings: dict[str, Any], history: History | None) -> None:
        self._asked += 1
        self._seen.add(str(settings))
        # Or it would propose again what it has before.
        self._study.sampler = self._optuna.samplers.TPESampler(seed=self._asked)
        self._add(settings, score_of(history, self.sweep.metric, self.sweep.goal))

    def _add(self, settings: dict[str, Any], value: float | None) -> None:
        """A trial that this search has not asked for."""
        if value is not None:
            params = {
                key: p["values"].index(settings[key]) if "values" in p else 0 if "value" in p else settings[key]
                for key, p in self.sweep.parameters.items()
            }
            self._study.add_trial(
                self._optuna.trial.create_trial(params=params, distributions=self._distributions, value=value)
            )

    def done(self, settings: dict[str, Any], history: History | None) -> None:
        trial = self._trials.pop(str(settings), None)
        value, states = score_of(history, self.sweep.metric, self.sweep.goal), self._optuna.trial.TrialState
        if trial is None:  # of an earlier go
            self._add(settings, value)
        elif str(settings) in self._pruned:
            self._study.tell(trial, state=states.PRUNED)
        elif value is None:
            self._study.tell(trial, state=states.FAIL)
        else:
            self._study.tell(trial, value)

    def hopeless(self, settings: dict[str, Any], history: list[dict[str, Any]], monitor: str, mode: Mode) -> bool:
        trial, name = self._trials.get(str(settings)), self.sweep.metric or monitor
        if trial is None or not self.sweep.early_terminate:
            return False
        told = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for number, entry in enumerate((entry for entry in history if name in entry["scores"]), 1):
            if number not in told:
                trial.report(entry["scores"][name], number)
                if trial.should_prune():
                    self._pruned.add(str(settings))
                    return True
        return False


def score_of(history: History | None, metric: str, goal: str) -> float | None:
    """The best value of a metric in a run's history."""
    if history is None:
        return None
    entries, monitor, _ = history
    name = metric or monitor
    values = [entry["scores"][name] for entry in entries if entry["scores"].get(name) == entry["scores"].get(name, 0.5)]
    return (max if goal == "maximize" else min)(values, default=None)
