"""The pipeline under audit: its steps from stored rows to forecasts, and when each value is said to be known.

Every step is the pipeline's own function; there is no second implementation that could agree with itself. A
test replaces one step by a leaky one and sees whether the audit names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from barcast.audit.world import World
from barcast.core.arrays import F32, F64, I8, I32, I64, Bools
from barcast.core.bars import Bars
from barcast.features import FeatureSet, Panel
from barcast.labels import Labels, LabelSpec, forward_labels, trailing_volatility
from barcast.models.registry import model_entries
from barcast.pipeline import dataset, forecast
from barcast.pipeline.market import (
    VOLATILITY_BARS,
    Market,
    segments_of,
)
from barcast.pipeline.train import SCORED
from barcast.quality import QualityPolicy, apply_policy, check_bars
from barcast.store.adjust import to_bars
from barcast.windows.index import MIN_BARS, own_bars
from barcast.windows.normalise import FittedScaler

Moment: TypeAlias = Literal["open", "close"]
Array: TypeAlias = npt.NDArray[np.floating]

#: Stages in the order in which values are made: the first one that changes is the cause.
STAGES = (
    "stamps", "factors", "bars", "universe", "features", "scaler", "inputs", "volatility", "labels",
    "tradable", "target", "segments", "teaching", "vocabulary", "calibration", "forecasts", "score",
    "predictions",
)  # fmt: skip
BAR_COLUMNS = ("open", "high", "low", "close", "volume", "amount", "close_traded")
#: What the naive rules' rows of the predictions table say; a map fitted on `weigh` shapes the last two.
FORECAST_COLUMNS = ("score", "y_hat", "sigma")
#: Relative differences that rounding explains; networks compute in float32.
TOLERANCE, SCORE_TOLERANCE = 1e-6, 1e-4


@dataclass(frozen=True, kw_only=True)
class Workings:
    """The steps of a pipeline.

    Attributes
    ----------
    market : Market
        Config, segment plan and small-universe rule; its rows are replaced by those of each world.
    adjust : callable
        World to Bars: quality policy, adjustment, calendar.
    universe : callable
        Bars to Bools (S,): whose rows make session statistics.
    features : callable
        Bars to Panel.
    scaler : callable
        Panel and Market to the fitted scaler, or None for session statistics and raw logs.
    inputs : callable
        Panel, Bars, scaler and universe to F32 (R, F + 1).
    labels : callable
        Bars to Labels.
    segments : callable
        Bars and Labels to I8 (R,).
    target : callable
        Market to F32 (R, H).
    forecasts : callable
        Market and rows to the naive rules' predictions table; its maps are fitted on `weigh`.
    score : callable or None
        Bars and rows (n,) to a run's scores (n, H).
    acts_at : str
        ``close``: decided and traded at closes, as barcast does. ``open``: what is used at session ``t`` must
        be known when ``t`` opens.
    window_normalised : bool
        Whether features are logarithms that each window measures from its own last bar.
    """

    market: Market
    adjust: Callable[[World], Bars]
    universe: Callable[[Bars], Bools]
    features: Callable[[Bars], Panel]
    scaler: Callable[[Panel, Market], FittedScaler | None]
    inputs: Callable[[Panel, Bars, FittedScaler | None, Bools], F32]
    labels: Callable[[Bars], Labels]
    segments: Callable[[Bars, Labels], I8]
    target: Callable[[Market], F32]
    forecasts: Callable[[Market, I64], pl.DataFrame]
    score: Callable[[Bars, I64], F64] | None = None
    acts_at: Moment = "close"
    window_normalised: bool = False


@dataclass(frozen=True)
class Block:
    """Columns of one stage.

    Attributes
    ----------
    stage : str
        One of ``STAGES``.
    names : tuple of str
        C columns.
    values : Array, shape (R, C)
        NaN where there is no value; that there is none is a value too.
    known_at : I32, shape (R,) or (R, C)
        Session after whose close (or open) the value is said to be known; -1 where nothing is said.
    moment : str
        ``close`` or ``open``.
    tolerance : float
        Relative difference that counts as rounding.
    """

    stage: str
    names: tuple[str, ...]
    values: Array
    known_at: I32
    moment: Moment = "close"
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Snapshot:
    """Everything a pipeline makes of one world."""

    market: Market
    blocks: tuple[Block, ...]

    @property
    def bars(self) -> Bars:
        """The rows that all blocks are about."""
        return self.market.bars


def standard_workings(
    market: Market, features: FeatureSet, *, score: Callable[[Bars, I64], F64] | None = None,
    acts_at: Moment = "close",
) -> Workings:  # fmt: skip
    """Return the pipeline as it is.

    Parameters
    ----------
    market : Market
        Labelled rows of the data under audit: config, plan and policy are taken from it.
    features : FeatureSet
        Where the inputs come from.
    """
    policy = QualityPolicy({k: "accept" if c == "refuse" else c for k, c in market.policy.choices.items()})
    spec = LabelSpec(horizons=market.config.horizons, delay=market.config.delay)

    def scaler(panel: Panel, market: Market) -> FittedScaler | None:
        fitted = market.small_universe and not features.window_normalised
        return FittedScaler.fit(panel.values, market.rows_of("fit")) if fitted else None

    return Workings(
        market=market,
        adjust=lambda world: adjusted(world, policy),
        universe=lambda bars: np.ones(bars.num_symbols, bool),
        features=lambda bars: dataset.make_panel(bars, features, None, "audit", cached=False),
        scaler=scaler,
        inputs=lambda panel, bars, fitted, universe: dataset.normalised(
            panel, bars, features, fitted, universe
        ),
        labels=lambda bars: forward_labels(bars, spec),
        segments=lambda bars, labels: segments_of(market.plan, bars, labels),
        target=lambda market: dataset.make_target(market)[0],
        forecasts=naive_forecasts,
        score=score,
        acts_at=acts_at,
        window_normalised=features.window_normalised,
    )


def adjusted(world: World, policy: QualityPolicy) -> Bars:
    """Check, mask and adjust stored rows, as loading them from the store does."""
    report = check_bars(world.frame, world.calendar, world.market, world.conflicts)
    masked = apply_policy(report, policy).with_columns(pl.col("time").cast(world.frame.schema["time"]))
    frame = world.frame.join(masked, on=["symbol", "time"], how="anti", maintain_order="left")
    return to_bars(frame, world.calendar, world.market, world.status)


def naive_forecasts(market: Market, rows: I64) -> pl.DataFrame:
    """Return the naive rules' rows of the predictions table."""
    rules = [entry for entry in model_entries() if entry.kind == "naive"]
    return pl.concat([forecast.naive_rows(market, rows, rule.name, rule.build) for rule in rules])


