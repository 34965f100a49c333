"""Whether stored models still know what they knew: forecasts since training against those of a reference.

The reference is a stretch that the models did not learn from (`route`, `test`). Three questions, each with a
rate of false alarms that is stated and held:

- Did the skill of all, or of a cohort, fall, and since when? A CUSUM chart each (`cusum`).
- Do the inputs still look like those that taught? Population stability (`psi`).
- Which symbols' own models decayed? Tests under false-discovery control (`named`).

Letters: R rows, S symbols, G groups, T sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from barcast.core.arrays import F64, I32, I64
from barcast.core.errors import DataError, UsageError
from barcast.evaluation.cusum import Chart, Cusum, Measure
from barcast.evaluation.metrics import ratio
from barcast.evaluation.named import Naming, name_symbols
from barcast.evaluation.psi import InputShift
from barcast.evaluation.skill import (
    ForecastRows,
    gains,
    mean_by_group,
    rank_ic_by_group,
    ranked_groups,
)

#: What the chart of all symbols is called.
ALL = "all"
#: Least size of a symbol's gain, in medians of all, by which its gains are divided.
_MIN_SCALE = 0.1
#: Share of its symbols that are watched before a chart begins: the skill of few says less than that of all
#: in the reference, and would alarm too often.
_MIN_WATCHED = 0.75


@dataclass(frozen=True)
class DecayReport:
    """What following stored models found.

    Attributes
    ----------
    pooled : Chart
        Of all symbols together.
    cohorts : mapping of str to tuple of Chart
        By grouping (``industry``, ``preset``, ...), one chart a cohort. The rate of false alarms holds for
        each grouping as a whole.
    naming : Naming
        Symbols whose own models decayed.
    inputs : tuple of InputShift
        One a feature; empty where inputs were not compared.
    """

    pooled: Chart
    cohorts: Mapping[str, tuple[Chart, ...]]
    naming: Naming
    inputs: tuple[InputShift, ...] = field(default=())

    @property
    def sentences(self) -> list[str]:
        """What to tell the user: the whole first, then what alarms; sessions by number."""
        return self.told("session {}".format)

    def told(self, when: Callable[[int], str]) -> list[str]:
        """Return what to tell the user; ``when`` names a session."""
        charts = [chart for of_grouping in self.cohorts.values() for chart in of_grouping]
        return [
            self.pooled.told(when),
            *(chart.told(when) for chart in charts if chart.alarm is not None),
            *(named.sentence for named in self.naming.named),
            *(shift.sentence for shift in self.inputs if shift.shifted),
        ]

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON, None for what is not defined."""
        return {
            "pooled": self.pooled.plain(),
            "cohorts": {name: [chart.plain() for chart in charts] for name, charts in self.cohorts.items()},
            "naming": self.naming.plain(),
            "inputs": [shift.plain() for shift in self.inputs],
            "sentences": self.sentences,
        }


def measure_decay(
    symbols: Sequence[str],
    reference: ForecastRows,
    since: ForecastRows,
    charts: Cusum,
    *,
    cohorts: Mapping[str, Sequence[str]] | None = None,
    begins: I64 | None = None,
    inputs: tuple[InputShift, ...] = (),
    false_discovery_rate: float = 0.1,
) -> DecayReport:
    """Compare forecasts since training with those of a reference.

    Parameters
    ----------
    symbols : sequence of str, length S
        Names.
    reference, since : ForecastRows
        Forecasts of the same models before (out of sample all the same) and after. Rows whose outcome is not
        known, or was known later than is due, are left out.
    charts : Cusum
        How charts are kept, with the sessions that a label takes.
    cohorts : mapping of str to sequence of str, optional
        For each grouping the cohort of every symbol, length S; empty for none.
    begins : I64, shape (S,), optional
        First session since training of each symbol, whether it has a row there or not; by default all are
        watched from the first row on. Charts begin as :func:`watched_from` says, and so do all rows.
    inputs : tuple of InputShift
        From `barcast.evaluation.psi.input_psi`, to be told with the rest.
    false_discovery_rate : float
        Share of the symbols named that may be named in vain.

    Returns
    -------
    DecayReport
        What is known later changes no alarm once given.

    Raises
    ------
    DataError
        Where the reference has no row, or rows since training lie before its end.
    UsageError
        On a grouping of another length than the symbols.
    """
    before, after = (rows.punctual(charts.label_sessions) for rows in (reference, since))
    _require_order(before, after)
    num_symbols = len(symbols)
    everyone = np.zeros(num_symbols, np.int32)
    begins = np.zeros(num_symbols, np.int64) if begins is None else begins
    after = after.take(after.session >= watched_from(begins))
    relative = bool(ranked_groups(before, everyone, 1)[0])
    skill = _Skill.of(before, after, begins, relative=relative)
    own = np.arange(num_symbols, dtype=np.int32)
    by_symbol = [
        mean_by_group(rows, values, own, num_symbols)
        for rows, values in ((before, skill.gain_before), (after, skill.gain_after))
    ]
    return DecayReport(
        pooled=_grouping_charts(charts, skill, [ALL], everyone)[0],
        cohorts={name: _cohort_charts(charts, skill, name, of) for name, of in (cohorts or {}).items()},
        naming=name_symbols(
            symbols, *by_symbol, label_sessions=charts.label_sessions, rate=false_discovery_rate
        ),
        inputs=inputs,
    )


