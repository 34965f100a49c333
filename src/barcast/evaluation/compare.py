"""Compare models: one row a model, on the rows that all of them cover, with a verdict.

::

    rows = align(predictions, segment="route")
    comparison = compare_rows(rows, Settings(cross_sectional=True))
    print(comparison.verdict.en)
    comparison.to_frame()

Letters: R rows, T sessions, Q quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from barcast.core.arrays import F64
from barcast.core.texts import Text
from barcast.evaluation.align import CommonRows
from barcast.evaluation.intervals import Blocks, plan_blocks, wilson
from barcast.evaluation.metrics import automatic_lag, newey_west_t
from barcast.evaluation.notes import notes_on
from barcast.evaluation.results import (
    ABSENT,
    MODEL,
    NAIVE,
    REFERENCE,
    Comparison,
    Cost,
    Row,
    Score,
    Table,
)
from barcast.evaluation.scoring import Scored, paired_score, score_model, with_interval
from barcast.evaluation.settings import OPTIONAL, Settings
from barcast.evaluation.verdict import best_of, judge


def compare_rows(rows: CommonRows, settings: Settings) -> Comparison:
    """Compare the models of aligned rows: scores, intervals, paired differences and a verdict.

    Parameters
    ----------
    rows : CommonRows
        From `barcast.evaluation.align.align`, one segment and one label.
    settings : Settings
        What a comparison needs to know besides.
    """
    all_rows, openings = _table(rows, settings), settings.openings
    tradable = int(rows.tradable.sum())
    tradable_rows = _table(rows.take(rows.tradable), settings) if 0 < tradable < len(rows) else None
    verdict = all_rows.verdict.text + _tradable_sentence(all_rows, tradable_rows)
    notes = notes_on(rows, settings, all_rows)
    return Comparison(
        segment=rows.segment,
        target=rows.target,
        horizon=rows.horizon,
        delay=rows.delay,
        first=str(rows.times[0]),
        last=str(rows.times[-1]),
        cross_sectional=settings.cross_sectional,
        primary=settings.primary,
        num_labelled=rows.num_labelled,
        num_common=len(rows),
        level=settings.bootstrap.level,
        openings=openings.total if openings else None,
        openings_elsewhere=openings.elsewhere if openings else 0,
        all_rows=all_rows,
        tradable_rows=tradable_rows,
        notes=tuple(replace(note, text=note.text.in_steps(daily=settings.daily)) for note in notes),
        verdict=verdict.in_steps(daily=settings.daily),
        is_daily=settings.daily,
    )


def _table(rows: CommonRows, settings: Settings) -> Table:
    blocks = plan_blocks(rows.num_sessions, rows.horizon, rows.delay, settings.bootstrap)
    levels = np.asarray(settings.quantile_levels, np.float64) if settings.quantile_levels else None
    kinds = _kinds(rows, settings)
    scored = {
        name: score_model(rows, name, blocks, cross_sectional=settings.cross_sectional, levels=levels)
        for name in _in_order(kinds, settings)
    }
    reference = best_of([n for n in scored if kinds[n] == REFERENCE], scored, settings.primary)
    best_naive = best_of([n for n in scored if kinds[n] == NAIVE], scored, settings.primary)
    return Table(
        rows=tuple(
            _row(one, kinds[name], rows, settings, blocks, scored.get(reference), scored.get(best_naive))
            for name, one in scored.items()
        )
        + tuple(_empty_row(name, rows, settings) for name in sorted(rows.coverage) if name not in scored),
        reference=reference,
        best_naive=best_naive,
        num_rows=len(rows),
        num_sessions=rows.num_sessions,
        num_symbols=len(np.unique(rows.symbol)),
        block_length=blocks.length,
        num_blocks=blocks.num_blocks,
        verdict=judge(scored, kinds, blocks, settings.primary, reference, best_naive),
    )


def _kinds(rows: CommonRows, settings: Settings) -> dict[str, str]:
    kinds = {}
    for forecast in rows.forecasts:
        if forecast.family in settings.naive or forecast.name in rows.naive:
            kinds[forecast.name] = NAIVE
        else:
            is_reference = settings.reference in (forecast.family, forecast.run)
            kinds[forecast.name] = REFERENCE if is_reference else MODEL
    return kinds


def _in_order(kinds: Mapping[str, str], settings: Settings) -> list[str]:
    """Return naive rows in their usual order, then the reference, then the others by name."""
    places = {name: place for place, name in enumerate(settings.naive)}
    kind_places = {NAIVE: 0, REFERENCE: 1, MODEL: 2}
    return sorted(kinds, key=lambda name: (kind_places[kinds[name]], places.get(name, len(places)), name))


def _row(
    scored: Scored,
    kind: str,
    rows: CommonRows,
    settings: Settings,
    blocks: Blocks,
    reference: Scored | None,
    best_naive: Scored | None,
) -> Row:
    metrics = [*settings.metrics, *(name for name in OPTIONAL if name in scored.values)]
    return Row(
        model=scored.name,
        kind=kind,
        num_seeds=len(scored.sums),
        coverage=rows.coverage[scored.name],
        scores={name: with_interval(name, scored, blocks) for name in metrics},
        vs_reference={n: paired_score(n, scored, reference, blocks) for n in metrics} if reference else {},
        vs_naive={n: paired_score(n, scored, best_naive, blocks) for n in metrics} if best_naive else {},
        num_ic_sessions=_num_ic_sessions(scored),
        rank_ic_t=_rank_ic_t(scored, rows.horizon),
        design_effect=_design_effect(scored, blocks),
        cost=_cost(scored.name, rows, settings),
        num_trials=max((settings.num_trials.get(each.run, 0) for each in rows.of(scored.name)), default=0),
    )


def _cost(name: str, rows: CommonRows, settings: Settings) -> Cost:
    run = rows.of(name)[0].run
    return settings.costs.get(name, settings.costs.get(run, Cost()))


def _empty_row(name: str, rows: CommonRows, settings: Settings) -> Row:
    """Return the row of a model that covers nothing."""
    nothing = Score(math.nan, math.nan, math.nan, flag=ABSENT)
    return Row(
        model=name,
        kind=NAIVE if name in settings.naive or name in rows.naive else MODEL,
        num_seeds=0,
        coverage=0.0,
        scores=dict.fromkeys(settings.metrics, nothing),
        vs_reference={},
        vs_naive={},
        num_ic_sessions=0.0,
        rank_ic_t=math.nan,
        design_effect=math.nan,
        cost=settings.costs.get(name, Cost()),
    )


def _num_ic_sessions(scored: Scored) -> float:
    return float(np.mean([own["rank_ic_n"].sum() if "rank_ic_n" in own else 0.0 for own in scored.sums]))


def _rank_ic_t(scored: Scored, horizon: int) -> float:
    if "rank_ic" not in scored.values:
        return math.nan
    by_seed = np.stack([np.where(own["rank_ic_n"] > 0, own["rank_ic"], np.nan) for own in scored.sums])
    series: F64 = by_seed.mean(axis=0)
    return newey_west_t(series, max(horizon - 1, automatic_lag(len(series))))


def _design_effect(scored: Scored, blocks: Blocks) -> float:
    direction = with_interval("direction", scored, blocks)
    num_rows = sum(float(scored.sums[0][cell].sum()) for cell in ("tp", "tn", "fp", "fn"))
    low, high = wilson(direction.value * num_rows, num_rows, blocks.level)
    return ((direction.high - direction.low) / (high - low)) ** 2 if high > low else math.nan


def _tradable_sentence(all_rows: Table, tradable: Table | None) -> Text:
    if tradable is None:
        return Text("", "")
    left_out = all_rows.num_rows - tradable.num_rows
    without = Text(
        f"Without the {left_out} rows that could not be traded", f"去掉 {left_out} 行无法成交的样本后，"
    )
    if tradable.verdict.outcomes == all_rows.verdict.outcomes:
        return without + Text("the answer is the same.", "结论不变。")
    return without + Text("the answer changes.", "结论改变：") + tradable.verdict.text