def snapshot(workings: Workings, world: World, session: int) -> Snapshot:
    """Run the pipeline on a world and say of every value when it is known.

    Parameters
    ----------
    session : int
        What is known only later than this will not be compared, so what is costly and later is left out;
        scores are computed for this session only.
    """
    bars = workings.adjust(world)
    labels = workings.labels(bars)
    market = replace(
        workings.market,
        bars=bars,
        labels=labels,
        segment=workings.segments(bars, labels),
        volatility=trailing_volatility(bars, VOLATILITY_BARS),
        data_digest="",
    )
    blocks = [
        Block("bars", BAR_COLUMNS, np.stack([getattr(bars, n) for n in BAR_COLUMNS], axis=1), bars.session),
        *_input_blocks(workings, market, session),
        Block("volatility", ("volatility",), market.volatility[:, None], bars.session),
        *_label_blocks(workings, market),
    ]
    if session >= settled(market, "weigh") and market.rows_of("weigh").any():
        blocks.append(_forecast_block(workings, market))
    if workings.score is not None:
        blocks.append(_score_block(workings.score, market, session))
    return Snapshot(market, tuple(blocks))


def settled(market: Market, segment: str) -> int:
    """Return the session after which nothing that happens can change which labels a segment holds.

    At the border itself some labels are still open: an exit may trade late, or a silent symbol come back.
    """
    spec = market.labels.spec
    wait = spec.max_wait * market.bars.calendar.bars_per_day
    return market.plan.spans[segment][1] + spec.label_sessions + wait + 1


