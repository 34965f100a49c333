"""What verdicts on learning are drawn from: a run's curve, and scores of some rows beside their labels.

Letters: R rows, T sessions, D draws, F inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from barcast.core.arrays import F32, F64, I64
from barcast.evaluation.intervals import Blocks, Bootstrap, interval, plan_blocks, resample
from barcast.evaluation.metrics import rank_ic, ratio

#: Draws of an interval: enough for its ends, done in milliseconds.
BOOTSTRAP = Bootstrap(num_draws=1000)


@dataclass(frozen=True)
class Estimate:
    """A number and how sure it is.

    Attributes
    ----------
    value, low, high : float
        With the interval by blocks of sessions; NaN ends where the sessions are too few for one.
    draws : F64, shape (D,)
    """

    value: float
    low: float
    high: float
    draws: F64

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Rows:
    """Scores of a sample of rows, all about the shortest horizon.

    Attributes
    ----------
    session, symbol : I64, shape (R,)
        Of each row, any numbers.
    score : F64, shape (R,)
        What the model says.
    target : F64, shape (R,)
        What it should have been taught; NaN where unknown.
    y : F64, shape (R,)
        Forward log return, a fraction.
    probe : F64, shape (R,) or None
        What a ridge regression of the target on the last bar's inputs says, fitted on the rows of `fit`.
    lagged : mapping of int to F64, shape (R,)
        The target of the row so many own bars later; NaN where there is none.
    reach : int
        Sessions of the sample over which labels overlap.
    across : bool
        Whether skill is RankIC within sessions; else it is the correlation of score and target over all rows.
    """

    session: I64
    symbol: I64
    score: F64
    target: F64
    y: F64
    probe: F64 | None = None
    lagged: Mapping[int, F64] = field(default_factory=dict)
    reach: int = 1
    across: bool = True

    @cached_property
    def place(self) -> tuple[I64, int]:
        """Each row's session as 0 .. T-1, and T."""
        found, place = np.unique(self.session, return_inverse=True)
        return place.astype(np.int64), len(found)

    @cached_property
    def blocks(self) -> Blocks:
        """The blocks that every interval of these rows is drawn from."""
        return plan_blocks(self.place[1], self.reach, 0, BOOTSTRAP)

    def skill(self, score: F64) -> Estimate:
        """Return the skill of a score against what came, with its interval."""
        if self.across:
            place, num = self.place
            series = rank_ic(self.y, score, place.astype(np.int32), num)
            known = np.isfinite(series)
            return self._estimate(np.stack([np.where(known, series, 0.0), known], axis=1), _mean)
        known = np.isfinite(self.target) & np.isfinite(score)
        x, y = np.where(known, score, 0.0), np.where(known, self.target, 0.0)
        return self._estimate(self._sums(x * y, x, y, x * x, y * y, known), _correlation)

    def mean(self, values: F64) -> Estimate:
        """Return the mean of finite values (R,) with its interval."""
        known = np.isfinite(values)
        return self._estimate(self._sums(np.where(known, values, 0.0), known), _mean)

    def _sums(self, *columns: Any) -> F64:
        place, num = self.place
        return np.stack([np.bincount(place, weights=column, minlength=num) for column in columns], axis=1)

    def _estimate(self, sums: F64, statistic: Any) -> Estimate:
        value = float(statistic(sums.sum(axis=0)[None])[0])
        draws = statistic(resample(np.ascontiguousarray(sums, np.float64), self.blocks))
        return Estimate(value, *interval(value, draws, self.blocks), draws)

    def difference(self, a: Estimate, b: Estimate) -> Estimate:
        """Return ``a - b`` with its interval from the draws that both share."""
        value, draws = a.value - b.value, a.draws - b.draws
        return Estimate(value, *interval(value, draws, self.blocks), draws)


def _mean(sums: F64) -> F64:
    return ratio(sums[:, 0], sums[:, 1])


def _correlation(sums: F64) -> F64:
    xy, x, y, xx, yy, n = sums.T
    spread = np.maximum(n * xx - x * x, 0.0) * np.maximum(n * yy - y * y, 0.0)
    return ratio(n * xy - x * y, np.sqrt(spread))


