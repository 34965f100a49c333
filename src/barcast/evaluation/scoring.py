"""Score one model, and two models against each other, from sums per session and shared redrawings.

Letters: T sessions, D draws, M seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import F64, Bools
from barcast.evaluation.align import CommonRows
from barcast.evaluation.intervals import Blocks, interval, resample
from barcast.evaluation.results import ABSENT, CONSTANT, FEW_SESSIONS, ONE_CLASS, Score
from barcast.evaluation.sums import METRICS, Metric, Sums, score_of, session_sums


@dataclass(frozen=True)
class Scored:
    """One model's sums, scores and redrawn scores.

    Attributes
    ----------
    name : str
        The model.
    sums : tuple of Sums, length M
        Sums per session of each seed.
    values : dict of str to F64, shape (M,)
        Each score of each seed.
    draws : dict of str to F64, shape (D,)
        The mean over seeds of each redrawn score.
    """

    name: str
    sums: tuple[Sums, ...]
    values: dict[str, F64]
    draws: dict[str, F64]

    def value(self, metric: str) -> float:
        """Return a score, the mean over seeds; NaN where undefined."""
        return float(self.values[metric].mean()) if metric in self.values else math.nan


def score_model(
    rows: CommonRows, name: str, blocks: Blocks, *, cross_sectional: bool, levels: F64 | None = None
) -> Scored:
    """Score every seed of one model on aligned rows."""
    sums = tuple(
        session_sums(rows.by_y, forecast.outputs, cross_sectional=cross_sectional, levels=levels)
        for forecast in rows.of(name)
    )
    parts = sorted(set.intersection(*(set(own) for own in sums)))
    drawn = [
        dict(zip(parts, resample(np.column_stack([own[part] for part in parts]), blocks).T, strict=True))
        for own in sums
    ]
    given = [metric for metric in METRICS.values() if set(metric.parts) <= set(parts)]
    return Scored(
        name,
        sums,
        {m.name: _count_collapsed(m, np.array([score_of(m, own) for own in sums])) for m in given},
        {m.name: _mean_draws(m, sums, [m.value(own) for own in drawn]) for m in given},
    )


def _count_collapsed(metric: Metric, values: F64) -> F64:
    """Let a seed that collapsed to a constant count as no skill, unless all did."""
    collapsed = np.isnan(values)
    return values if collapsed.all() else np.where(collapsed, metric.no_skill, values)


def _mean_draws(metric: Metric, sums: Sequence[Sums], draws: Sequence[F64]) -> F64:
    defined = [_is_defined(metric, own) for own in sums]
    if any(defined):
        draws = [d if ok else np.full_like(d, metric.no_skill) for d, ok in zip(draws, defined, strict=True)]
    mean: F64 = np.mean(draws, axis=0)
    return mean


def _is_defined(metric: Metric, sums: Sums) -> bool:
    return math.isfinite(score_of(metric, sums))


def with_interval(metric: str, scored: Scored, blocks: Blocks) -> Score:
    """Return a score with its interval and the reason for whatever is missing."""
    if metric not in scored.values:
        return Score(math.nan, math.nan, math.nan, flag=ONE_CLASS if metric == "auc" else ABSENT)
    values = scored.values[metric]
    value = scored.value(metric)
    low, high = interval(value, scored.draws[metric], blocks)
    seed_sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Score(value, low, high, seed_sd, _flag(metric, scored, value, low))


def _flag(metric: str, scored: Scored, value: float, low: float) -> str:
    if math.isnan(value):
        return CONSTANT if METRICS[metric].cross_sectional else ONE_CLASS
    if metric == "mcc" and scored.value("up_share") in (0.0, 1.0):
        return CONSTANT
    return FEW_SESSIONS if math.isnan(low) else ""


def paired(metric: str, one: Scored, other: Scored, blocks: Blocks) -> tuple[float, F64]:
    """Return how much ``one`` scores above ``other``, and that difference in each draw.

    Both are scored on the same rows; scores that leave sessions out are taken over the sessions that neither
    leaves out. A constant forecast, whose RankIC is undefined in every session, counts as no skill.

    Returns
    -------
    float, F64 of shape (D,)
        NaN and NaNs where the difference is undefined.
    """
    definition = METRICS[metric]
    shared = _shared_sessions(definition, [*one.sums, *other.sums])
    value, draws = _on_sessions(definition, one, shared, blocks)
    other_value, other_draws = _on_sessions(definition, other, shared, blocks)
    return value - other_value, draws - other_draws


def paired_score(metric: str, one: Scored, other: Scored, blocks: Blocks) -> Score:
    """Return the paired difference with its interval."""
    value, draws = paired(metric, one, other, blocks)
    low, high = interval(value, draws, blocks)
    flag = ABSENT if math.isnan(value) else FEW_SESSIONS if math.isnan(low) else ""
    return Score(value, low, high, flag=flag)


def _shared_sessions(metric: Metric, sums: Sequence[Sums]) -> Bools | None:
    """Return the sessions defined for all (constant forecasts apart); None where that is each one's own."""
    if metric.counter is None or any(metric.counter not in own for own in sums):
        return None
    defined = [own[metric.counter] > 0 for own in sums if own[metric.counter].any()]
    if not defined:
        return None
    shared: Bools = np.logical_and.reduce(defined)
    return None if all(np.array_equal(own, shared) for own in defined) else shared


def _on_sessions(metric: Metric, scored: Scored, shared: Bools | None, blocks: Blocks) -> tuple[float, F64]:
    value = scored.value(metric.name)
    if math.isnan(value):
        num_draws = len(blocks.starts)
        gives_it = metric.name in scored.values
        stand_in = metric.no_skill if gives_it else math.nan
        return stand_in, np.full(num_draws, stand_in)
    if shared is None:
        return value, scored.draws[metric.name]
    kept = [{part: own[part] * shared for part in metric.parts} for own in scored.sums]
    values = _count_collapsed(metric, np.array([score_of(metric, own) for own in kept]))
    drawn = [resample(np.column_stack([own[p] for p in metric.parts]), blocks).T for own in kept]
    draws = [metric.value(dict(zip(metric.parts, columns, strict=True))) for columns in drawn]
    return float(values.mean()), _mean_draws(metric, kept, draws)
