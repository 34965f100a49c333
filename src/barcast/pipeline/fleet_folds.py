"""Folds of a fleet: each is fitted like any fleet, judges rows that nothing in it had seen, and is forgotten.

::

    FOLDER/cv.json               what came of it
    FOLDER/folds/0/fleet/        the ledger of a fold, while it is being fitted
                   forecasts.parquet, fold.json   what is left of it

The same call goes on where a killed one was: finished folds are read, an unfinished one has its ledger. A
fold is finished when no symbol waits: where a worker died or memory was short the same call tries again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I64
from barcast.core.atomic import atomic_path
from barcast.core.bars import MIN_SYMBOLS
from barcast.core.config import to_plain
from barcast.core.errors import DataError
from barcast.core.predictions import SEGMENTS
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.texts import counted
from barcast.evaluation.grouped import Groups, Sorted
from barcast.evaluation.intervals import Bootstrap, interval, plan_blocks, resample
from barcast.evaluation.results import ABSENT, FEW_SESSIONS, Score, without_nan
from barcast.evaluation.sums import METRICS, Outputs, score_of, session_sums
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.limits import Limits
from barcast.pipeline.fleet import FleetHow, fit_lessons
from barcast.pipeline.fleet_engine import Served
from barcast.pipeline.fleet_lessons import Lessons
from barcast.pipeline.fleet_rows import SETTLED, failed_in_passing
from barcast.pipeline.settings import RunConfig
from barcast.splits import Fold

#: Scores where sessions hold enough symbols to be ordered, and where they do not.
ACROSS, THROUGH_TIME = ("rank_ic", "ic", "r2"), ("r2", "auc")
FOLDER_FILE, FOLD_FILE, FORECASTS_FILE = "cv.json", "fold.json", "forecasts.parquet"
TRY_AGAIN = "the same command tries again; fewer --workers, or --max-memory below what is free"
#: From scores (n, H) to expected outcomes (n, H).
Expected = Callable[[F64], F64]


@dataclass(frozen=True)
class FoldLessons:
    """What one fold is fitted on and judged by.

    Attributes
    ----------
    lessons : Lessons
        Rows coded `route` are judged.
    y : F64, shape (R, H)
        Outcomes of its rows, in the unit that R² is measured in.
    expected : callable
        Given rows of `weigh` (n,) and their scores (n, H), makes scores expected outcomes.
    """

    lessons: Lessons
    y: F64
    expected: Callable[[I64, F64], Expected]


@dataclass(frozen=True)
class FoldScores:
    """One fold.

    Attributes
    ----------
    fold : int
        From 1.
    train, validation : tuple of str
        First and last session.
    num_symbols, num_rows, num_sessions : int
        Symbols with a model, rows that judged them, and the sessions of these.
    scores : mapping
        By horizon and metric.
    presets : mapping of str to int
        Symbols by preset.
    skipped : str
        Why nothing could be fitted in it; empty where something was.
    """

    fold: int
    train: tuple[str, str]
    validation: tuple[str, str]
    num_symbols: int = 0
    num_rows: int = 0
    num_sessions: int = 0
    scores: Mapping[int, Mapping[str, Score]] = field(default_factory=dict)
    presets: Mapping[str, int] = field(default_factory=dict)
    skipped: str = ""


@dataclass(frozen=True)
class CrossValidation:
    """How a fleet does on rows after those it learned from, fold by fold.

    Attributes
    ----------
    model, preset, scheme : str
    label_sessions : int
        From a decision until its label is known: what is purged.
    num_symbols : int
        That were to be fitted.
    metrics : tuple of str
        RankIC, IC and R² against zero; with fewer than 30 symbols a session R² and the area under the curve.
    folds : tuple of FoldScores
    overall : mapping
        By horizon and metric: over all sessions that were judged, each once. Intervals tell the luck of these
        sessions, not that of training: folds share most of what taught them.
    failures : mapping
        Symbol to reasons, each with the folds (from 1) in which it had no model for it.
    seconds : float
        Wall clock of this call.
    folder : str
        Where it rests.
    forecasts : polars frame
        fold, symbol, session, horizon, y, score, y_hat; one row a judged row and horizon.
    """

    model: str
    preset: str
    scheme: str
    label_sessions: int
    num_symbols: int
    metrics: tuple[str, ...]
    folds: tuple[FoldScores, ...]
    overall: Mapping[int, Mapping[str, Score]]
    failures: Mapping[str, Mapping[str, Sequence[int]]]
    seconds: float
    folder: str
    forecasts: pl.DataFrame = field(repr=False)

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON, forecasts left out; what is no number is None."""
        shown = {name: value for name, value in vars(self).items() if name != "forecasts"}
        plain: dict[str, Any] = without_nan(to_plain(shown))
        return plain


