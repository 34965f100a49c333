"""Leaks planted into the pipeline, one at a time: each must be named, with its stage and column."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from barcast.audit.findings import in_order
from barcast.audit.laboratory import ALTERED, ANCHOR, CUT, WITHIN, choose_cuts, examine
from barcast.audit.workings import adjusted, naive_forecasts
from barcast.core.predictions import SEGMENTS
from barcast.features import Panel
from barcast.features.registry import Feature, FeatureSet
from barcast.labels import forward_labels, tradable_closes
from barcast.store.adjust import to_bars
from barcast.windows.normalise import CLIP, FittedScaler
from tests.audit.builders import make_market, make_workings, make_world


def findings_of(workings, world, num_cuts=2):
    cuts = choose_cuts(workings.market, num_cuts, warmup=60)
    return in_order(list(examine(workings, world, cuts).findings.values()))


def by_check(findings):
    return {finding.check: finding for finding in reversed(findings)}


#: Worlds on which the honest pipeline was seen to be clean.
CLEAN = set()


def planted(workings, world, **leak):
    """The same pipeline with one leaky step; it is clean without, or the test would prove nothing."""
    if id(world.frame) not in CLEAN:
        assert not findings_of(workings, world)
        CLEAN.add(id(world.frame))
    return findings_of(replace(workings, **leak), world)


def panel_of(bars, **columns):
    values = np.stack(list(columns.values()), axis=1).astype(np.float32)
    return Panel(values, tuple(columns), "planted", np.zeros(len(columns), np.int32), "")


def per_symbol(bars, column, function):
    out = np.empty(len(bars))
    for start, stop in zip(bars.offsets[:-1], bars.offsets[1:], strict=True):
        out[start:stop] = function(column[start:stop])
    return out


def next_known(values):
    """Fill missing values with the next known one, row by row."""
    out = values.copy()
    for row in range(len(out) - 2, -1, -1):
        missing = np.isnan(out[row])
        out[row][missing] = out[row + 1][missing]
    return out


# -- normalisation ------------------------------------------------------------------------------------------


def test_scaler_fitted_on_the_whole_sample(world):
    def leaky(panel, bars, fitted, universe):
        return FittedScaler.fit(panel.values, np.ones(len(bars), bool)).transform(panel.values)

    first = planted(make_workings(world), world, inputs=leaky)[0]
    assert (first.check, first.stage, first.column) == (CUT, "inputs", "ret_1")
    assert first.symbol and first.time <= first.cut
    assert first.found != first.expected


def test_scaler_of_a_small_universe_fitted_on_test(small_world):
    def leaky(panel, market):
        return FittedScaler.fit(panel.values, market.rows_of("fit", "test"))

    first = planted(make_workings(small_world), small_world, scaler=leaky)[0]
    assert (first.stage, first.column) == ("inputs", "ret_1")


def test_session_statistics_over_symbols_not_yet_listed(world):
    """A symbol's first value stands in for the sessions before it was listed: a dense matrix, back-filled."""

    def leaky(panel, bars, fitted, universe):
        sessions, symbols = len(bars.calendar), bars.num_symbols
        out = np.zeros((len(bars), panel.values.shape[1] + 1), np.float32)
        for column in range(panel.values.shape[1]):
            dense = np.full((sessions, symbols), np.nan)
            dense[bars.session, bars.symbol_of_row] = panel.values[:, column]
            first = np.array([dense[:, s][np.isfinite(dense[:, s])][:1].sum() for s in range(symbols)])
            unlisted = (
                np.arange(sessions)[:, None] < bars.session[np.minimum(bars.offsets[:-1], len(bars) - 1)]
            )
            dense = np.where(unlisted, first, dense)
            known = np.isfinite(dense)
            count = np.maximum(known.sum(axis=1), 1)
            mean = np.where(known, dense, 0).sum(axis=1) / count
            spread = np.sqrt(np.where(known, (dense - mean[:, None]) ** 2, 0).sum(axis=1) / count)
            z = (panel.values[:, column] - mean[bars.session]) / np.maximum(spread, 1e-12)[bars.session]
            out[:, column] = np.nan_to_num(np.clip(z, -CLIP, CLIP))
        return out

    first = planted(make_workings(world), world, inputs=leaky)[0]
    assert (first.check, first.stage, first.column) == (CUT, "inputs", "ret_1")


