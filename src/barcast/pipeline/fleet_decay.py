"""``barcast fleet decay``: whether stored models still know what they knew, and whose models do not.

Watched are sessions after everything that taught, chose or judged a run. They are compared with rows that
taught nothing: `route`, and `test` where scores of these weights on it were looked at before; a sealed `test`
stays sealed, since a reference made of its outcomes would be a look at them. `weigh` is no reference: the
weights of the members come from it, and would make every model seem to have decayed. A refit has no row that
taught it nothing; its reference is that of the evaluation whose presets, rounds and weights it keeps. In a
refreshed fleet each model is watched after what it knows itself, once enough of them are (`watched_from`).

Letters: R rows, S symbols, H horizons, T sessions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I32, I64, Bools
from barcast.core.bars import Bars
from barcast.core.errors import UsageError
from barcast.core.predictions import read_predictions
from barcast.core.progress import Progress, count
from barcast.core.runs import RunFolder, open_run
from barcast.core.workspace import Workspace
from barcast.evaluation.cusum import Cusum
from barcast.evaluation.decay import DecayReport, measure_decay, watched_from
from barcast.evaluation.named import Named
from barcast.evaluation.psi import InputReference, InputShift, input_psi
from barcast.evaluation.skill import ForecastRows
from barcast.features import FeatureSet
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.labels import Labels, LabelSpec, forward_labels, trailing_volatility
from barcast.pipeline.attributes import attribute_values, known_attributes
from barcast.pipeline.compare import test_was_seen
from barcast.pipeline.dataset import make_panel, normalised, run_features
from barcast.pipeline.fleet_origins import Origin, origins
from barcast.pipeline.fleet_rows import TURNOVER_BARS, rows_of_table
from barcast.pipeline.fleet_seen import fleet_run
from barcast.pipeline.fleet_universal import refuse_residual
from barcast.pipeline.market import VOLATILITY_BARS, load_bars
from barcast.pipeline.predict import serving_run
from barcast.pipeline.record import check_market, load_maps
from barcast.pipeline.scoring import output_rows, run_head
from barcast.pipeline.settings import RunConfig, from_run
from barcast.pipeline.unfinished import check_done
from barcast.store import MarketStore
from barcast.windows.index import MIN_BARS, own_bars
from barcast.windows.normalise import FittedScaler

_TERCILES = ("low", "middle", "high")
#: Entries of a chart that are sessions.
_SESSIONS = ("alarm", "known_at", "onset")


@dataclass(frozen=True)
class FleetDecay:
    """What following a fleet's models found.

    Attributes
    ----------
    run : str
        The fleet whose models were followed.
    reference : str
        The run whose forecasts they are compared with: its own, or its evaluation's.
    segments : tuple of str
        Of the reference.
    since, until : str
        First session watched of any model, and the last one with a known outcome; ``until`` is empty where
        there is none.
    reports : mapping of int to DecayReport
        By horizon; without those of which no outcome is known yet.
    sessions : tuple of str
        The calendar: what the session numbers of the reports mean.
    """

    run: str
    reference: str
    segments: tuple[str, ...]
    since: str
    until: str
    reports: Mapping[int, DecayReport]
    sessions: tuple[str, ...]

    def sentences(self, horizon: int) -> list[str]:
        """Return what to tell the user of a horizon, sessions by date."""
        return self.reports[horizon].told(self.sessions.__getitem__)

    def named(self) -> dict[str, dict[int, Named]]:
        """Return who decayed, smallest q-value first, each with the horizons at which."""
        found = [(each, h) for h, report in self.reports.items() for each in report.naming.named]
        by_symbol: dict[str, dict[int, Named]] = {}
        for each, horizon in sorted(found, key=lambda pair: (pair[0].q_value, pair[0].p_value)):
            by_symbol.setdefault(each.symbol, {})[horizon] = each
        return by_symbol

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON; sessions are dates."""
        return {
            "run": self.run, "reference": self.reference, "segments": list(self.segments),
            "since": self.since, "until": self.until or None, "named": list(self.named()),
            "horizons": {str(horizon): self._plain(horizon) for horizon in self.reports},
        }  # fmt: skip

    def _plain(self, horizon: int) -> dict[str, Any]:
        found = self.reports[horizon].plain()
        charts = [found["pooled"], *(chart for of in found["cohorts"].values() for chart in of)]
        for chart in charts:
            chart |= {name: self.sessions[at] for name in _SESSIONS if (at := chart[name]) is not None}
            del chart["sentence"]  # it names sessions by number
        return found | {"sentences": self.sentences(horizon)}


