"""From the store to labelled rows: bars, quality policy, labels and segments, without any feature yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I8, I32, Bools
from barcast.core.bars import MIN_SYMBOLS, Bars
from barcast.core.config import digest, to_plain
from barcast.core.durations import moment_of
from barcast.core.errors import DataError, UsageError
from barcast.core.predictions import SEGMENTS
from barcast.core.workspace import Workspace
from barcast.labels import Labels, LabelSpec, forward_labels, trailing_volatility
from barcast.pipeline.settings import DataConfig, check_workspace
from barcast.quality import QualityPolicy, QualityReport, apply_policy, check_bars
from barcast.splits import SegmentPlan, begins_after, check_disjoint
from barcast.store import MarketStore, to_bars

#: Own bars in the volatility that scales `sigma`.
VOLATILITY_BARS = 60
NUM_FOLDS = 20


@dataclass(frozen=True)
class Market:
    """Labelled rows of one store version under one data config.

    Attributes
    ----------
    bars : Bars, R rows
        Adjusted, defective rows left out by policy.
    labels : Labels
        Forward returns of the same rows.
    plan : SegmentPlan
        Borders.
    segment : I8, shape (R,)
        Position in ``SEGMENTS``, -1 where purged, unknown or outside.
    volatility : F64, shape (R,)
        Trailing volatility a bar, a fraction; NaN below 10 returns.
    quality : QualityReport
        What was found.
    basis : tuple of str
        Bases that occur: ``raw``, ``split``, ``adjusted``.
    data_digest : str
        Hash of every row.
    small_universe : bool
        Whether a typical session has fewer than 30 symbols.
    without_bars : mapping of str to str
        Symbols that were to be here and have no bar, and why.
    """

    config: DataConfig
    store_version: int
    bars: Bars
    labels: Labels
    plan: SegmentPlan
    segment: I8
    volatility: F64
    quality: QualityReport
    policy: QualityPolicy
    basis: tuple[str, ...]
    data_digest: str
    small_universe: bool
    without_bars: Mapping[str, str] = field(default_factory=dict)

    @property
    def left_out(self) -> dict[str, int]:
        """Findings by kind whose rows the policy leaves out."""
        return {kind: num for kind, num in self.quality.counts.items() if self.policy.choice(kind) == "mask"}

    @property
    def cutoff(self) -> str:
        """The last session known, as text."""
        return str(self.bars.calendar.times[-1])

    @property
    def data_key(self) -> str:
        """Names the rows, whatever is done with them."""
        return digest({"data": self.data_digest, "cutoff": self.cutoff})

    @property
    def label_key(self) -> str:
        """Names the labels and segments that scores are about."""
        spec = self.labels.spec
        return digest({"horizons": spec.horizons, "delay": spec.delay, "plan": to_plain(self.plan)})

    def rows_of(self, *names: str) -> Bools:
        """Return which rows belong to the named segments, shape (R,)."""
        return np.isin(self.segment, [SEGMENTS.index(name) for name in names])


@dataclass(frozen=True)
class CheckedBars:
    """Adjusted bars without the rows that the quality policy masks, and what was found.

    ``symbols`` are those of the config in canonical spelling, empty for all. ``without_bars`` says of symbols
    that were asked for, or lost every row to the policy, why they are not among those of ``bars``.
    """

    symbols: tuple[str, ...]
    bars: Bars
    store_version: int
    basis: tuple[str, ...]
    quality: QualityReport
    policy: QualityPolicy
    without_bars: Mapping[str, str]


def load_bars(workspace: Workspace, config: DataConfig, version: int | None = None) -> CheckedBars:
    """Read the store as of the config's cutoff and leave out what the quality policy masks.

    Raises
    ------
    SymbolError
        When a symbol that was asked for is not in the store.
    DataError
        When nothing is left.
    """
    store = MarketStore.open(workspace.market)
    until = _as_when(config.asof, daily=store.meta.frequency == "1d")
    # one version throughout, whatever another process publishes meanwhile
    version = store.version if version is None else version
    config = replace(config, symbols=store.resolve(config.symbols, version))
    chosen = chosen_symbols(store, config, version)
    frame = store.frame(symbols=chosen, end=until, version=version)
    absent = set(chosen) - set(frame["symbol"].unique()) if chosen else set()
    without = dict.fromkeys(absent, f"no bar up to {config.asof or 'the end of the data'}")
    calendar = store.calendar(version, until)
    policy = quality_policy(workspace, config.quality)
    report = check_bars(frame, calendar, store.meta.market, store.conflicts(version))
    masked = apply_policy(report, policy)
    if len(masked):
        frame = frame.join(masked, on=["symbol", "time"], how="anti", maintain_order="left")
        calendar = store.calendar(version, until, exclude=masked)
        without |= _wholly_masked(frame, masked, report, policy)
    if not len(frame):
        raise _nothing_left(store, config, version)
    bars = to_bars(frame, calendar, store.meta.market, store.status(version))
    basis = tuple(frame["basis"].unique().sort().to_list())
    without = dict(sorted(without.items()))
    return CheckedBars(config.symbols, bars, version, basis, report, policy, without)


def _nothing_left(store: MarketStore, config: DataConfig, version: int) -> DataError:
    first, last = store.calendar(version).times[[0, -1]]
    if config.asof and np.datetime64(config.asof) < first:
        return DataError(
            f"no bar up to {config.asof}: the first stored session is {first}, the last one {last}",
            f"--asof {last}, or a session with enough history before it",
        )
    return DataError("no bar is left to work with", "barcast data check, barcast data info")


def _wholly_masked(
    frame: pl.DataFrame, masked: pl.DataFrame, report: QualityReport, policy: QualityPolicy
) -> dict[str, str]:
    """Say of each symbol that lost its last row which kinds of defect took it; ``frame`` is what is left."""
    touched = masked["symbol"].unique()
    gone = set(touched) - set(frame.filter(pl.col("symbol").is_in(touched.implode()))["symbol"].unique())
    masking = [kind for kind in report.counts if policy.choice(kind) == "mask"]
    own = report.findings.filter(pl.col("symbol").is_in(list(gone)), pl.col("kind").is_in(masking))
    kinds = own.group_by("symbol").agg(pl.col("kind").unique(maintain_order=True))
    return {s: f"every bar is left out by the quality policy: {', '.join(k)}" for s, k in kinds.iter_rows()}


def quality_policy(workspace: Workspace, choices: Mapping[str, str]) -> QualityPolicy:
    """Merge the workspace's ``[quality]`` table with a run's own choices, which win."""
    check_workspace(workspace)
    merged: dict[str, Any] = {**workspace.settings.get("quality", {}), **choices}
    return QualityPolicy(merged)


def load_market(workspace: Workspace, config: DataConfig, version: int | None = None) -> Market:
    """Read bars, make labels and cut segments.

    Raises
    ------
    UsageError
        When a segment would be left without a label.
    """
    found = load_bars(workspace, config, version)
    bars = found.bars
    spec = LabelSpec(horizons=config.horizons, delay=config.delay)
    plan = make_plan(bars, config, spec)  # first: it refuses horizons that are longer than the history
    labels = forward_labels(bars, spec)
    segment = segments_of(plan, bars, labels)
    plan.require_rows(segment)
    check_disjoint(bars.session, labels.last_known_at, segment)
    return Market(
        config=replace(config, symbols=found.symbols),
        store_version=found.store_version,
        bars=bars,
        labels=labels,
        plan=plan,
        segment=segment,
        volatility=trailing_volatility(bars, VOLATILITY_BARS),
        quality=found.quality,
        policy=found.policy,
        basis=found.basis,
        data_digest=bars.content_digest(),
        small_universe=is_small(bars, plan),
        without_bars=found.without_bars,
    )


def segments_of(plan: SegmentPlan, bars: Bars, labels: Labels) -> I8:
    """Give every row its segment, -1 where it serves none, shape (R,).

    A row's horizons stay together and are judged by the one that is known last. A row with a label that is
    not known at all serves no segment: whether it ever becomes known is decided later.
    """
    return plan.assign(bars.session, known_at_of(labels))


def known_at_of(labels: Labels) -> I32:
    """Return when the labels of all horizons of a row are known, shape (R,); -1 where one never is."""
    return np.where(labels.known.all(axis=1), labels.last_known_at, -1).astype(np.int32)


def segment_counts(market: Market) -> dict[str, dict[str, int]]:
    """Count the rows decided in each segment by what became of their labels.

    ``labelled`` rows stayed; ``purged`` ones have a label that is known only after the segment; ``unknown``
    ones lack the label of some horizon. ``terminal`` and ``purged_terminal`` are those of the first two whose
    symbol ended: without a delisting on record such a label is known at the last session only.
    """
    labels = market.labels
    decided = market.plan.segment_of(market.bars.session)
    known, terminal = labels.known.all(axis=1), labels.terminal.any(axis=1)
    counts = {}
    for code, name in enumerate(SEGMENTS):
        inside, kept = decided == code, market.segment == code
        groups = {
            "labelled": kept,
            "terminal": kept & terminal,
            "purged": inside & known & ~kept,
            "purged_terminal": inside & known & ~kept & terminal,
            "unknown": inside & ~known,
        }
        counts[name] = {group: int(rows.sum()) for group, rows in groups.items()}
    return counts


def make_plan(bars: Bars, config: DataConfig, spec: LabelSpec) -> SegmentPlan:
    """Cut the calendar by the config's dates, or by shares."""
    if config.segments:
        fit, stop, weigh, route, test = config.segments
        return SegmentPlan.by_dates(
            bars.calendar, fit=fit, stop=stop, weigh=weigh, route=route, test=test,
            label_sessions=spec.label_sessions,
        )  # fmt: skip
    return SegmentPlan.by_share(
        bars.calendar, config.shares, label_sessions=spec.label_sessions, horizon=max(spec.horizons)
    )