@dataclass(frozen=True)
class Folds:
    """Folds to be fitted.

    Attributes
    ----------
    folds : tuple of Fold
    scheme : str
    label : tuple of int
        Sessions that the longest label spans, and from a decision to its entry.
    times : sequence of str
        The calendar, for people.
    lessons : callable
        Makes what a fold (by position) is fitted on.
    failures : mapping of str to str
        Why symbols have a part in no fold.
    """

    folds: tuple[Fold, ...]
    scheme: str
    label: tuple[int, int]
    times: Sequence[str]
    lessons: Callable[[int], FoldLessons]
    failures: Mapping[str, str] = field(default_factory=dict)


def cross_validate(
    folder: Path, asked: Folds, config: RunConfig, how: FleetHow, progress: Progress, *, num_symbols: int
) -> CrossValidation:
    """Fit and judge every fold that is not finished yet, and score them all.

    Raises
    ------
    DataError
        When no symbol can be fitted in any fold.
    """
    started = time.perf_counter()
    parts = []
    for position in range(len(asked.folds)):
        fold = RunFolder(folder / "folds" / str(position))
        if not _is_finished(fold, how.limits):
            with progress.about(f"fold {position + 1} of {len(asked.folds)}: "):
                _fit_fold(fold, asked.lessons(position), config, how, progress)
        parts.append((fold.read(FOLD_FILE), pl.read_parquet(fold.path / FORECASTS_FILE)))
    if all(told["skipped"] for told, _ in parts):
        raise DataError(
            f"no symbol can be fitted in any of {counted(len(parts), 'fold')}: {parts[-1][0]['skipped']}",
            ("fewer folds, " if len(parts) > 1 else "")
            + "a larger `train_share`, a smaller `min_rows`, or more history",
        )
    forecasts = pl.concat(
        [frame.select(pl.lit(place + 1, pl.Int32).alias("fold"), pl.all())
         for place, (_, frame) in enumerate(parts)]
    )  # fmt: skip
    metrics = metrics_for(forecasts)
    found = CrossValidation(
        config.model, config.options.preset, asked.scheme, sum(asked.label), num_symbols, metrics,
        tuple(_fold_scores(asked, place, told, frame, metrics) for place, (told, frame) in enumerate(parts)),
        score(forecasts, metrics, asked.label[1]),
        _failures([{**told["failures"], **asked.failures} for told, _ in parts]),
        round(time.perf_counter() - started, 3), str(folder), forecasts,
    )  # fmt: skip
    RunFolder(folder).write(FOLDER_FILE, found.plain())
    return found


def _is_finished(run: RunFolder, limits: Limits) -> bool:
    """Return whether a fold need not be fitted; models that a kill left behind in one are dropped."""
    if not (run.path / FOLD_FILE).is_file():
        return False
    told = run.read(FOLD_FILE)
    if told.get("waiting") or told.get("limits", _of(limits)) != _of(limits):
        return False
    shutil.rmtree(run.fleet, ignore_errors=True)
    return True


def _of(limits: Limits) -> list[float | None]:
    """Return the limits that keep symbols out, as a fold has them on record."""
    return [limits.budget, limits.time_per_symbol, limits.max_memory]


def _fit_fold(
    run: RunFolder, part: FoldLessons, config: RunConfig, how: FleetHow, progress: Progress
) -> None:
    """Fit one fold, keep what it says of the rows that it is judged on, and drop its models.

    Raises
    ------
    DataError
        When there are no forecasts, and the same call may have some.
    """
    lessons, skipped = part.lessons, ""
    with Ledger.create(run.fleet / LEDGER) as ledger:
        ledger.reset(failed_in_passing(ledger))
    try:
        served = fit_lessons(config, lessons, run, progress, how).served
        frame = judged_forecasts(part, served)
    except DataError as error:  # nobody has the rows, or no fit came to a good end
        frame, skipped = _no_forecasts(), error.found
    with Ledger.open(run.fleet / LEDGER) as ledger:
        rows, waiting = ledger.rows(), failed_in_passing(ledger)
    if skipped and waiting:
        raise DataError(skipped, TRY_AGAIN)
    presets = [row.preset for row in rows if row.status == "done"]
    told: dict[str, Any] = {
        "skipped": skipped,
        "presets": {name: presets.count(name) for name in sorted(set(presets))},
        "failures": {row.symbol: row.reason for row in rows if row.status != "done"},
        "waiting": waiting,
    }
    if any(row.status == "left_out" and not row.reason.startswith(SETTLED) for row in rows):
        told["limits"] = _of(how.limits)  # others may let more in
    with atomic_path(run.path / FORECASTS_FILE) as temporary:
        frame.write_parquet(temporary)
    run.write(FOLD_FILE, told)
    if waiting:
        progress.note(f"no model of {counted(len(waiting), 'symbol')}, whose worker died: {TRY_AGAIN}")
        return
    shutil.rmtree(run.fleet, ignore_errors=True)