def stored_fleet(workspace: Workspace, name: str = "") -> RunFolder:
    """Return the named fleet, finished; by default the newest one, or its refit where it serves by one.

    Raises
    ------
    RunError
        When there is none, or it is not finished.
    """
    run = fleet_run(workspace, name)
    check_done(run)
    return run if name else serving_fleet(workspace, run)


def serving_fleet(workspace: Workspace, run: RunFolder) -> RunFolder:
    """Return the run that serves for a finished fleet now: the refit of its evaluation, or that itself."""
    evaluated = RunFolder(workspace.runs / str(run.info.get("parent", run.name)))
    return serving_run(workspace, evaluated, np.datetime64("9999-12-31"))


def fleet_decay(
    workspace: Workspace, name: str = "", *, since: str = "", progress: Progress | None = None
) -> FleetDecay:
    """Follow the models of a fleet on what came since.

    Parameters
    ----------
    name : str
        A fleet; by default the newest, or its refit where it serves by one.
    since : str
        First session watched; by default of each model the first after all that taught, chose or judged it.

    Raises
    ------
    RunError
        When the fleet is not finished, or of another market than the store's.
    UsageError
        On a ``since`` that is no date, or before which something was learned or is sealed.
    DataError
        When the reference has no row whose outcome is known.
    """
    progress = progress or Progress(enabled=False)
    run = stored_fleet(workspace, name)
    check_market(workspace, run)
    refuse_residual(run, "follow a plain fleet: barcast fleet decay --run RUN")
    evaluated = open_run(workspace, str(run.info.get("parent", run.name)))
    config = from_run(run.read("config.json"))
    progress.note(f"reading the store: what came since {run.name} was trained")
    bars = load_bars(workspace, replace(config.data, symbols=(), limit=0, asof="")).bars
    seen = test_was_seen(workspace, evaluated)
    segments = ("route", "test") if seen else ("route",)
    with Ledger.open(run.fleet / LEDGER) as ledger:
        models = ledger.rows(status=["done"])
    begins = _begins(origins(run, models), run, evaluated, since, bars, seen_test=seen)
    followed = _Followed.of(run, config, bars, {row.symbol: row.preset for row in models}, begins)
    found = _reports(workspace, followed, evaluated, segments, progress)
    sessions = tuple(map(str, bars.calendar.times))
    until = max((last for last, _ in found.values()), default=-1)
    return FleetDecay(
        run.name, evaluated.name, segments, _session_at(bars, followed.first),
        sessions[until] if found else "",
        {horizon: report for horizon, (_, report) in found.items()}, sessions,
    )  # fmt: skip


def _begins(
    known: Mapping[str, Origin], run: RunFolder, evaluated: RunFolder, since: str, bars: Bars, *,
    seen_test: bool,
) -> dict[str, int]:  # fmt: skip
    """Return the first session watched of each model; it may lie beyond the calendar."""
    times, (_, judged) = bars.calendar.times, evaluated.read("state.json")["segments"]["test"]
    opened = bool(since) and seen_test  # `test` is watched only where it was asked for
    after = {
        symbol: origin.known_until  # nothing judges a refit
        if opened or origin.run != evaluated.name
        else max(origin.known_until, judged)
        for symbol, origin in known.items()
    }
    own = np.searchsorted(times, np.array(list(after.values()), times.dtype), "right")
    if since:
        asked = _date_of(since)
        taught = min(origin.known_until for origin in known.values())
        if asked <= np.datetime64(taught):
            raise UsageError(
                f"--since {since}: `{run.name}` was taught and chosen by labels known until {taught}",
                "name a later session, or leave it out",
            )
        if asked <= np.datetime64(min(after.values())):
            raise UsageError(
                f"--since {since}: the `test` of `{evaluated.name}` runs to {judged}, and its outcomes are "
                "sealed",
                f"leave it out, or open them for good: barcast compare {evaluated.name} --open-test",
            )
        own = np.maximum(own, np.searchsorted(times, asked, "left"))
    return dict(zip(after, np.maximum(own, watched_from(own)).tolist(), strict=True))