def as_of(config: DataConfig, asof: str) -> DataConfig:
    """Return what a refit or an adapted run reads as of a session; neither serves or judges by segments.

    Borders by date that the calendar does not reach then could not be cut: shares can.
    """
    beyond = bool(asof and config.segments) and begins_after(config.segments[-1], asof)
    return replace(config, asof=asof, segments=() if beyond else config.segments)


def is_small(bars: Bars, plan: SegmentPlan) -> bool:
    """Return whether the median session of `fit` has fewer symbols than session statistics need."""
    last = plan.spans["fit"][1]
    counts = np.bincount(bars.session[bars.session <= last], minlength=1)
    return bool(np.median(counts[counts > 0]) < MIN_SYMBOLS)


def chosen_symbols(store: MarketStore, config: DataConfig, version: int) -> tuple[str, ...] | None:
    """Return the symbols to read of those in the config (canonical), None for all."""
    if not config.limit:
        return config.symbols or None
    return (config.symbols or store.symbols(version))[: config.limit]


def held_out(symbols: tuple[str, ...], fold: int) -> Bools:
    """Return which symbols belong to fold ``fold`` of 20, by a hash of the name: the same everywhere."""
    if fold < 0:
        return np.zeros(len(symbols), bool)
    names = [int.from_bytes(hashlib.blake2b(s.encode(), digest_size=4).digest()) for s in symbols]
    return np.array([name % NUM_FOLDS == fold for name in names])


def session_times(bars: Bars, session: np.ndarray) -> pl.Series:
    """Return the times of calendar entries as the predictions table holds them; null for -1."""
    times = bars.calendar.times.astype("datetime64[us]")[np.maximum(session, 0)]
    return pl.Series(times).set(pl.Series(session < 0), None)


def _as_when(text: str, *, daily: bool) -> date | datetime | None:
    """Read a cutoff: a day, or for intraday bars the UTC start of the last bar that may be known."""
    if (when := moment_of(text)) is None:
        return None
    if len(text) <= len("2024-03-08"):
        return when.date()
    if daily:
        raise UsageError(f"`asof` has a time, but the bars are daily: `{text}`", f"--asof {text[:10]}")
    return when.replace(tzinfo=None) if when.tzinfo is None else when.astimezone(UTC).replace(tzinfo=None)