def judged_forecasts(part: FoldLessons, served: Served) -> pl.DataFrame:
    """Return what models say of the rows coded `route`, whose outcomes nothing in them has seen."""
    lessons, data = part.lessons, part.lessons.data
    weigh, judged = (np.flatnonzero(data.segment == SEGMENTS.index(name)) for name in ("weigh", "route"))
    scores = served.scores(data, judged)
    expected = part.expected(weigh, served.scores(data, weigh))(scores)
    owner = np.repeat(np.arange(len(data.symbols)), np.diff(data.offsets))[judged]
    symbols = pl.Series(np.array(data.symbols, object)[owner], dtype=pl.String)
    frames = []
    for h, horizon in enumerate(lessons.horizons):
        y = part.y[judged, h]
        keep = np.isfinite(scores[:, h]) & np.isfinite(y)
        frames.append(pl.DataFrame({
            "symbol": symbols.filter(pl.Series(keep)),
            "session": data.session[judged][keep].astype(np.int32),
            "horizon": np.full(int(keep.sum()), horizon, np.int32),
            "y": y[keep].astype(np.float64), "score": scores[keep, h], "y_hat": expected[keep, h],
        }))  # fmt: skip
    return pl.concat(frames)


def _no_forecasts() -> pl.DataFrame:
    kinds = {"symbol": pl.String, "session": pl.Int32, "horizon": pl.Int32}
    return pl.DataFrame(schema=kinds | dict.fromkeys(("y", "score", "y_hat"), pl.Float64))


def metrics_for(forecasts: pl.DataFrame) -> tuple[str, ...]:
    """Return the scores that forecasts allow: the IC family wants 30 symbols in the usual session."""
    sizes = forecasts.group_by("session", "horizon").len()["len"]
    return ACROSS if len(sizes) and float(sizes.median()) >= MIN_SYMBOLS else THROUGH_TIME  # type: ignore[arg-type]


def score(forecasts: pl.DataFrame, metrics: Sequence[str], delay: int) -> dict[int, dict[str, Score]]:
    """Score forecasts by horizon and metric, with intervals by blocks of sessions.

    Parameters
    ----------
    forecasts : polars frame
        Columns session, horizon, y, score, y_hat.
    delay : int
        Sessions from a decision to its entry: labels overlap over horizon and delay.
    """
    return {
        horizon: _scores(forecasts.filter(horizon=horizon), metrics, horizon, delay)
        for horizon in forecasts["horizon"].unique().sort().to_list()
    }


def _scores(frame: pl.DataFrame, metrics: Sequence[str], horizon: int, delay: int) -> dict[str, Score]:
    y, said, y_hat = (frame[name].to_numpy() for name in ("y", "score", "y_hat"))
    sessions, session = np.unique(frame["session"].to_numpy(), return_inverse=True)
    blocks = plan_blocks(len(sessions), horizon, delay, Bootstrap())
    sums = session_sums(
        Sorted.by(y, Groups(session.astype(np.int32), len(sessions))), Outputs(said, y_hat),
        cross_sectional=ACROSS[0] in metrics,
    )  # fmt: skip
    found = {}
    for metric in (METRICS[name] for name in metrics):
        if not set(metric.parts) <= set(sums):  # all outcomes went the same way
            found[metric.name] = Score(np.nan, np.nan, np.nan, flag=ABSENT)
            continue
        drawn = resample(np.column_stack([sums[part] for part in metric.parts]), blocks).T
        value = score_of(metric, sums)
        low, high = interval(value, metric.value(dict(zip(metric.parts, drawn, strict=True))), blocks)
        flag = ABSENT if np.isnan(value) else FEW_SESSIONS if np.isnan(low) else ""
        found[metric.name] = Score(value, low, high, flag=flag)
    return found


def _fold_scores(
    asked: Folds, place: int, told: Mapping[str, Any], frame: pl.DataFrame, metrics: Sequence[str]
) -> FoldScores:
    fold, times = asked.folds[place], asked.times
    train, validation = ((times[first], times[last]) for first, last in (fold.train, fold.validation))
    if told["skipped"]:
        return FoldScores(place + 1, train, validation, skipped=told["skipped"])
    return FoldScores(
        place + 1, train, validation, sum(told["presets"].values()),
        frame.select("symbol", "session").n_unique(), frame["session"].n_unique(),
        score(frame, metrics, asked.label[1]), told["presets"],
    )  # fmt: skip


def _failures(told: Sequence[Mapping[str, str]]) -> dict[str, dict[str, list[int]]]:
    """Return by symbol and reason the folds without a model."""
    failures: dict[str, dict[str, list[int]]] = {}
    for place, each in enumerate(told):
        for symbol, reason in each.items():
            failures.setdefault(symbol, {}).setdefault(reason, []).append(place + 1)
    return dict(sorted(failures.items()))
