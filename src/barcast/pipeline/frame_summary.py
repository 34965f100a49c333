"""How a fleet of frames went, in plain values: what users of such trainers look for, and what to believe."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import polars as pl

from barcast.core.config import to_plain
from barcast.core.runs import RunFolder
from barcast.evaluation.results import without_nan
from barcast.fleet.data import FleetData
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.ledger_rows import ASKED_AGAIN, NEW, LedgerRow
from barcast.pipeline.fleet_folds import metrics_for, score
from barcast.pipeline.fleet_rows import TOO_SHORT
from barcast.pipeline.fleet_weights import WEIGHTS
from barcast.pipeline.frame_rows import FrameRows

_NAMES = ("fit", "stop", "weigh", "validation")
MEASURED_BEFORE = "measured with a lighter preset before"
NOT_GIVEN, DROPPED = "not given any more", "its model of an earlier fit is dropped"
#: When finished symbols ended, and the digests of their models.
Before: TypeAlias = Mapping[str, tuple[str, str]]


def summary_of(
    run: RunFolder, rows: FrameRows, data: FleetData, before: Before, had: Collection[str], started: float,
    forecasts: pl.DataFrame | None,
) -> dict[str, Any]:  # fmt: skip
    """Return the summary of a fit.

    Parameters
    ----------
    data : FleetData
        The rows with their segments.
    before : mapping
        What was finished before this call.
    had : collection of str
        Who had a model before it, and before calls that did not end.
    started : float
        When this call began, by ``time.perf_counter``.
    forecasts : polars frame, optional
        Of the validation; None where nothing was fitted.
    """
    with Ledger.open(run.fleet / LEDGER) as ledger:
        known, weights, size = ledger.rows(), ledger.pooled(WEIGHTS), ledger.size_bytes()
    done = [row for row in known if row.status == "done"]
    kept = [row for row in done if before.get(row.symbol) == (row.finished_at, row.content)]
    failures = _failures(rows, known)
    gone = sorted({*had} - {row.symbol for row in done})
    dropped = {symbol: failures.get(symbol, NOT_GIVEN) for symbol in gone}
    failures |= {symbol: f"{why}; {DROPPED}" for symbol, why in dropped.items() if symbol in failures}
    presets = Counter(row.preset for row in done)
    fitted = Counter(_why(row, before) for row in done if row not in kept)
    summary = {
        "successful_stocks": len(done),
        "failed_stocks": len(failures),
        "total_stocks": len(done) + len(failures),
        "failures": failures,
        "dropped": dropped,
        "total_training_time_hours": (time.perf_counter() - started) / 3600,
        "computing_hours": sum(row.seconds for row in done) / 3600,
        "kept_from_before": len(kept),
        "fitted_now": dict(fitted),
        "presets": dict(presets),
        "columns": list(rows.columns),
        "ignored_columns": dict(rows.ignored),
        "segments": _segments(rows, data),
        "validation": {} if forecasts is None else _validation(rows, forecasts),
        "symbols": _symbols(done, weights, forecasts),
        "ledger_bytes": size,
    }
    plain: dict[str, Any] = without_nan(to_plain(summary))
    return plain


def _why(row: LedgerRow, before: Before) -> str:
    """Say why a symbol was fitted in this call; some are fitted twice in it, first to measure a preset."""
    if row.why != ASKED_AGAIN:
        return row.why
    return MEASURED_BEFORE if row.symbol in before else NEW


def _failures(rows: FrameRows, known: Sequence[LedgerRow]) -> dict[str, str]:
    incomplete = rows.incomplete()
    failures = dict(rows.failures)
    for row in known:
        if row.status == "done":
            continue
        lacking = incomplete.get(row.symbol, 0)
        more = f" ({lacking:,} rows lack a value)" if lacking and row.reason.startswith(TOO_SHORT) else ""
        failures[row.symbol] = (row.reason or row.status) + more
    return dict(sorted(failures.items()))


def _segments(rows: FrameRows, data: FleetData) -> dict[str, dict[str, Any]]:
    found = {}
    for code, name in enumerate(_NAMES):
        own = data.session[data.segment == code]
        if len(own):
            # days without their midnight
            ends = [str(rows.calendar[at]).partition("T00:00:00")[0] for at in (own.min(), own.max())]
            found[name] = {"first": ends[0], "last": ends[1], "num_rows": len(own)}
    return found


def _validation(rows: FrameRows, forecasts: pl.DataFrame) -> dict[str, Any]:
    metrics = metrics_for(forecasts)
    (scores,) = score(forecasts, metrics, 0).values() if len(forecasts) else ({},)
    return {
        "scores": scores,
        "num_rows": len(forecasts),
        "num_sessions": forecasts["session"].n_unique(),
        "num_symbols": forecasts["symbol"].n_unique(),
    }


def _symbols(
    done: Sequence[LedgerRow], weights: Mapping[str, Any], forecasts: pl.DataFrame | None
) -> dict[str, dict[str, Any]]:
    judged = {} if forecasts is None else _judged(forecasts)
    found = {}
    for row in done:
        evidence = weights[row.symbol][0] if row.symbol in weights else {"members": (), "weights": ()}
        found[row.symbol] = {
            "preset": row.preset,
            "num_rows": row.num_rows,
            "seconds": row.seconds,
            "weights": dict(zip(evidence["members"], evidence["weights"], strict=True)),
            **judged.get(row.symbol, {"num_validated": 0, "r2": None, "correlation": None}),
        }
    return found


def _judged(forecasts: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return of each symbol its rows in the validation, R² against zero, and correlation with outcomes."""
    error, y = (pl.col("y") - pl.col("y_hat")).pow(2).sum(), pl.col("y").pow(2).sum()
    table = forecasts.group_by("symbol").agg(
        num_validated=pl.len(), r2=1 - error / y, correlation=pl.corr("y", "y_hat")
    )
    return {
        each.pop("symbol"): each
        for each in table.with_columns(pl.col("r2", "correlation").fill_nan(None)).iter_rows(named=True)
    }