@dataclass(frozen=True)
class Evidence:
    """Everything that is known of a run's learning; what is not known is None or empty.

    Attributes
    ----------
    curve : sequence of mapping
        Lines of metrics.jsonl; empty for models that the loop does not train.
    null_loss : float or None
        Training loss of predicting 0, the mean of the target; None where the loss is no squared error.
    lr : float or None
        None for models that the loop does not train.
    epochs, batch_size : int
        As the run was given them; the latter in labels.
    reason : str
        Why the run failed.
    moved : float or None
        How far the shared weights are from where they began, relative to their size then.
    saturated : float or None
        Share of recurrent states within 0.01 of their bounds.
    fit, held : Rows or None
        Rows that taught; rows of `weigh` and `route`, which chose nothing about the weights.
    one_horizon : bool
        Whether the recorded loss is about the same labels as the rows are.
    command : str
        What trains the run once more, to which options can be added.
    audit : str
        What audits the run.
    """

    curve: Sequence[Mapping[str, Any]] = ()
    null_loss: float | None = None
    lr: float | None = None
    epochs: int = 0
    batch_size: int = 0
    reason: str = ""
    moved: float | None = None
    saturated: float | None = None
    fit: Rows | None = None
    held: Rows | None = None
    one_horizon: bool = True
    command: str = "barcast train lstm"
    audit: str = "barcast audit"

    @cached_property
    def losses(self) -> F64:
        """Training loss of each line."""
        return np.array([line["train_loss"] for line in self.curve], np.float64)

    @cached_property
    def scores(self) -> F64:
        """`stop` score of each line, NaN where undefined."""
        found = [line.get("stop_score") for line in self.curve]
        return np.array([math.nan if score is None else score for score in found], np.float64)

    @cached_property
    def epoch_losses(self) -> F64:
        """Training loss of each whole epoch: every label once, so that a difference is no luck of the draw.

        The lines themselves where there are fewer than two whole epochs.
        """
        epoch, whole = self._epochs
        if len(whole) < 2:
            return self.losses
        return np.array([self.losses[epoch == e].mean() for e in whole])

    @property
    def num_whole_epochs(self) -> int:
        """Epochs that visited every label."""
        return len(self._epochs[1])

    @cached_property
    def _epochs(self) -> tuple[I64, list[int]]:
        """Return the epoch of each line, from 1, and which epochs are whole."""
        ends = np.array([line["epoch"] for line in self.curve], np.float64)
        epoch = np.ceil(ends - 1e-6).astype(np.int64)
        return epoch, [int(e) for e in np.unique(epoch) if abs(ends[epoch == e].max() - e) < 1e-6]

    @cached_property
    def has_skill(self) -> bool:
        """Whether skill on rows that chose nothing stands clear of zero."""
        return self.held is not None and self.held.skill(self.held.score).low > 0

    @property
    def best(self) -> int:
        """Line of the best `stop` score, -1 without any."""
        return int(np.nanargmax(self.scores)) if np.isfinite(self.scores).any() else -1

    @property
    def has_steps(self) -> bool:
        """Whether the loop trains the model, so that its options and those of networks are read."""
        return self.lr is not None

    def again(self, *options: str) -> str:
        """Return the command that trains the run once more with other options of the loop or a network.

        Empty for models without steps, which refuse them.
        """
        return " ".join([self.command, *options]) if self.has_steps else ""


def lagged_values(values: F64 | F32, symbol: I64, rows: I64, lag: int) -> F64:
    """Return the value of the row ``lag`` own bars after each of ``rows`` (R,); NaN beyond the symbol's rows.

    Parameters
    ----------
    values : shape (all rows,)
    symbol : I64, shape (all rows,)
        Rows of one symbol lie together, in time.
    """
    there = rows + lag
    safe = np.clip(there, 0, len(values) - 1)
    same = (there == safe) & (symbol[safe] == symbol[rows])
    return np.where(same, values[safe], np.nan).astype(np.float64)


def ridge_probe(inputs: F32, target: F64, fit: I64, *others: I64) -> list[F64]:
    """Fit the target on inputs (all rows, F) of the rows ``fit`` and return its scores there and on others.

    What a few thousand rows and a straight line can do: a yardstick, no model.
    """
    known = np.isfinite(target[fit])
    rows = fit[known]
    x, y = inputs[rows].astype(np.float64), target[rows]
    gram = x.T @ x + 1e-2 * len(rows) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ (y - y.mean()))
    return [inputs[each].astype(np.float64) @ weights for each in (fit, *others)]


def sample_rows(rows: I64, session: I64, most: int, *, seed: int = 0) -> tuple[I64, int]:
    """Choose at most about ``most`` rows: some symbols of evenly spaced sessions.

    Returns
    -------
    rows : I64
        In their order.
    spacing : int
        Sessions from one chosen session to the next.
    """
    if len(rows) <= most:
        return rows, 1
    present = np.unique(session[rows])
    each = max(len(rows) // len(present), 1)
    wanted = min(each, max(most // len(present), 100))
    spacing = max(-(-len(present) * wanted // most), 1)
    inside = rows[np.isin(session[rows], present[::spacing])]
    order = np.lexsort((np.random.default_rng(seed).random(len(inside)), session[inside]))
    of = session[inside][order]
    starts = np.r_[0, np.flatnonzero(np.diff(of)) + 1]
    number = np.arange(len(of)) - np.repeat(starts, np.diff(np.r_[starts, len(of)]))
    return np.sort(inside[order][number < wanted]), spacing
