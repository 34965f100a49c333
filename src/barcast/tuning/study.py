"""The study: every trial in one SQLite file, asked for and told by one process.

Optuna (Akiba et al. 2019) samples by TPE (Bergstra et al. 2011) and prunes below the median. The sampler is
made anew for each trial from the seed and the trial's place, so that a study that was cut off and taken up
again goes the way it would have gone. A trial whose process died is *lost*: its options are tried again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from barcast.core.config import digest
from barcast.core.errors import UsageError
from barcast.tuning.space import Parameter, Range, Space

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

COMPLETE, PRUNED, FAILED, LOST, RUNNING = "complete", "pruned", "failed", "lost", "running"
#: How often options are tried whose process died: what kills it may be they themselves.
MAX_ATTEMPTS = 5
#: Trials before the median is one, and before the sampler looks at scores.
_STARTUP_TRIALS, _RANDOM_TRIALS = 5, 10


@dataclass(frozen=True)
class Candidate:
    """A trial to be run: its number in the study and its options by name."""

    number: int
    options: dict[str, Any]


@dataclass(frozen=True)
class TrialRecord:
    """What the study knows of a trial.

    Attributes
    ----------
    number : int
        In the study, from 0.
    state : str
        ``complete``, ``pruned``, ``failed`` (with a reason), ``lost`` (cut off, tried again as another one)
        or ``running``.
    score : float or None
        The best on `stop`; of a pruned trial the best until it ended.
    options : dict
        By name.
    seconds : float or None
    reason : str
        Why it failed.
    """

    number: int
    state: str
    score: float | None
    options: dict[str, Any]
    seconds: float | None
    reason: str = ""

    @property
    def is_tried(self) -> bool:
        """Whether it counts as one of the candidates that were looked at."""
        return self.state in (COMPLETE, PRUNED, FAILED)


class Study:
    """One search; only one process at a time may hold it."""

    def __init__(self, study: optuna.Study, space: Space, seed: int) -> None:
        self.space = space
        self._study = study
        self._seed = seed
        self._distributions = {each.name: _distribution(each) for each in space.parameters}
        self._open: dict[int, optuna.Trial] = {}

    def begin(self, start: dict[str, Any]) -> None:
        """Try ``start`` (as `Space.start` gives it) first, or take up again what was cut off."""
        trials = self._study.get_trials(deepcopy=False)
        if not trials and start:
            self._study.enqueue_trial(start)
        for trial in trials:
            if trial.state.name == "RUNNING":
                self.lose(trial.number)

    def ask(self) -> Candidate:
        """Begin the next trial."""
        from optuna.samplers import TPESampler

        place = sum(
            trial.state.name != "WAITING" and trial.number not in self._lost()
            for trial in self._study.get_trials(deepcopy=False)
        )
        seed = int(digest([self._seed, place]), 16) % 2**32
        self._study.sampler = TPESampler(seed=seed, n_startup_trials=_RANDOM_TRIALS)
        trial = self._study.ask(self._distributions)
        self._open[trial.number] = trial
        return Candidate(trial.number, self.space.values(trial.params))

    def score_of(self, candidate: Candidate) -> float | None:
        """Return the score of a finished trial with the same options; None where there is none."""
        trials = self._study.get_trials(deepcopy=False)
        own = trials[candidate.number].params
        same = (trial.value for trial in trials if trial.params == own and trial.state.name == "COMPLETE")
        return next(same, None)

    def report(self, number: int, step: int, best: float) -> bool:
        """Note the best score of a running trial after its evaluation ``step``; say whether to end it."""
        trial = self._open[number]
        trial.report(best, step)
        return bool(trial.should_prune())

    def complete(self, number: int, score: float, seconds: float) -> None:
        """End a trial with its best score on `stop`."""
        self._end(number, seconds)
        self._study.tell(number, score)

    def prune(self, number: int, seconds: float) -> None:
        """End a trial that fell behind."""
        from optuna.trial import TrialState

        self._end(number, seconds)
        self._study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, reason: str, seconds: float) -> None:
        """End a trial whose options cannot be trained."""
        from optuna.trial import TrialState

        self._end(number, seconds, reason)
        self._study.tell(number, state=TrialState.FAIL)

    def lose(self, number: int) -> None:
        """End a trial whose process died and let its options wait to be tried again.

        They are put there first: were this cut off in between, the trial would still be open and found.
        """
        from optuna.trial import TrialState

        trial = self._study.get_trials(deepcopy=False)[number]
        attempt = int(trial.user_attrs.get("attempt", 1))
        if attempt < MAX_ATTEMPTS and number not in self._lost():
            whole = len(trial.params) == len(self.space)
            again = dict(trial.params) if whole else trial.system_attrs.get("fixed_params", {})
            self._study.enqueue_trial(again, user_attrs={"retry_of": number, "attempt": attempt + 1})
        self._open.pop(number, None)
        self._study.tell(number, state=TrialState.FAIL)

    def trials(self) -> tuple[TrialRecord, ...]:
        """Return every trial that has begun, in order."""
        lost = self._lost()
        trials = self._study.get_trials(deepcopy=False)
        return tuple(self._record(trial, lost) for trial in trials if trial.state.name != "WAITING")

    def importance(self) -> dict[str, float]:
        """Return each option's share in reaching the best trials (PED-ANOVA); empty where few are done."""
        from optuna.importance import get_param_importances

        done = [record for record in self.trials() if record.state == COMPLETE]
        if len(done) < 2 * len(self.space) or len({record.score for record in done}) < 2:
            return {}
        return {name: float(share) for name, share in get_param_importances(self._study).items()}

    def _lost(self) -> set[int]:
        found = (trial.user_attrs.get("retry_of") for trial in self._study.get_trials(deepcopy=False))
        return {number for number in found if number is not None}

    def _end(self, number: int, seconds: float, reason: str = "") -> None:
        trial = self._open.pop(number)
        trial.set_user_attr("seconds", round(seconds, 3))
        if reason:
            trial.set_user_attr("reason", reason[:500])

    def _record(self, trial: FrozenTrial, lost: set[int]) -> TrialRecord:
        named = {"COMPLETE": COMPLETE, "PRUNED": PRUNED, "RUNNING": RUNNING, "FAIL": FAILED}
        state = LOST if trial.number in lost else named[trial.state.name]
        known = [value for value in trial.intermediate_values.values() if np.isfinite(value)]
        score = trial.value if state == COMPLETE else max(known, default=None)
        attributes = trial.user_attrs
        cut_off = f"cut off {MAX_ATTEMPTS} times while these options were tried" if state == FAILED else ""
        return TrialRecord(
            number=trial.number,
            state=state,
            score=score,
            options=self.space.values(trial.params),
            seconds=attributes.get("seconds"),
            reason=attributes.get("reason", cut_off),
        )


