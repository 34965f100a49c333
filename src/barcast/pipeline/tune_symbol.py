"""``barcast tune --symbol``: search options of one symbol's own model by its score on its own `stop` rows.

::

    runs/search-<model>-<symbol>-<id>/
        study.db     every trial, from the moment it begins
        tune.json    what was searched, every trial, the best beside the default, and how much is noise

One symbol has few rows: most gains of a search are the luck of the best of many. Options are suggested only
where the gain is beyond what that many trials, these few blocks of sessions and other seeds would give.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.atomic import write_json
from barcast.core.config import to_plain
from barcast.core.durations import minutes_of
from barcast.core.errors import DataError, RunError, UsageError
from barcast.core.lock import writer_lock
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, command_line, run_identity
from barcast.core.workspace import Workspace
from barcast.models.registry import model_entry
from barcast.pipeline.dataset import build_dataset, resolve_features
from barcast.pipeline.fleet_engine import engine_of
from barcast.pipeline.fleet_lessons import Lessons, lessons_of
from barcast.pipeline.fleet_rows import rows_for_workers
from barcast.pipeline.fleet_universal import is_residual
from barcast.pipeline.market import Market, load_market
from barcast.pipeline.search import Search, run_serial
from barcast.pipeline.searched import SEARCH_KEY, stop_known
from barcast.pipeline.settings import RunConfig, resolve
from barcast.pipeline.symbol_bench import Gain, SymbolBench
from barcast.pipeline.symbol_file import check_mergeable, merge_own, toml_of
from barcast.pipeline.symbol_space import own_table, symbol_space
from barcast.pipeline.train import in_one_spelling
from barcast.store import MarketStore
from barcast.tuning.space import Space
from barcast.tuning.study import COMPLETE, TrialRecord, check_optuna, open_study

DEFAULT_MODEL = "fleet-trees"


@dataclass(frozen=True)
class SymbolTuning:
    """What a search for one symbol ends with.

    Attributes
    ----------
    path : Path
        Its folder.
    model, symbol : str
    trials : tuple of TrialRecord
        Every trial that has begun.
    best : TrialRecord
        The one with the best score on `stop`.
    gain : Gain
        The best beside the default, and the noise of that.
    until : str
        When the last label of `stop` became known.
    own : dict
        The best as a table of ``--symbol-config``, with the search that chose it.
    seconds : float
        Wall time of this call.
    written : str
        The file that has it now; empty where nothing is suggested, or no file was named.
    """

    path: Path
    model: str
    symbol: str
    trials: tuple[TrialRecord, ...]
    best: TrialRecord
    gain: Gain
    until: str
    own: dict[str, Any]
    seconds: float
    written: str = ""

    @property
    def num_trials(self) -> int:
        """How many candidates were looked at: the number that goes with every later score."""
        return sum(record.is_tried for record in self.trials)

    @property
    def toml(self) -> str:
        """The best as text for a file of ``--symbol-config``."""
        return toml_of(self.symbol, self.own)

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "tune": self.path.name,
            "folder": str(self.path),
            "model": self.model,
            "symbol": self.symbol,
            "num_trials": self.num_trials,
            "best": to_plain(self.best),
            **{name: value for name, value in self.gain.plain().items() if name != "best"},
            "suggested": self.own if self.gain.is_real else None,
            "trials": to_plain(self.trials),
            "until": self.until,
            "written": self.written,
            "seconds": round(self.seconds, 3),
        }


def tune_symbol(
    workspace: Workspace,
    symbol: str,
    model: str = DEFAULT_MODEL,
    flags: Mapping[str, Any] | None = None,
    file: Path | None = None,
    space_file: Path | None = None,
    *,
    trials: int = 30,
    minutes: float | str | None = None,
    write: Path | None = None,
    progress: Progress | None = None,
) -> SymbolTuning:
    """Search until so many trials are done; the same search goes on where it stopped.

    Parameters
    ----------
    symbol : str
        In any spelling.
    model : str
        ``fleet-trees``, ``fleet-lstm`` or ``fleet-gru``.
    flags : mapping, optional
        Options of the fleet; those of a network that are given leave the space.
    space_file : Path, optional
        TOML file of what varies.
    trials : int
        Candidates in all, those of earlier calls included.
    minutes : float, optional
        No trial begins later than so many minutes after this call.
    write : Path, optional
        File of ``--symbol-config`` that gets the best, where its gain is beyond noise.

    Raises
    ------
    UsageError
        On options that make no sense, or a file whose options of the symbol somebody wrote by hand.
    DataError
        When the symbol has not the rows for a model of its own.
    RunError
        When no trial has a score.
    """
    started, progress = time.monotonic(), progress or Progress(enabled=False)
    check_optuna()
    minutes = minutes_of(minutes, "time_budget")
    if trials < 1:
        raise UsageError("`trials` is at least 1", "--trials 30")
    ready = ready_to_search(workspace, symbol, model, flags, file, space_file, progress)
    if write is not None:
        check_mergeable(workspace, write, ready.symbol)
    path = workspace.runs / ready.name(workspace)
    with writer_lock(path), rows_for_workers(ready.lessons.data, path / "rows") as rows:
        bench = SymbolBench(ready.config, ready.lessons, rows, RunFolder(path))
        default = bench.outputs({})
        progress.note(f"{ready.symbol}: the default scores {bench.score(default):+.4f} on `stop`")
        records = _search(path, ready, bench, trials, minutes, progress)
        best = _best(path.name, records)
        own = own_table(best.options)
        num_trials = sum(record.is_tried for record in records)
        gain = bench.against(default, bench.outputs(own), num_trials)
        shutil.rmtree(RunFolder(path).fleet, ignore_errors=True)
        until = stop_known(ready.market)
        own[SEARCH_KEY] = {
            "model": model, "preset": ready.config.options.preset, "run": path.name, "trials": num_trials,
            "until": until,
        }  # fmt: skip
        if write is not None and gain.is_real:
            merge_own(workspace, write, ready.symbol, own)
        found = SymbolTuning(
            path, model, ready.symbol, records, best, gain, until, own, time.monotonic() - started,
            str(write) if write is not None and gain.is_real else "",
        )  # fmt: skip
        write_json(path / "tune.json", {**ready.facts(), **found.plain()})
    return found


@dataclass(frozen=True)
class Ready:
    """One symbol's rows and what may vary, before a search begins."""

    config: RunConfig
    market: Market
    symbol: str
    lessons: Lessons
    space: Space

    def name(self, workspace: Workspace) -> str:
        """Return the folder's name: what is searched, on which rows, decide it; not for how long."""
        asked = {
            "config": in_one_spelling(self.config, self.market).identity(),
            "symbol": self.symbol,
            "space": self.space.plain(),
            "features_code": resolve_features(workspace, self.config.data.features).code_digest(),
        }
        identity = run_identity(asked, self.market.cutoff, self.market.data_digest)
        return f"search-{self.config.model}-{self.symbol}-{identity[:12]}"

    def facts(self) -> dict[str, Any]:
        """Return what tune.json says of the question."""
        return {
            "command": command_line(),
            "config": self.config.plain(),
            "space": self.space.plain(),
            "cutoff": self.market.cutoff,
            "data_key": self.market.data_key,
            "label_key": self.market.label_key,
            "store_version": self.market.store_version,
        }