# -- features -----------------------------------------------------------------------------------------------


def test_centred_window(world):
    def centred(close):
        return np.convolve(close, np.ones(5) / 5, mode="same") / close

    made = FeatureSet(
        name="planted",
        features=(
            Feature("honest", "", 0, "", lambda log_return: log_return),
            Feature("centred", "", 0, "", centred),
        ),
        description="",
    )
    workings = make_workings(world)
    from barcast.features import build_panel

    first = planted(workings, world, features=lambda bars: build_panel(bars, made))[0]
    assert (first.check, first.stage, first.column, first.columns) == (
        CUT,
        "features",
        "centred",
        ("centred",),
    )


def test_back_fill_of_a_warm_up(world):
    workings = make_workings(world)

    def leaky(bars):
        panel = workings.features(bars)
        values = panel.values.copy()
        for start, stop in zip(bars.offsets[:-1], bars.offsets[1:], strict=True):
            values[start:stop] = next_known(values[start:stop])
        return replace(panel, values=values)

    first = planted(workings, world, features=leaky)[0]
    assert (first.check, first.stage, first.column) == (CUT, "features", "ret_20")
    # shorter warm-ups are over by the cut
    assert first.expected is None


def test_back_fill_of_missing_volume(world):
    workings = make_workings(world)

    def leaky(world):
        bars = workings.adjust(world)
        return replace(bars, volume=per_symbol(bars, bars.volume, lambda v: next_known(v[:, None])[:, 0]))

    first = planted(workings, world, adjust=leaky)[0]
    assert (first.stage, first.column) == ("bars", "volume")


def test_interpolation_across_a_hole(world):
    """A suspended symbol gets straight lines for prices; the far end of the line is the price of its return."""

    def leaky(world):
        frames = []
        for part in world.frame.partition_by("symbol", maintain_order=True):
            life = world.calendar.times
            life = life[(life >= part["time"].min()) & (life <= part["time"].max())]
            grid = pl.DataFrame({"time": pl.Series(life).cast(pl.Date)}).join(part, on="time", how="left")
            prices = [pl.col(name).interpolate() for name in ("open", "high", "low", "close")]
            frames.append(
                grid.with_columns(*prices, pl.exclude("open", "high", "low", "close").forward_fill())
            )
        return to_bars(pl.concat(frames).select(world.frame.columns), world.calendar, world.market)

    first = planted(make_workings(world), world, adjust=leaky)[0]
    assert (first.stage, first.column) == ("bars", "row")
    assert "there only because of later ones" in first.detail


# -- who belongs to the universe ----------------------------------------------------------------------------


def test_universe_of_those_who_survive(world):
    def survivors(bars):
        return np.isin(np.arange(bars.num_symbols), bars.symbol_of_row[bars.session == bars.session.max()])

    first = planted(make_workings(world), world, universe=survivors)[0]
    assert (first.stage, first.column) == ("universe", "member")


def test_universe_of_the_most_traded_of_the_whole_sample(world):
    def liquid(bars):
        turnover = np.bincount(bars.symbol_of_row, np.nan_to_num(bars.volume * bars.close), bars.num_symbols)
        return turnover >= np.median(turnover)

    first = planted(make_workings(world), world, universe=liquid)[0]
    assert (first.stage, first.column) == ("universe", "member")


