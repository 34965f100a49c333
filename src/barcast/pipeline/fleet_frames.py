"""A fleet on users' own frames: the engine of ``barcast fleet trees`` without a market store.

::

    SAVE_DIR/training_summary.json   how it went: the seal of a finished fit
             fleet.json              columns and settings, for whoever predicts
             fleet/fleet.sqlite      the ledger: every symbol's fate and model
             fleet/models.bin        all models and weights, derived from it

The calendar of all indices is one purged fold: what comes first is cut into `fit`, `stop` and `weigh`; what
comes last, the validation, judges and neither teaches nor chooses.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from barcast.core.arrays import F64
from barcast.core.config import digest, to_plain
from barcast.core.errors import DataError, RunError, UsageError
from barcast.core.lock import writer_lock
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.texts import counted, some
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.ledger_rows import LedgerRow
from barcast.models.dedicated import FleetTreesConfig
from barcast.pipeline.fleet import FleetHow, check_own_options, fit_lessons
from barcast.pipeline.fleet_cv import CvOptions, cut_folds
from barcast.pipeline.fleet_engine import Served
from barcast.pipeline.fleet_folds import CrossValidation, FoldLessons, Folds, cross_validate, judged_forecasts
from barcast.pipeline.fleet_lessons import Lessons
from barcast.pipeline.fleet_rows import teaching_counts
from barcast.pipeline.fleet_trees import TREES
from barcast.pipeline.frame_rows import FrameRows, read_frames, rows_to_predict
from barcast.pipeline.frame_summary import Before, summary_of
from barcast.pipeline.frame_tables import ZONED
from barcast.pipeline.settings import DataConfig, RunConfig
from barcast.splits import Fold, fold_segments, purged_folds

if TYPE_CHECKING:
    import pandas as pd

    from barcast.pipeline.frame_tables import Column, Frame

SUMMARY_FILE, FLEET_FILE = "training_summary.json", "fleet.json"
#: Among the ledger's plain values: who had a model when the first call began that did not end.
_HAD = "had"


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """What shapes a fleet of frames.

    Attributes
    ----------
    preset : str
    min_rows : int
        Fewest training rows of a model.
    label_sessions : int
        Rows after its own that a row's target reaches.
    validation_share : float
        Share of the calendar, at its end, that judges.
    seed : int
    index : str
        Column that holds the index; empty: pandas' own.
    symbol_options : mapping
        What differs for single symbols.
    """

    preset: str = "standard"
    min_rows: int = 500
    label_sessions: int = 1
    validation_share: float = 0.2
    seed: int = 0
    index: str = ""
    symbol_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.label_sessions < 1:
            raise UsageError(
                f"`label_sessions` is {self.label_sessions}: a target is known one row later at the earliest",
                "label_sessions=1 for the next row's return, 5 for that of five rows",
            )
        if not 0 < self.validation_share < 1:
            raise UsageError(
                f"`validation_share` is {self.validation_share}: some rows must teach, and some judge",
                "without it it is 0.2",
            )

    @property
    def config(self) -> RunConfig:
        """What the engine reads."""
        own = {symbol: dict(options) for symbol, options in self.symbol_options.items()}
        model = FleetTreesConfig(preset=self.preset, min_rows=self.min_rows, symbol_options=own)  # type: ignore[arg-type]
        return RunConfig("fleet-trees", self.seed, DataConfig(), model, None)


@dataclass(frozen=True)
class FrameFleet:
    """A fitted fleet of frames.

    Attributes
    ----------
    folder : Path
        Where it rests.
    summary : dict
        Also in ``training_summary.json``: ``successful_stocks``, ``failed_stocks``, ``failures`` (reason by
        symbol), ``dropped`` (likewise, of those whose model of an earlier fit is gone),
        ``total_training_time_hours``, ``validation``, ``symbols`` and more.
    told : mapping
        Columns, kind of index and settings, as in ``fleet.json``.
    served : Served
        The models.
    """

    folder: Path
    summary: dict[str, Any]
    told: Mapping[str, Any] = field(repr=False)
    served: Served = field(repr=False)

    @classmethod
    def load(cls, folder: Path) -> FrameFleet:
        """Open what was fitted before.

        Raises
        ------
        RunError
            Where no fit was finished, and while one is at work.
        """
        run = RunFolder(folder)
        if not (folder / SUMMARY_FILE).is_file() or not run.read(SUMMARY_FILE)["successful_stocks"]:
            raise RunError(f"{folder} holds no finished fleet", "FleetTrainer(...).fit(..., save_dir=...)")
        return cls(folder, run.read(SUMMARY_FILE), run.read(FLEET_FILE), TREES.served(run))

    def predict(self, features: Mapping[str, Frame]) -> pd.DataFrame | pl.DataFrame:
        """Forecast the target of every row.

        Parameters
        ----------
        features : mapping of str to frame
            As given to ``fit``; more columns may be there, the order does not matter.

        Returns
        -------
        pandas or polars frame, as the first of the features
            A row for each value of an index, in order, and a column for each symbol; missing where there is
            no row, an input of it is missing, or the symbol has no model.

        Raises
        ------
        DataError
            On frames that cannot be used, each with its reason.
        """
        told = self.told
        rows = rows_to_predict(features, told["columns"], told["kind"], told["index"])
        data = rows.data(np.full(len(rows.session), -1, np.int8))
        scores = self.served.scores(data, np.arange(len(rows.session)))[:, 0]
        return _as_frame(features, rows, scores, told["index"])


def fit_frames(
    features: Mapping[str, Frame], targets: Mapping[str, Column], folder: Path, options: FrameOptions,
    how: FleetHow, *, fresh: bool = False, progress: Progress | None = None,
) -> FrameFleet:  # fmt: skip
    """Fit a fleet on frames, or go on with it: only symbols whose rows or settings changed are fitted again.

    What comes out is what these frames alone would have given: whose frame cannot be used, or has too few
    rows now, keeps no model of an earlier fit, and the summary says so.

    From the first fit on until the last the folder is no finished fleet: who loaded it before goes on, and
    :meth:`FrameFleet.load` refuses. What makes no sense is refused before that.

    Parameters
    ----------
    folder : Path
        Made where it is not.
    fresh : bool
        Begin anew, whatever is there.

    Raises
    ------
    UsageError
        On settings that make no sense.
    DataError
        When no symbol can be given a model; the reasons of all of them are in the summary.
    StoreBusyError
        When another process writes the folder.
    """
    progress, started = progress or Progress(enabled=False), time.perf_counter()
    rows = _checked(features, targets, options, progress)
    part, run = _lessons_of_all(rows, options), RunFolder(folder)
    with writer_lock(folder):
        known = [] if fresh else _known_before(run)
        (folder / SUMMARY_FILE).unlink(missing_ok=True)
        if fresh:
            shutil.rmtree(run.fleet, ignore_errors=True)
        before = {row.symbol: (row.finished_at, row.content) for row in known if row.status == "done"}
        had = _forget_others(run, rows, known, before)
        run.write(FLEET_FILE, {**to_plain(options), "columns": rows.columns, "kind": rows.kind})
        summary = partial(summary_of, run, rows, part.lessons.data, before, had, started)
        try:
            served = fit_lessons(options.config, part.lessons, run, progress, how).served
        except DataError:
            _keep_summary(run, summary(None), progress)
            raise
        _keep_summary(run, summary(judged_forecasts(part, served)), progress)
    return FrameFleet(folder, run.read(SUMMARY_FILE), run.read(FLEET_FILE), served)


def cross_validate_frames(
    features: Mapping[str, Frame], targets: Mapping[str, Column], options: FrameOptions, cut: CvOptions,
    how: FleetHow, *, folder: Path | None = None, progress: Progress | None = None,
) -> CrossValidation:  # fmt: skip
    """Judge a fleet of frames by purged folds; with a folder a call that was killed goes on.

    Raises
    ------
    UsageError
        On settings that make no sense, or folds that leave a part without a label.
    DataError
        When no symbol can be fitted in any fold.
    """
    progress = progress or Progress(enabled=False)
    rows = _checked(features, targets, options, progress)
    folds = cut_folds(len(rows.calendar), cut, options.label_sessions)
    asked = Folds(
        folds, cut.scheme, (options.label_sessions, 0), [str(key) for key in rows.calendar],
        lambda place: _lessons(rows, folds[place], options), rows.failures,
    )  # fmt: skip
    told = [rows.digest(), to_plain(options), [fold.plain() for fold in folds], how.limits.time_per_symbol]
    num_symbols = len(rows.symbols) + len(rows.failures)
    with _place_of(folder, f"cv-{digest(told)[:12]}") as place:
        found = cross_validate(place, asked, options.config, how, progress, num_symbols=num_symbols)
    return found if folder else replace(found, folder="")


@contextmanager
def _place_of(folder: Path | None, name: str) -> Iterator[Path]:
    """Give a folder inside another, or one that is gone afterwards."""
    if folder is None:
        with TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    with writer_lock(folder / name):
        yield folder / name


def _checked(
    features: Mapping[str, Frame], targets: Mapping[str, Column], options: FrameOptions, progress: Progress
) -> FrameRows:
    """Read the frames, refuse settings that no fit could read, and say who has no part in it."""
    rows = read_frames(features, targets, options.index)
    check_own_options(options.config, [*rows.symbols, *rows.failures], rows.columns, "features")
    progress.note(
        f"{counted(len(rows.symbols), 'symbol')}, {counted(len(rows.session), 'row')} of "
        f"{counted(len(rows.columns), 'column')}"
    )
    if rows.failures:
        told = [f"{symbol}: {reason}" for symbol, reason in rows.failures.items()]
        progress.note(f"{counted(len(told), 'symbol')} cannot be used: {some(told, '; ', 3)}")
    if rows.ignored:
        told = [f"{symbol}: {', '.join(names)}" for symbol, names in rows.ignored.items()]
        progress.note(f"columns that others do not have are left out: {some(told, '; ', 3)}")
    return rows


def _lessons_of_all(rows: FrameRows, options: FrameOptions) -> FoldLessons:
    """Return what a fleet is fitted on: the calendar cut once, where its last share begins to judge."""
    sessions, label = len(rows.calendar), options.label_sessions
    try:
        (fold,) = purged_folds(sessions, 1, label_sessions=label, train_share=1 - options.validation_share)
        return _lessons(rows, fold, options)
    except UsageError as error:  # it speaks of folds, which nobody asked for
        raise UsageError(
            f"{counted(sessions, 'session')} in the index are too few: labels of {counted(label, 'session')} "
            f"must teach, stop and weigh, and the last {options.validation_share:.0%} of all judge",
            "more history, a smaller `label_sessions`, or another `validation_share`",
        ) from error


def _lessons(rows: FrameRows, fold: Fold, options: FrameOptions) -> FoldLessons:
    """Return what a fold of the calendar is fitted on and judged by."""
    known_at = rows.known_at(options.label_sessions)
    data = rows.data(fold_segments(len(rows.calendar), fold, rows.session, known_at))
    # targets have no unit that we know: one width a symbol, and the mean of all is a member
    lessons = Lessons(
        data, rows.columns, "features", (options.label_sessions,), teaching_counts(data).astype(np.float64),
        (np.broadcast_to(1.0, rows.session.shape),), True,
    )  # fmt: skip
    return FoldLessons(lessons, rows.target[:, None], lambda weigh, scores: lambda given: given)


def _known_before(run: RunFolder) -> list[LedgerRow]:
    """Return what an earlier call knew; a ledger that cannot be written refuses here."""
    with Ledger.create(run.fleet / LEDGER) as ledger:
        return ledger.rows()


def _forget_others(
    run: RunFolder, rows: FrameRows, known: Sequence[LedgerRow], before: Before
) -> frozenset[str]:
    """Drop symbols that are not given any more, or cannot be used; return who had a model.

    That is kept until a summary says what became of them, through any kill.
    """
    symbols = set(rows.symbols)
    with Ledger.create(run.fleet / LEDGER) as ledger:
        had = frozenset({*before, *ledger.meta().get(_HAD, ())})
        with ledger.together():
            ledger.set_meta({_HAD: sorted(had)})
            ledger.forget([row.symbol for row in known if row.symbol not in symbols])
    return had


def _keep_summary(run: RunFolder, summary: dict[str, Any], progress: Progress) -> None:
    """Write how it went, and say whose models of an earlier fit are gone."""
    run.write(SUMMARY_FILE, summary)
    with Ledger.open(run.fleet / LEDGER, readonly=False) as ledger:
        ledger.set_meta({_HAD: []})
    if told := [f"{symbol}: {why}" for symbol, why in summary["dropped"].items()]:
        progress.note(f"{counted(len(told), 'model')} of an earlier fit dropped: {some(told, '; ', 3)}")


def _as_frame(
    features: Mapping[str, Frame], rows: FrameRows, scores: F64, index: str
) -> pd.DataFrame | pl.DataFrame:
    """Return the rows' forecasts (R,), a line for each entry of the calendar and a column for each symbol."""
    owner = np.repeat(np.arange(len(rows.symbols)), np.diff(rows.offsets))
    wide = np.full((len(rows.symbols), len(rows.calendar)), np.nan)
    wide[owner, rows.session] = scores
    line = {symbol: position for position, symbol in enumerate(rows.symbols)}
    columns = {name: wide[line[str(name)]] for name in features}
    labels = _labels({str(name): frame for name, frame in features.items()}, rows, index)
    if isinstance(next(iter(features.values())), pl.DataFrame):
        found = pl.DataFrame({index: labels, **{str(name): said for name, said in columns.items()}})
        if labels is rows.calendar and rows.kind == ZONED:
            found = found.with_columns(pl.col(index).dt.replace_time_zone("UTC"))
        return found.with_columns(pl.exclude(index).fill_nan(None))
    import pandas as pd  # the user brought it

    shown = pd.DataFrame(columns, labels)
    return shown.tz_localize("UTC") if labels is rows.calendar and rows.kind == ZONED else shown


def _labels(frames: Mapping[str, Any], rows: FrameRows, index: str) -> Any:
    """Return the calendar as the frames' indices say it; itself, where they say it in several types."""
    given: list[Any] = []
    for frame in (frames[symbol] for symbol in rows.symbols):
        is_column = isinstance(frame, pl.DataFrame)
        given.append(frame[index] if is_column else frame.set_index(index).index if index else frame.index)
    if len({(isinstance(each, pl.Series), str(each.dtype)) for each in given}) > 1:
        return rows.calendar
    _, first = np.unique(rows.session, return_index=True)  # every entry has a row
    if isinstance(given[0], pl.Series):
        return pl.concat(given).gather(first)
    return given[0].append(given[1:]).take(first)