def ready_to_search(
    workspace: Workspace, symbol: str, model: str, flags: Mapping[str, Any] | None, file: Path | None,
    space_file: Path | None, progress: Progress,
) -> Ready:  # fmt: skip
    """Read what a search begins with; nothing is fitted. Errors as :func:`tune_symbol`."""
    if model_entry(model).kind != "fleet":
        raise UsageError(
            f"--symbol searches a model of one symbol's own, and `{model}` is none",
            f"barcast tune --symbol {symbol} fleet-trees, fleet-lstm or fleet-gru",
        )
    config = resolve(workspace, model, flags, file)
    if is_residual(config):
        raise UsageError("--symbol searches models that learn the target itself", "leave out --on residual")
    if config.options.preset == "auto":
        raise UsageError("--symbol searches around one preset", "name it: --preset 64")
    (canonical,) = MarketStore.open(workspace.market).resolve((symbol,))
    progress.note("reading the store, checking bars, making labels")
    market = load_market(workspace, config.data)
    lessons = _lessons(workspace, config, market, canonical)
    given = {name for name, value in (flags or {}).items() if value is not None} - {"features"}
    space = symbol_space(config, lessons.data.one(0), lessons.columns, given, space_file)
    return Ready(config, market, canonical, lessons, space)


def _lessons(workspace: Workspace, config: RunConfig, market: Market, symbol: str) -> Lessons:
    """Return the symbol's rows, made as for a fleet of the whole market."""
    if symbol not in market.bars.symbols:
        raise DataError(f"{symbol} has no usable bar", f"barcast data check --symbols {symbol}")
    features = resolve_features(workspace, config.data.features)
    dataset = build_dataset(market, workspace, features, tabular=True)
    position = np.array([market.bars.symbols.index(symbol)])
    lessons = lessons_of(dataset).of_symbols(position)
    engine = engine_of(config.model)
    if reason := engine.too_short(lessons.data, config.options, {}, refits=False).get(symbol):
        raise DataError(
            f"{symbol} gets no model of its own: {reason}",
            f"the universal model serves it; or a smaller min_rows in [{config.model}] of barcast.toml",
        )
    return lessons


def _search(
    path: Path, ready: Ready, bench: SymbolBench, trials: int, minutes: float | None, progress: Progress
) -> tuple[TrialRecord, ...]:
    deadline = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    with open_study(path / "study.db", path.name, ready.space, ready.config.seed, warmup=1) as study:
        study.begin({})
        run_serial(Search(path, study, {"threads": 0}, trials, deadline, progress), bench)
        return study.trials()


def _best(name: str, records: Sequence[TrialRecord]) -> TrialRecord:
    done = [record for record in records if record.state == COMPLETE and record.score is not None]
    if not done:
        reasons = [record.reason for record in records if record.reason]
        said = f"; the last said: {reasons[-1]}" if reasons else ""
        raise RunError(f"`{name}`: none of {len(records)} trials has a score{said}", "another --space")
    return max(done, key=lambda record: record.score or 0.0)
