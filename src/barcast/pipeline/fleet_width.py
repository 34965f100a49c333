"""``--preset auto``: one width for all networks of a fleet, chosen on `stop` by a sample of its symbols.

Each rung of the ladder trains the same symbols as the fleet would, and the narrowest that no wider one
clearly beats is taken. The choice is kept in the workspace's cache, so that a fleet goes on with it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.arrays import I64
from barcast.core.atomic import read_json, write_json
from barcast.core.config import digest
from barcast.core.errors import DataError, UsageError
from barcast.core.lock import writer_lock
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.features import FeatureSet
from barcast.fleet.networks.ladder import WidthChoice, choose_width
from barcast.fleet.networks.presets import presets
from barcast.pipeline.chosen import Sized
from barcast.pipeline.dataset import build_dataset
from barcast.pipeline.fleet_lessons import Lessons, lessons_of
from barcast.pipeline.fleet_networks import NETWORKS, Networks
from barcast.pipeline.fleet_rows import rows_for_workers, teaching_counts
from barcast.pipeline.fleet_universal import is_residual
from barcast.pipeline.market import Market
from barcast.pipeline.searched import stop_known
from barcast.pipeline.settings import RunConfig

AUTO = "auto"
#: How the choice is called where a search would be named.
PRESET_AUTO = f"--preset {AUTO}"
#: Symbols of the sample: enough that a standard error means something, few enough for the widest rung.
SAMPLE = 24


def with_width(
    workspace: Workspace, config: RunConfig, market: Market, features: FeatureSet, progress: Progress, *,
    compare: bool,
) -> RunConfig:  # fmt: skip
    """Return the config of a fleet with the preset that `stop` chose, where ``auto`` was asked for.

    Parameters
    ----------
    compare : bool
        Whether widths are compared where that was not done yet; else the widest stands for the choice.

    Raises
    ------
    UsageError
        Beside a width or depth, or of a residual fleet, whose targets are not there before it begins.
    DataError
        When no symbol has the rows for a network of its own.
    RunError
        When no symbol of the sample can be trained at every width.
    """
    if config.model not in NETWORKS or config.options.preset != AUTO:
        return config
    if config.options.hidden_size or config.options.num_layers:
        raise UsageError(
            f"{PRESET_AUTO} chooses the width", "leave --hidden-size and --num-layers out, or name a preset"
        )
    if is_residual(config):
        raise UsageError(f"{PRESET_AUTO} beside --on residual", "name a preset: --preset 64")
    told = {**config.identity(), "data": market.data_digest, "code": features.code_digest()}
    folder = workspace.cache / "widths" / f"{config.model}-{digest([told, market.cutoff, SAMPLE])[:12]}"
    with writer_lock(folder), progress.about(f"{PRESET_AUTO}: "):
        choice = _known(folder / "width.json")
        if choice is None and not compare:
            widest = _short(list(presets(NETWORKS[config.model].kind))[-1])
            progress.note(f"training compares widths on `stop` first; this is for the widest, {widest}")
            return replace(config, options=replace(config.options, preset=widest))
        if choice is None:
            choice = _choose(workspace, config, market, features, folder, progress)
            write_json(folder / "width.json", _plain(choice))
        sized = _sized(choice, stop_known(market))
        for reason in sized.reasons:
            progress.note(reason)
    return replace(
        config, options=replace(config.options, **sized.options), sized=sized,
        tuned=sized.beside(config.tuned, config.model),
    )  # fmt: skip


def _choose(
    workspace: Workspace, config: RunConfig, market: Market, features: FeatureSet, folder: Path,
    progress: Progress,
) -> WidthChoice:  # fmt: skip
    engine = NETWORKS[config.model]
    dataset = build_dataset(market, workspace, features, tabular=True)
    # any rung tells what a network needs: they differ in width alone
    rungs = list(presets(engine.kind))
    named = replace(config, options=replace(config.options, preset=_short(rungs[0])))
    lessons = _sample(engine, named, lessons_of(dataset))
    symbols = range(len(lessons.data.symbols))
    progress.note(f"{len(symbols)} symbols at each of {', '.join(map(_short, rungs))}, judged on `stop`")
    with rows_for_workers(lessons.data, folder / "rows") as rows:
        fit = engine.source(named, rows, RunFolder(folder), in_workers=False).make()
        choice = choose_width(fit, lessons.data, symbols, rungs)
    shutil.rmtree(RunFolder(folder).fleet, ignore_errors=True)  # half-trained networks
    return choice


def _sample(engine: Networks, config: RunConfig, lessons: Lessons) -> Lessons:
    """Return symbols at even distances by the length of their histories, of those that get a network."""
    short = engine.too_short(lessons.data, config.options, {}, refits=False)
    able: I64 = np.array([p for p, name in enumerate(lessons.data.symbols) if name not in short], np.int64)
    if not len(able):
        raise DataError(
            f"no symbol has the rows for a network of its own: {next(iter(short.values()))}",
            "more history, or a smaller --min-rows",
        )
    by_length = able[np.argsort(teaching_counts(lessons.data)[able], kind="stable")]
    places = np.unique(np.linspace(0, len(able) - 1, min(SAMPLE, len(able))).round().astype(int))
    return lessons.of_symbols(np.sort(by_length[places]))


def _sized(choice: WidthChoice, until: str) -> Sized:
    reasons = tuple(
        f"{_short(rung)}: R2 {score:+.4f} on `stop`, a mean of {choice.num_symbols} symbols"
        + (": the narrowest that none clearly beats" if rung == choice.preset else "")
        for rung, score in choice.scores.items()
    )
    preset = _short(choice.preset)
    return Sized(
        size=preset, options={"preset": preset}, candidates=tuple(map(_short, choice.scores)),
        num_compared=len(choice.scores), until=until, reasons=reasons, by=PRESET_AUTO,
    )  # fmt: skip


def _short(rung: str) -> str:
    """Return a rung as users name it."""
    return rung.partition("-")[2]


def _plain(choice: WidthChoice) -> dict[str, Any]:
    return {"preset": choice.preset, "scores": dict(choice.scores), "num_symbols": choice.num_symbols}


def _known(file: Path) -> WidthChoice | None:
    """Return what was chosen before; None where there is nothing, or nothing whole."""
    try:
        return WidthChoice(**read_json(file))
    except (OSError, ValueError, TypeError):
        return None