def watched_from(begins: I64) -> int:
    """Return the session from which on three quarters of the symbols, at least one, are watched.

    Parameters
    ----------
    begins : I64, shape (S,)
        First session of each.
    """
    return int(np.quantile(begins, _MIN_WATCHED, method="inverted_cdf"))


@dataclass(frozen=True)
class _Skill:
    """Punctual rows before and after, each with its gain, and the usual size of each symbol's gain."""

    before: ForecastRows
    after: ForecastRows
    begins: I64
    gain_before: F64
    gain_after: F64
    scale: F64

    @classmethod
    def of(cls, before: ForecastRows, after: ForecastRows, begins: I64, *, relative: bool) -> _Skill:
        num_symbols = len(begins)
        gain_before, gain_after = (gains(rows, relative=relative) for rows in (before, after))
        size = np.bincount(before.symbol, np.abs(gain_before), num_symbols)
        scale = ratio(size, np.bincount(before.symbol, minlength=num_symbols))
        # A model that hardly had an opinion must not outweigh all others once it has a small one.
        least = _MIN_SCALE * float(np.median(scale[np.isfinite(scale)]))
        return cls(before, after, begins, gain_before, gain_after, np.maximum(scale, least))

    def ranked(self, group: I32, num_groups: int) -> tuple[F64, F64]:
        """Return RankIC before and after, each of shape (G, T)."""
        before, after = (rank_ic_by_group(rows, group, num_groups) for rows in (self.before, self.after))
        return before, after

    def gained(self, group: I32, num_groups: int) -> tuple[F64, F64]:
        """Return the mean gain before and after in units of a symbol's usual one, each of shape (G, T)."""
        before, after = (
            mean_by_group(rows, ratio(1.0, self.scale[rows.symbol]) * values, group, num_groups)
            for rows, values in ((self.before, self.gain_before), (self.after, self.gain_after))
        )
        return before, after


def _cohort_charts(charts: Cusum, skill: _Skill, grouping: str, cohort: Sequence[str]) -> tuple[Chart, ...]:
    if len(cohort) != len(skill.scale):
        raise UsageError(
            f"grouping `{grouping}` has {len(cohort)} entries for {len(skill.scale)} symbols",
            "give one cohort a symbol, empty for none",
        )
    names = sorted(set(cohort) - {""})
    place = {name: position for position, name in enumerate(names)}
    group = np.array([place.get(name, -1) for name in cohort], np.int32)
    return _grouping_charts(charts, skill, [f"{grouping} {name}" for name in names], group)


def _grouping_charts(charts: Cusum, skill: _Skill, names: Sequence[str], group: I32) -> tuple[Chart, ...]:
    """Return one chart a group; together they alarm falsely as often as one may (Bonferroni)."""
    if not names:
        return ()
    shared = charts.shared_by(len(names))
    ranked = ranked_groups(skill.before, group, len(names))
    rank_ics, mean_gains = (of(group, len(names)) for of in (skill.ranked, skill.gained))
    first, num_sessions = skill.after.span
    made = []
    for g, name in enumerate(names):
        measure: Measure = "rank_ic" if ranked[g] else "gain"
        before, after = rank_ics if ranked[g] else mean_gains
        early = first + np.arange(num_sessions) < watched_from(skill.begins[group == g])
        made.append(shared.chart(name, measure, before[g], np.where(early, np.nan, after[g]), first))
    return tuple(made)


def _require_order(before: ForecastRows, after: ForecastRows) -> None:
    if not len(before.session):
        raise DataError(
            "the reference has no forecast whose outcome was known when it was due",
            "give forecasts of sessions that the models did not learn from, with their outcomes",
        )
    if len(after.session) and after.session.min() <= before.session.max():
        raise DataError(
            f"rows since training begin at session {after.session.min()}, but the reference runs to session "
            f"{before.session.max()}",
            "give each session to one of the two",
        )