def test_rows_of_those_who_do_not_survive_are_dropped(world):
    workings = make_workings(world)

    def leaky(world):
        bars = workings.adjust(world)
        last = np.zeros(bars.num_symbols, np.int64)
        np.maximum.at(last, bars.symbol_of_row, bars.session)
        return bars.take((last == last.max())[bars.symbol_of_row])

    first = planted(workings, world, adjust=leaky)[0]
    assert (first.stage, first.column) == ("bars", "row")
    assert "only because of later ones" in first.detail


# -- labels -------------------------------------------------------------------------------------------------


def test_label_that_overlaps_a_segment_border(world):
    workings = make_workings(world)

    def unpurged(bars, labels):
        code = workings.market.plan.segment_of(bars.session)
        return np.where(labels.last_known_at >= 0, code, -1).astype(np.int8)

    found = by_check(planted(workings, world, segments=unpurged))
    first = found["segment border"]
    border = str(world.calendar.times[workings.market.plan.spans["fit"][1]])
    assert (first.stage, first.column) == ("segments", "fit")
    assert first.expected == f"known by {border}" and first.time <= border


@pytest.mark.parametrize(("by", "words"), [(-1, "1 session too late"), (1, "1 session too early")])
def test_label_shifted_by_one(world, by, words):
    workings = make_workings(world, horizons=(5,))

    def shifted(bars):
        labels = workings.labels(bars)
        moved = per_symbol(bars, labels.y[:, 0], lambda y: np.roll(y, by))[:, None]
        return replace(labels, y=np.where(labels.known, moved, np.nan))

    findings = planted(workings, world, labels=shifted)
    found = by_check(findings)
    assert (found["label"].stage, found["label"].column) == ("labels", "y_5")
    assert words in found["label"].detail
    if by < 0:  # it reads one session beyond the one at which it is said to be known
        assert found[CUT].stage == "labels"


def test_label_said_to_be_known_too_early(world):
    workings = make_workings(world, horizons=(5,))

    def early(bars):
        labels = workings.labels(bars)
        return replace(labels, known_at=np.where(labels.known, labels.known_at - 1, -1).astype(np.int32))

    found = by_check(planted(workings, world, labels=early))
    assert found["label"].column == "known_at_5"
    assert found[CUT].stage == "labels"


def test_limit_flag_of_the_session_used_at_its_open(cn_world):
    """The flag reads the close of the session: honest at the close, a leak for an order at the open."""

    def flag(bars):
        return panel_of(bars, limit=tradable_closes(bars))

    at_close = make_workings(cn_world)
    assert not findings_of(replace(at_close, features=flag), cn_world)
    findings = findings_of(replace(at_close, features=flag, acts_at="open"), cn_world)
    assert (findings[0].check, findings[0].stage, findings[0].column) == (WITHIN, "features", "limit")
    assert ("tradable", "tradable") in {(finding.stage, finding.column) for finding in findings}


def test_features_known_at_the_open_may_be_used_there(world):
    def overnight(bars):
        before = per_symbol(bars, bars.close, lambda close: np.append(np.nan, close[:-1]))
        return panel_of(bars, gap=np.log(bars.open / before))

    findings = findings_of(replace(make_workings(world), features=overnight, acts_at="open"), world)
    assert not [finding for finding in findings if finding.stage in ("features", "inputs")]


def test_limit_flag_of_the_entry_used_as_an_input(cn_world):
    def flag(bars):
        return panel_of(bars, tradable=forward_labels(bars).tradable)

    first = planted(make_workings(cn_world), cn_world, features=flag)[0]
    assert (first.check, first.stage, first.column) == (CUT, "features", "tradable")


def test_special_treatment_used_before_it_was_known(cn_world):
    """Five percent limits from the first day of a spell on, whenever it was announced."""
    workings = make_workings(cn_world)

    def from_the_start(world):
        known = None if world.status is None else world.status.with_columns(known_at="start")
        return workings.adjust(replace(world, status=known))

    assert not findings_of(workings, cn_world)
    found = by_check(planted(workings, cn_world, adjust=from_the_start))
    assert found[ALTERED].stage == "tradable"