def check_optuna() -> None:
    """Refuse a search where Optuna is missing, before anything is read for it.

    Raises
    ------
    UsageError
        With the command that installs it.
    """
    if find_spec("optuna") is None:
        raise UsageError("a search needs Optuna, which is not installed", "pip install 'barcast[tune]'")


@contextmanager
def open_study(path: Path, name: str, space: Space, seed: int, *, warmup: int) -> Iterator[Study]:
    """Open (or make) the study in a SQLite file.

    Parameters
    ----------
    seed : int
        Of the sampler.
    warmup : int
        Evaluations of a trial before it may be pruned.

    Raises
    ------
    UsageError
        When Optuna is not installed.
    """
    check_optuna()
    import optuna
    from optuna.storages import RDBStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # a creator instead of an address: no folder's name is then read as part of one
    storage = RDBStorage("sqlite://", engine_kwargs={"creator": lambda: _connect(path)})
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=warmup),
        )
        yield Study(study, space, seed)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file with a write-ahead log: no kill loses a step, and none waits for the disk."""
    connection = sqlite3.connect(path)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    return connection


def _distribution(parameter: Parameter) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = parameter.values
    if not isinstance(values, Range):
        return CategoricalDistribution([parameter.stored(value) for value in values])
    if parameter.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=int(values.step) or 1)
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step or None)
