"""``barcast fleet cv``: how a fleet of a preset does on a market, by purged folds in order of time.

Folds lie in the sessions before `route`: a label that is known only later neither teaches nor judges, so
neither `route` nor `test` is spent on choosing. Inside a fold everything is as in a fleet: `fit`, `stop` and
`weigh` share what comes before the rows that judge, and what is normalised as fitted is fitted on `fit` anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np

from barcast.core.arrays import F64, I64
from barcast.core.calendar import Calendar
from barcast.core.config import digest
from barcast.core.errors import UsageError
from barcast.core.lock import writer_lock
from barcast.core.progress import Progress
from barcast.core.texts import counted
from barcast.core.workspace import Workspace
from barcast.models.registry import model_entry
from barcast.pipeline.dataset import Dataset, build_dataset, recut
from barcast.pipeline.fleet import FleetHow, check_options
from barcast.pipeline.fleet_folds import CrossValidation, Expected, FoldLessons, Folds, cross_validate
from barcast.pipeline.fleet_lessons import lessons_of
from barcast.pipeline.fleet_universal import is_residual
from barcast.pipeline.forecast import fit_maps
from barcast.pipeline.market import known_at_of
from barcast.pipeline.searched import refuse_search_after
from barcast.pipeline.settings import RunConfig
from barcast.pipeline.train import identity_of, prepare
from barcast.splits import Fold, fold_segments, purged_folds
from barcast.splits.cross_validation import Scheme
from barcast.store import MarketStore


@dataclass(frozen=True, kw_only=True)
class CvOptions:
    """How sessions are cut.

    Attributes
    ----------
    folds : int
    scheme : str
        ``expanding``: a fold learns from all that came before; ``rolling``: from as many days as the first.
    embargo : int
        Sessions left out between the last label that teaches and the first decision that is judged.
    train_share : float
        Share of the sessions before the first that is judged.
    """

    folds: int = 5
    scheme: str = "expanding"
    embargo: int = 0
    train_share: float = 0.5


def fleet_cross_validation(
    workspace: Workspace, config: RunConfig, options: CvOptions, *, symbols: Sequence[str] = (),
    limit: int = 0, how: FleetHow | None = None, progress: Progress | None = None,
) -> CrossValidation:  # fmt: skip
    """Fit and judge a fleet on purged folds of the sessions before `route`; the same call goes on.

    Parameters
    ----------
    config : RunConfig
        Of a fleet, over the whole market: inputs are compared within its sessions whoever is fitted.
    symbols : sequence of str
        Who is fitted, in any spelling; none named: everybody.
    limit : int
        Only so many of them, drawn by the seed; 0: all.

    Raises
    ------
    UsageError
        On a model that is no fleet, or a residual one, a width that is not chosen yet, or folds that leave a
        part without a label.
    RunError
        When a search chose options by labels of sessions that are judged.
    DataError
        When no symbol can be fitted in any fold.
    """
    progress = progress or Progress(enabled=False)
    _check_asked(config)
    ready = prepare(workspace, config, progress=progress)
    config, market = ready.config, ready.market
    span = (market.plan.first, market.plan.spans["weigh"][1])
    cut = cut_folds(market.bars.calendar, options, market.labels.spec.label_sessions, span)
    refuse_search_after(
        config.tuned, market.bars.calendar.times[cut[0].validation[0]], "folds judge from",
        "options that no search chose, or one that ended before: barcast tune with an earlier --asof",
    )  # fmt: skip
    wanted = MarketStore.open(workspace.market).resolve(symbols) if symbols else ()
    chosen = _drawn(market.bars.symbols, wanted, limit, config.seed)
    dataset = build_dataset(market, workspace, ready.features, tabular=True)
    check_options(config, dataset)
    identity = identity_of(config.identity(), market, ready.features, {}, None)
    spec = market.labels.spec
    name = digest([identity, [fold.plain() for fold in cut], [market.bars.symbols[each] for each in chosen]])
    asked = Folds(
        cut, options.scheme, (max(spec.horizons), spec.delay),
        [str(time) for time in market.bars.calendar.times],
        lambda place: _lessons(workspace, dataset, cut[place], chosen),
    )  # fmt: skip
    folder = workspace.runs / f"cv-{name[:12]}"
    progress.note(f"{counted(len(cut), 'fold')} of {counted(len(chosen), 'symbol')}, in {folder}")
    with writer_lock(folder):
        return cross_validate(folder, asked, config, how or FleetHow(), progress, num_symbols=len(chosen))


def _check_asked(config: RunConfig) -> None:
    """Refuse what cannot be cut into folds, before anything is read."""
    if model_entry(config.model).kind != "fleet":
        raise UsageError(f"`{config.model}` is no fleet", "barcast fleet cv --kind trees")
    if is_residual(config):
        raise UsageError(
            "a residual fleet cannot be cut into folds: the universal run that it leans on knows them all",
            "on=target; `barcast compare` judges a residual fleet on `route`",
        )
    if config.options.preset == "auto":
        raise UsageError(
            "--preset auto chooses the width on `stop`, whose sessions folds judge", "name it: --preset 64"
        )


def cut_folds(
    sessions: Calendar | int, options: CvOptions, label_sessions: int, span: tuple[int, int] | None = None
) -> tuple[Fold, ...]:
    """Cut sessions, or a span of them, as the options say."""
    return purged_folds(
        sessions, options.folds, label_sessions=label_sessions, scheme=cast(Scheme, options.scheme),
        embargo=options.embargo, train_share=options.train_share, span=span,
    )  # fmt: skip


def _drawn(known: Sequence[str], wanted: Sequence[str], limit: int, seed: int) -> I64:
    """Return who is fitted, by position, ascending; symbols that have no bar left are passed over."""
    places = {symbol: position for position, symbol in enumerate(known)}
    among = np.array(sorted(places[each] for each in wanted or known if each in places), np.int64)
    if not limit or limit >= len(among):
        return among
    return np.sort(np.random.default_rng(seed).choice(among, limit, replace=False))


def _lessons(workspace: Workspace, dataset: Dataset, fold: Fold, chosen: I64) -> FoldLessons:
    """Return what a fold is fitted on: of the chosen symbols, normalised with all of them."""
    bars, labels = dataset.market.bars, dataset.market.labels
    segment = fold_segments(bars.calendar, fold, bars.session, known_at_of(labels))
    cut = recut(dataset, workspace, segment)
    lessons = lessons_of(cut)
    rows = lessons.rows_of(chosen)
    return FoldLessons(lessons.of_symbols(chosen), labels.y[rows], partial(_expected, cut, rows))


def _expected(dataset: Dataset, rows: I64, weigh: I64, scores: F64) -> Expected:
    """Return how scores become expected returns: by the maps that rows of `weigh` allow, as in a run."""
    known = np.isfinite(scores).all(axis=1)
    maps = fit_maps(dataset.market, rows[weigh[known]], scores[known], dataset.target_name)
    return lambda given: np.stack([each.y_hat(given[:, h]) for h, each in enumerate(maps)], axis=1)