def test_flag_of_the_wrong_session(cn_world):
    workings = make_workings(cn_world)

    def own_close(bars):
        return replace(workings.labels(bars), tradable=tradable_closes(bars))

    assert by_check(planted(workings, cn_world, labels=own_close))["tradable"].stage == "tradable"


def test_row_kept_because_a_longer_label_never_becomes_known():
    """With several horizons, a row judged by the labels it happens to have depends on who comes back later."""
    world = make_world(market="cn", seed=3)
    workings = make_workings(world, horizons=(1, 5))
    plan = workings.market.plan

    def by_known_labels(bars, labels):
        return plan.assign(bars.session, labels.last_known_at)

    def by_all_labels(bars, labels):
        known = labels.known.all(axis=1)
        return plan.assign(bars.session, np.where(known, labels.last_known_at, -1).astype(np.int32))

    assert not findings_of(replace(workings, segments=by_all_labels), world)
    first = findings_of(replace(workings, segments=by_known_labels), world)[0]
    assert (first.stage, first.column) == ("segments", "segment")


# -- calibration --------------------------------------------------------------------------------------------


def test_calibration_fitted_on_weigh_and_test(world):
    def leaky(market, rows):
        weigh, test = SEGMENTS.index("weigh"), SEGMENTS.index("test")
        code = np.where(market.segment == test, weigh, market.segment)
        return naive_forecasts(replace(market, segment=code.astype(np.int8)), rows)

    first = planted(make_workings(world), world, forecasts=leaky)[0]
    assert (first.check, first.stage) == (CUT, "forecasts")
    assert first.column.endswith((".sigma", ".y_hat"))
    assert not any(column.endswith(".score") for column in first.columns)


# -- adjustment ---------------------------------------------------------------------------------------------


def anchored_at_last(frame):
    factors = ("split_factor", "total_factor")
    return frame.with_columns(pl.col(name) / pl.col(name).last().over("symbol") for name in factors)


def test_adjustment_anchored_after_the_cutoff(world):
    def forward_adjusted(world):
        return to_bars(anchored_at_last(world.frame), world.calendar, world.market)

    findings = planted(make_workings(world), world, adjust=forward_adjusted)
    assert (findings[0].stage, findings[0].column) == ("bars", "open")
    assert {ALTERED, CUT} <= {finding.check for finding in findings}


def test_stored_factors_anchored_after_the_cutoff(world):
    found = findings_of(make_workings(world), replace(world, frame=anchored_at_last(world.frame)))
    assert (found[0].check, found[0].stage, found[0].column) == ("factor anchor", "factors", "total_factor")
    assert found[0].symbol


def test_price_level_of_prices_that_the_source_adjusted(world):
    """qfq prices carry later dividends in their level: a feature of the level sees them."""

    def level(bars):
        return panel_of(bars, log_price=np.log(bars.close))

    as_traded = make_workings(world)
    assert not findings_of(replace(as_traded, features=level), world)
    adjusted_world = replace(world, frame=world.frame.with_columns(
        pl.lit(1.0).alias("split_factor"), pl.lit(1.0).alias("total_factor"), pl.lit("adjusted").alias("basis")
    ))  # fmt: skip
    workings = make_workings(adjusted_world)
    first = planted(workings, adjusted_world, features=level)[0]
    assert (first.check, first.stage, first.column) == (ANCHOR, "features", "log_price")


def test_rows_masked_because_of_later_ones(world):
    """A spike is known as one only when the price is back: leaving it out cleans the past."""
    workings = make_workings(world)
    policy = make_market(world).policy

    def leaky(world):
        bars = adjusted(world, policy)
        change = np.zeros(len(bars))
        change[:-1] = np.abs(np.diff(np.log(bars.close)))
        return bars.take(change < 0.06)

    first = planted(workings, world, adjust=leaky)[0]
    assert (first.stage, first.column) == ("bars", "row")