def _input_blocks(workings: Workings, market: Market, session: int) -> list[Block]:
    bars, moment = market.bars, workings.acts_at
    panel = workings.features(bars)
    members = workings.universe(bars)
    universe = members[bars.symbol_of_row].astype(np.float64)[:, None]
    blocks = [
        Block("universe", ("member",), universe, bars.session, moment),
        Block("features", panel.names, panel.values, bars.session, moment),
    ]
    fitted_at = settled(market, "fit")
    is_fitted = market.small_universe and not workings.window_normalised
    if is_fitted and (session < fitted_at or not market.rows_of("fit").any()):
        return blocks
    inputs = workings.inputs(panel, bars, workings.scaler(panel, market), members)
    known_at = np.maximum(bars.session, fitted_at) if is_fitted else bars.session
    return [*blocks, Block("inputs", (*panel.names, "validity"), inputs, known_at.astype(np.int32), moment)]


def _label_blocks(workings: Workings, market: Market) -> list[Block]:
    bars, labels = market.bars, market.labels
    horizons = labels.spec.horizons
    target = workings.target(market)
    entry = (bars.session + labels.spec.delay).astype(np.int32)
    last_known_at = labels.last_known_at
    names = [f"{name}_{h}" for name in ("y", "known_at") for h in horizons]
    values = np.concatenate([labels.y, labels.known_at.astype(np.float64)], axis=1)
    target_known_at = np.where(np.isfinite(target), labels.known_at, -1).astype(np.int32)
    segment_known_at = np.where(market.segment >= 0, last_known_at, -1).astype(np.int32)
    return [
        Block("labels", tuple(names), values, np.tile(labels.known_at, (1, 2))),
        Block(
            "tradable", ("tradable",), labels.tradable.astype(np.float64)[:, None], entry, workings.acts_at
        ),
        Block("target", tuple(f"target_{h}" for h in horizons), target, target_known_at),
        Block("segments", ("segment",), market.segment.astype(np.float64)[:, None], segment_known_at),
    ]


def _forecast_block(workings: Workings, market: Market) -> Block:
    """Spread the naive rules' table over the rows of the bars; maps are known at the end of `weigh`."""
    bars = market.bars
    rows = np.flatnonzero(market.rows_of(*SCORED))
    table = workings.forecasts(market, rows)
    groups = table.partition_by("model", "horizon", maintain_order=True)
    names = tuple(f"{g['model'][0]}_{g['horizon'][0]}.{c}" for g in groups for c in FORECAST_COLUMNS)
    values = np.full((len(bars), len(names)), np.nan)
    for position, group in enumerate(groups):
        found = rows_of_table(bars, group)
        columns = slice(position * len(FORECAST_COLUMNS), (position + 1) * len(FORECAST_COLUMNS))
        values[found, columns] = group.select(FORECAST_COLUMNS).to_numpy()
    mapped_at = np.maximum(bars.session, settled(market, "weigh"))
    moments = [bars.session if name.endswith(".score") else mapped_at for name in names]
    known_at = np.stack(moments, axis=1).astype(np.int32)
    used = np.isin(np.arange(len(bars)), rows)  # which rows are scored depends on when their labels are known
    known_at = np.where(used[:, None], np.maximum(known_at, market.labels.last_known_at[:, None]), -1)
    return Block("forecasts", names, values, known_at.astype(np.int32))


def rows_of_table(bars: Bars, table: pl.DataFrame) -> I64:
    """Return the row of the bars of each row of a predictions table; rows that are not there are an error."""
    position = {symbol: index for index, symbol in enumerate(bars.symbols)}
    symbol = np.array([position.get(name, -1) for name in table["symbol"].to_list()], np.int64)
    session = bars.calendar.index(table["time"].to_numpy())
    keys = bars.symbol_of_row.astype(np.int64) * len(bars.calendar) + bars.session
    wanted = symbol * len(bars.calendar) + session
    found = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    missing = (symbol < 0) | (session < 0) | (keys[found] != wanted)
    return np.where(missing, -1, found)


def _score_block(score: Callable[[Bars, I64], F64], market: Market, session: int) -> Block:
    """Score the rows of one session that have history enough."""
    bars = market.bars
    rows = np.flatnonzero((bars.session == session) & (own_bars(bars.life_start) >= MIN_BARS))
    horizons = market.labels.spec.horizons
    values = np.full((len(bars), len(horizons)), np.nan)
    if len(rows):
        values[rows] = score(bars, rows)
    known_at = np.where(bars.session == session, session, -1).astype(np.int32)
    names = tuple(f"score_{h}" for h in horizons)
    return Block("score", names, values, known_at, tolerance=SCORE_TOLERANCE)
