"""The laboratory: one pipeline, many worlds, and every value compared that is said to be known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from barcast.audit.compare import Difference, compare
from barcast.audit.findings import Check, Finding
from barcast.audit.structure import check_factors, check_labels, check_segments, check_tradable
from barcast.audit.workings import Workings, settled, snapshot
from barcast.audit.world import World, alter, cut, reanchor, roughen
from barcast.core.progress import Progress
from barcast.pipeline.market import Market

#: Prices times a power of two are exact, logarithms of them round: this much is rounding.
ANCHOR_TOLERANCE = 1e-4
#: Stages that must not depend on the anchor of adjusted prices.
ANCHOR_STAGES = ("features", "inputs")

CUT, ALTERED, WITHIN, ANCHOR = "cut history", "altered future", "rest of the session", "moved anchor"
ABOUT = {
    CUT: "recomputed from history that ends at the cut: values up to it must not change",
    ALTERED: "every bar after the cut replaced, symbols end, list, split: values up to it must not change",
    WITHIN: "high, low, close and volume of the session replaced: what is used at its open must not change",
    ANCHOR: "source-adjusted prices multiplied as a later download would: inputs must not change",
    "label": "labels recomputed one by one from closes",
    "tradable": "flags recomputed from the close of the entry session",
    "segment border": "no label reaches beyond the segment that it serves",
    "factor anchor": "factors are 1 on each symbol's first bar",
}
_MEANINGS = {
    CUT: "the value changes when the bars after the cut are taken away",
    ALTERED: "the value changes when only bars after the cut change",
    WITHIN: "the value is used at the open but changes with the rest of that session's bar",
    ANCHOR: "the value depends on the level of source-adjusted prices, which later splits and dividends set",
}


@dataclass
class Ledger:
    """Collects findings, one a check and stage, and how much was compared."""

    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    abouts: dict[str, str] = field(default_factory=dict)

    def add(self, check: str, findings: Iterable[Finding], num_values: int, about: str = "") -> None:
        """Add the result of a check; the first finding of a stage is kept."""
        self.counts[check] = self.counts.get(check, 0) + num_values
        self.abouts[check] = about or ABOUT[check]
        for finding in findings:
            self.findings.setdefault((finding.check, finding.stage), finding)

    @property
    def checks(self) -> tuple[Check, ...]:
        """What was looked at, in order."""
        return tuple(
            Check(name=name, about=self.abouts[name], num_values=n) for name, n in self.counts.items()
        )


def examine(
    workings: Workings,
    world: World,
    cuts: tuple[int, ...],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Ledger:
    """Run a pipeline on real, cut, altered and moved worlds and collect what changes.

    Parameters
    ----------
    workings : Workings
        The pipeline.
    world : World
        Stored rows of a sample of symbols, whole history.
    cuts : tuple of int
        Calendar entries at which history is cut.
    """
    progress = progress or Progress(enabled=False)
    ledger = Ledger()
    for turn, session in enumerate(cuts):
        progress.step(f"cut {turn + 1} of {len(cuts)}: {world.calendar.times[session]}")
        _examine_cut(workings, roughen(world, session, turn), session, seed, ledger)
    progress.note("rules that can be read off the rows")
    _examine_rows(workings, world, seed, ledger)
    return ledger


def _examine_cut(workings: Workings, world: World, session: int, seed: int, ledger: Ledger) -> None:
    base = snapshot(workings, world, session)
    others = {CUT: cut(world, session), ALTERED: alter(world, session, seed)}
    for name, other in others.items():
        result = compare(base, snapshot(workings, other, session), session, _difference(name, world))
        ledger.add(name, result.findings, result.num_values)
    if workings.acts_at == "open":
        other = alter(world, session, seed, within=True)
        result = compare(
            base, snapshot(workings, other, session), session, _difference(WITHIN, world), moment="open"
        )
        ledger.add(WITHIN, result.findings, result.num_values)


def _difference(name: str, world: World) -> Difference:
    return Difference(name, _MEANINGS[name], dict(world.changes))


def _examine_rows(workings: Workings, world: World, seed: int, ledger: Ledger) -> None:
    last = len(world.calendar) - 1
    whole = snapshot(workings, world, last)
    ledger.add("factor anchor", check_factors(world), len(world.symbols))
    moved, scale = reanchor(world)
    if np.any(scale != 1) and not workings.window_normalised:
        result = compare(
            whole, snapshot(workings, moved, last), last, _difference(ANCHOR, world),
            stages=ANCHOR_STAGES, tolerance=ANCHOR_TOLERANCE,
        )  # fmt: skip
        ledger.add(ANCHOR, result.findings, result.num_values)
    findings, num_labels = check_labels(whole, seed)
    ledger.add("label", findings, num_labels)
    ledger.add("tradable", check_tradable(whole), len(whole.bars))
    ledger.add("segment border", check_segments(whole), int((whole.market.segment >= 0).sum()))


def choose_cuts(market: Market, num_cuts: int, *, warmup: int, seed: int = 0) -> tuple[int, ...]:
    """Return sessions at which to cut: at and after segment borders, inside the first warm-up, spread.

    Parameters
    ----------
    market : Market
        Its calendar and plan: once a segment is settled, values fitted on it must not change any more.
    num_cuts : int
        At least 1.
    warmup : int
        Bars that features need.
    """
    num_sessions = len(market.bars.calendar)
    borders = {name: last for name, (_, last) in market.plan.spans.items()}
    early = max(min(warmup, num_sessions // 4) // 2, 1)
    wanted = [settled(market, "weigh"), early, borders["fit"], settled(market, "fit"), borders["weigh"]]
    wanted = wanted[:num_cuts]
    spread = num_cuts - len(wanted)
    if spread > 0:
        rng = np.random.default_rng([seed, 2])
        edges = np.linspace(early, num_sessions - 2, spread + 1)
        wanted += [int(rng.uniform(low, high)) for low, high in pairwise(edges)]
    inside = {min(max(cut, 1), num_sessions - 2) for cut in wanted}
    return tuple(sorted(inside))