def _date_of(since: str) -> np.datetime64:
    try:
        return np.datetime64(datetime.fromisoformat(since).replace(tzinfo=None))
    except ValueError as error:
        raise UsageError(f"--since {since}: no date", "--since 2024-03-08") from error


def _session_at(bars: Bars, position: int) -> str:
    """Name a session of the calendar, or the next one after it."""
    times = bars.calendar.times
    return str(times[position] if position < len(times) else bars.calendar.next_after(times[-1]))


@dataclass(frozen=True)
class _Followed:
    """The models of a run and the bars that they are followed on.

    Attributes
    ----------
    symbols, presets : tuple of str, length S
        Who has a model of its own, and which.
    owner : I32, shape (number of symbols of the bars,)
        Position of each in ``symbols``, -1 for none.
    labels : Labels
    volatility : F64, shape (R,)
    usable : Bools, shape (R,)
        Rows of these symbols with the history that a forecast needs.
    begins : I64, shape (number of symbols of the bars,)
        First session watched of each; 0 where it has no model.
    rows : I64, shape (n,)
        Usable rows from there on of which some outcome is known.
    """

    run: RunFolder
    config: RunConfig
    bars: Bars
    symbols: tuple[str, ...]
    presets: tuple[str, ...]
    owner: I32
    labels: Labels
    volatility: F64
    usable: Bools
    begins: I64
    rows: I64

    @classmethod
    def of(
        cls, run: RunFolder, config: RunConfig, bars: Bars, models: Mapping[str, str],
        begins: Mapping[str, int],
    ) -> _Followed:  # fmt: skip
        """Find the models of a run, each with its preset and first session, among the symbols of the bars."""
        symbols = tuple(symbol for symbol in bars.symbols if symbol in models)
        position = {symbol: place for place, symbol in enumerate(symbols)}
        owner = np.array([position.get(symbol, -1) for symbol in bars.symbols], np.int32)
        labels = forward_labels(bars, LabelSpec(horizons=config.data.horizons, delay=config.data.delay))
        usable = (owner[bars.symbol_of_row] >= 0) & (own_bars(bars.life_start) >= MIN_BARS)
        first = np.array([begins.get(symbol, 0) for symbol in bars.symbols], np.int64)
        watched = usable & (bars.session >= first[bars.symbol_of_row])
        rows = np.flatnonzero(watched & labels.known.any(axis=1))
        volatility = trailing_volatility(bars, VOLATILITY_BARS)
        presets = tuple(models[symbol] for symbol in symbols)
        return cls(run, config, bars, symbols, presets, owner, labels, volatility, usable, first, rows)

    @property
    def first(self) -> int:
        """First session watched of any model."""
        return int(self.begins[self.owner >= 0].min(initial=len(self.bars.calendar)))

    @cached_property
    def state(self) -> dict[str, Any]:
        """What the run keeps for predictions."""
        found: dict[str, Any] = self.run.read("state.json")
        return found

    @cached_property
    def features(self) -> FeatureSet:
        """Where the inputs come from, as the run used it."""
        return run_features(self.run, self.state["feature_set"])

    @cached_property
    def universe(self) -> Bools:
        """Symbols that session statistics are made of, those of the run, shape (symbols of the bars,)."""
        return np.isin(np.array(self.bars.symbols), np.array(self.state["universe"]))

    def scores(self, workspace: Workspace) -> F64:
        """Return what the stored models say of the watched rows, shape (n, H)."""
        outputs, _ = output_rows(
            workspace, self.run, self.config, self.state, self.bars, self.features, self.universe, self.rows
        )
        return np.asarray(run_head(self.config).scores(outputs), np.float64)

    def forecasts(self, rows: I64, score: F64, h: int) -> ForecastRows:
        """Return forecasts of rows (n,) beside outcomes, both in units of what the symbol moved of late.

        Such a unit is known with the forecast; a rank waits for every other outcome of its session. Where no
        size could be calibrated the score itself stands: its signs and its order may decay all the same.
        """
        score_map, target = load_maps(self.run)[h], self.state["target"]
        scale = score_map.scale(self.volatility[rows])
        y_hat = score_map.y_hat(score) if score_map.slope else score * (1 if target == "return" else scale)
        return ForecastRows(
            self.owner[self.bars.symbol_of_row[rows]], self.bars.session[rows], y_hat / scale,
            self.labels.y[rows, h] / scale, self.labels.known_at[rows, h],
        )  # fmt: skip

    def reference(self, evaluated: RunFolder, segments: Sequence[str], h: int) -> ForecastRows:
        """Return what the evaluated run said of its segments, beside the outcomes in the store."""
        horizon = self.config.data.horizons[h]
        table = pl.concat(
            [read_predictions(evaluated.predictions, segment=name, horizon=horizon) for name in segments]
        )
        rows = rows_of_table(self.bars, table)
        here = rows >= 0
        here[here] = self.usable[rows[here]] & (self.bars.session[rows[here]] < self.first)
        return self.forecasts(rows[here], table["score"].to_numpy()[here], h)

    def cohorts(self, workspace: Workspace) -> dict[str, list[str]]:
        """Return the cohort of each symbol by preset, turnover and, where on record, industry."""
        found = {"preset": list(self.presets), "turnover": self._terciles()}
        store = MarketStore.open(workspace.market)
        if "industry" in known_attributes(store.facts(), store.meta.market):
            found["industry"] = list(attribute_values(store, ("industry",), self.symbols)["industry"])
        return {name: values for name, values in found.items() if len({*values} - {""}) > 1}

    def _terciles(self) -> list[str]:
        """Return each symbol's third by turnover in the sessions before those watched."""
        bars, owner = self.bars, self.owner[self.bars.symbol_of_row]
        before = (bars.session < self.first) & (bars.session >= self.first - TURNOVER_BARS) & (owner >= 0)
        traded = np.nan_to_num(bars.close * bars.volume)[before]
        num = np.bincount(owner[before], minlength=len(self.symbols))
        mean = np.bincount(owner[before], traded, len(self.symbols)) / np.maximum(num, 1)
        third = np.searchsorted(np.quantile(mean, [1 / 3, 2 / 3]), mean)
        return [_TERCILES[place] if have else "" for place, have in zip(third, num, strict=True)]

    def inputs(self) -> tuple[InputShift, ...]:
        """Compare the inputs of the watched rows with those of the rows that taught."""
        if self.features.window_normalised:  # prices as they are: every one of them shifts
            return ()
        panel = make_panel(self.bars, self.features, None, "", cached=False)
        told = self.state["scaler"]
        scaler = None if told is None else FittedScaler(np.array(told["mean"]), np.array(told["std"]))
        read = normalised(panel, self.bars, self.features, scaler, self.universe)[:, :-1]
        valid, session = np.isfinite(panel.values), self.bars.session
        last_taught = np.datetime64(self.run.info["last_teaching_session"])
        taught = int(np.searchsorted(self.bars.calendar.times, last_taught, "right"))
        fit, since = np.flatnonzero(self.usable & (session < min(taught, self.first))), self.rows
        reference = InputReference.of(self.features.names, read[fit], session[fit], valid[fit])
        memory = max(self.features.max_warmup, 1)
        return input_psi(reference, read[since], session[since], valid[since], memory=memory)


def _reports(
    workspace: Workspace, followed: _Followed, evaluated: RunFolder, segments: Sequence[str],
    progress: Progress,
) -> dict[int, tuple[int, DecayReport]]:  # fmt: skip
    """Return by horizon the last session with a known outcome, and what was found."""
    if not len(followed.rows):
        return {}
    data = followed.config.data
    progress.note(f"forecasting {count(len(followed.rows))} rows of {len(followed.symbols):,} models")
    scores, cohorts, inputs = followed.scores(workspace), followed.cohorts(workspace), followed.inputs()
    found = {}
    for h, horizon in enumerate(data.horizons):
        charts = Cusum(label_sessions=data.delay + horizon)
        watched = followed.forecasts(followed.rows, scores[:, h], h)
        known = watched.punctual(charts.label_sessions).session
        if len(known):
            reference = followed.reference(evaluated, segments, h)
            report = measure_decay(
                followed.symbols, reference, watched, charts, cohorts=cohorts,
                begins=followed.begins[followed.owner >= 0], inputs=inputs,
            )  # fmt: skip
            found[horizon] = int(known.max()), report
    return found
