"""Per-session sums from which every score, its interval and its paired differences follow.

A score over many sessions is a function of sums (R squared is a ratio of two, MCC comes from four counts); so
the score of a redrawn sample needs the sums of the sessions drawn, not their rows. `METRICS` holds that
function for each score, once, for the score itself and for its 2,000 redrawings.

The pooled area under the curve compares rows of different sessions and is no function of sums; its placements
are (see `auc_placements`): the interval is that of this linear approximation, exact to first order.

Letters: R rows, T sessions, D draws, Q quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import F64, I64, Bools
from barcast.evaluation.grouped import Groups, Sorted, auc_placements
from barcast.evaluation.metrics import (
    Confusion,
    ic_of,
    icir_of_sums,
    inside,
    log_losses,
    pinball_losses,
    rank_ic_of,
    ratio,
    session_auc_of,
)

#: Sums by name: arrays of shape (T,), (D,) or () that share it.
Sums = Mapping[str, F64]
_COUNTS = ("tp", "tn", "fp", "fn")


@dataclass(frozen=True)
class Metric:
    """One score as a function of sums.

    Attributes
    ----------
    name : str
        Its key in every result.
    parts : tuple of str
        The sums it reads.
    value : callable
        From sums to score, element by element; NaN where undefined.
    no_skill : float
        What a forecast without information scores; NaN where that depends on the rows.
    cross_sectional : bool
        Whether it compares symbols within a session; absent in a small universe.
    """

    name: str
    parts: tuple[str, ...]
    value: Callable[[Sums], F64]
    no_skill: float = math.nan
    cross_sectional: bool = False

    @property
    def counter(self) -> str | None:
        """The part that counts defined sessions, for scores that leave some sessions out."""
        return f"{self.parts[0]}_n" if self.cross_sectional else None


@dataclass(frozen=True)
class Outputs:
    """What one model said for R rows. Absent outputs are None; present ones are finite.

    Attributes
    ----------
    score : F64, shape (R,)
        Raw output; only its order counts.
    y_hat, p_up : F64, shape (R,), or None
        Expected log return (a fraction); probability of ``y > 0``.
    quantiles : F64, shape (R, Q), or None
        Quantiles of the return.
    """

    score: F64
    y_hat: F64 | None = None
    p_up: F64 | None = None
    quantiles: F64 | None = None

    def take(self, keep: Bools | I64) -> Outputs:
        """Return the rows where ``keep`` is true, or at the places it holds."""
        columns = (self.y_hat, self.p_up, self.quantiles)
        return Outputs(self.score[keep], *(None if column is None else column[keep] for column in columns))


def _per_row(part: str) -> Callable[[Sums], F64]:
    return lambda sums: ratio(sums[part], sums["num"])


def _per_session(part: str) -> Callable[[Sums], F64]:
    return lambda sums: ratio(sums[part], sums[f"{part}_n"])


def _icir(part: str) -> Callable[[Sums], F64]:
    return lambda sums: icir_of_sums(sums[part], sums[f"{part}_sq"], sums[f"{part}_n"])


def _confusion(sums: Sums) -> Confusion:
    return Confusion(*(sums[name] for name in _COUNTS))


_ALL = (
    Metric("mae", ("abs_error", "num"), _per_row("abs_error")),
    Metric("rmse", ("sq_error", "num"), lambda sums: np.sqrt(ratio(sums["sq_error"], sums["num"]))),
    Metric("r2", ("sq_error", "sq_y"), lambda sums: 1 - ratio(sums["sq_error"], sums["sq_y"]), 0.0),
    Metric("direction", _COUNTS, lambda sums: _confusion(sums).accuracy),
    Metric("mcc", _COUNTS, lambda sums: _confusion(sums).mcc, 0.0),
    Metric("up_share", _COUNTS, lambda sums: _confusion(sums).up_share),
    Metric(
        "auc",
        ("auc_up", "num_up", "auc_down", "num_down"),
        lambda sums: ratio(sums["auc_up"], sums["num_up"]) + ratio(sums["auc_down"], sums["num_down"]),
        0.5,
    ),
    Metric("session_auc", ("session_auc", "session_auc_n"), _per_session("session_auc"), 0.5, True),
    Metric("ic", ("ic", "ic_n"), _per_session("ic"), 0.0, True),
    Metric("rank_ic", ("rank_ic", "rank_ic_n"), _per_session("rank_ic"), 0.0, True),
    Metric("icir", ("ic", "ic_sq", "ic_n"), _icir("ic"), 0.0, True),
    Metric("rank_icir", ("rank_ic", "rank_ic_sq", "rank_ic_n"), _icir("rank_ic"), 0.0, True),
    Metric("log_loss", ("log_loss", "num"), _per_row("log_loss")),
    Metric("brier", ("brier", "num"), _per_row("brier")),
    Metric("pinball", ("pinball", "num"), _per_row("pinball")),
    Metric("quantile_coverage", ("inside", "num"), _per_row("inside")),
)
#: Every score of a comparison by its key, in the order of its columns.
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}


def session_sums(
    by_y: Sorted, outputs: Outputs, *, cross_sectional: bool, levels: F64 | None = None
) -> dict[str, F64]:
    """Return the sums of one model per session, each of shape (T,); only those that its outputs allow.

    Parameters
    ----------
    by_y : Sorted
        Outcomes of R rows (finite), sorted by session, then value; made once for all models.
    outputs : Outputs
        What the model said, row by row.
    cross_sectional : bool
        Whether sums of the IC family are wanted.
    levels : F64, shape (Q,), optional
        Levels of the quantiles; without them quantiles are not scored.
    """
    y, sessions = by_y.values, by_y.groups
    order = np.argsort(outputs.score)
    sums = {"num": sessions.sizes.astype(np.float64)}
    if outputs.y_hat is not None:
        error = y - outputs.y_hat
        sums["abs_error"], sums["sq_error"] = sessions.sums(np.abs(error)), sessions.sums(error**2)
        sums["sq_y"] = sessions.sums(y**2)
    sums |= _direction_sums(y, outputs, sessions) | _auc_sums(y, outputs.score, sessions, order)
    if cross_sectional:
        sums |= _ic_sums(by_y, Sorted.by(outputs.score, sessions, order))
    if outputs.p_up is not None:
        sums["log_loss"] = sessions.sums(log_losses(y, outputs.p_up))
        sums["brier"] = sessions.sums((outputs.p_up - (y > 0)) ** 2)
    if outputs.quantiles is not None and levels is not None:
        sums["pinball"] = sessions.sums(pinball_losses(y, outputs.quantiles, levels))
        sums["inside"] = sessions.sums(inside(y, outputs.quantiles))
    return sums


def _direction_sums(y: F64, outputs: Outputs, sessions: Groups) -> dict[str, F64]:
    up, down = y > 0, y < 0
    called_up = (outputs.score if outputs.y_hat is None else outputs.y_hat) > 0
    cells = {"tp": up & called_up, "tn": down & ~called_up, "fp": down & called_up, "fn": up & ~called_up}
    return {name: sessions.sums(cell) for name, cell in cells.items()}


def _auc_sums(y: F64, score: F64, sessions: Groups, order: I64) -> dict[str, F64]:
    up, down = y > 0, y < 0
    if not up.any() or not down.any():
        return {}
    placements = auc_placements(up, down, score, order)
    area = placements[up].mean()
    return {
        "num_up": sessions.sums(up),
        "num_down": sessions.sums(down),
        "auc_up": sessions.sums(np.where(up, placements, 0.0)),
        # The area is already in the up half; the down half carries only its deviation.
        "auc_down": sessions.sums(np.where(down, placements - area, 0.0)),
    }


def _ic_sums(by_y: Sorted, by_score: Sorted) -> dict[str, F64]:
    series = {
        "ic": ic_of(by_y, by_score),
        "rank_ic": rank_ic_of(by_y, by_score),
        "session_auc": session_auc_of(by_y, by_score),
    }
    sums: dict[str, F64] = {}
    for name, values in series.items():
        defined = np.isfinite(values)
        sums[name] = np.where(defined, values, 0.0)
        sums[f"{name}_sq"] = sums[name] ** 2
        sums[f"{name}_n"] = defined.astype(np.float64)
    return sums


def score_of(metric: Metric, sums: Sums) -> float:
    """Return the score over all sessions; NaN where a part is absent."""
    if any(part not in sums for part in metric.parts):
        return math.nan
    return float(metric.value({part: np.asarray(sums[part].sum()) for part in metric.parts}))
