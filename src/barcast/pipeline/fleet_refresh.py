"""``barcast fleet refresh``: some symbols are fitted again on everything known now, the others stay.

What comes out is a refit of the same evaluation: a run without scores of its own. An evaluation could not be
refreshed honestly: whoever names symbols by what their models did of late has looked at the rows that were to
judge the new ones. The inputs that models taken over read are normalised as they learned them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from barcast.core.config import to_plain
from barcast.core.errors import RunError, UsageError
from barcast.core.lock import writer_lock
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, open_run, run_folder
from barcast.core.texts import some
from barcast.core.workspace import Workspace
from barcast.features import FeatureSet
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.models.registry import model_entry
from barcast.pipeline.dataset import Dataset, build_dataset, make_panel, normalised, run_features
from barcast.pipeline.fit import check_fits, fit_model
from barcast.pipeline.fleet import FleetHow
from barcast.pipeline.fleet_decay import FleetDecay, fleet_decay, stored_fleet
from barcast.pipeline.fleet_origins import Origin, origins, with_origin
from barcast.pipeline.fleet_taken import bring
from barcast.pipeline.fleet_takes import recorded_how
from barcast.pipeline.fleet_universal import refuse_residual
from barcast.pipeline.market import Market
from barcast.pipeline.record import (
    OLDEST,
    begin,
    check_known_by,
    check_market,
    finish,
    known_until,
    load_maps,
    oldest_taught_until,
    save_state,
)
from barcast.pipeline.settings import from_run
from barcast.pipeline.train import identity_of, in_one_spelling, refitted_market
from barcast.pipeline.unfinished import failure_recorded
from barcast.store import MarketStore
from barcast.windows.normalise import FittedScaler


@dataclass(frozen=True)
class Refreshed:
    """What refreshing a fleet came to.

    Attributes
    ----------
    run : str
        The new run; the old one where nobody was to be fitted again.
    of : str
        The fleet whose models were taken over.
    fitted : tuple of str
        Who was fitted again.
    not_fitted : mapping of str to str
        Who was to be and has no model now, and why.
    num_taken_over : int
    oldest_taught_until : str
        When the last label became known that taught the oldest model of the new run; empty where there is
        no new run.
    """

    run: str
    of: str
    fitted: tuple[str, ...]
    not_fitted: Mapping[str, str]
    num_taken_over: int
    oldest_taught_until: str = ""

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def fleet_refresh(
    workspace: Workspace, symbols: Sequence[str] = (), name: str = "", *, named: bool = False,
    how: FleetHow | None = None, workers: int | None = None, progress: Progress | None = None,
) -> Refreshed:  # fmt: skip
    """Fit some symbols of a fleet again on everything known now; make a refit that takes over the others.

    Parameters
    ----------
    symbols : sequence of str
        In any spelling.
    name : str
        A fleet; by default the newest, or its refit where it serves by one.
    named : bool
        Also those whose models decayed (`fleet_decay`).
    how : FleetHow, optional
        What the fits may take; by default what those of the evaluation might.
    workers : int, optional
        Without ``how``: other workers than the evaluation had.

    Raises
    ------
    UsageError
        When nobody is to be fitted again, or somebody who had no model in the evaluation.
    RunError
        When the models could not be taken over as they are: other features, another kind of universe; or
        when the store knows nothing that those of the named symbols do not.
    """
    progress = progress or Progress(enabled=False)
    if not symbols and not named:
        raise UsageError("nobody is named to be fitted again", "barcast fleet refresh SYMBOL..., or --named")
    run = stored_fleet(workspace, name)
    check_market(workspace, run)
    refuse_residual(run, f"barcast train --refit {run.info.get('parent', run.name)} fits all of it again")
    wanted = set(MarketStore.open(workspace.market).resolve(symbols)) if symbols else set()
    decay = fleet_decay(workspace, run.name, progress=progress) if named else None
    wanted |= set(decay.named()) if decay else set()
    if not wanted:
        return Refreshed(run.name, run.name, (), {}, 0)
    evaluated = open_run(workspace, str(run.info.get("parent", run.name)))
    how = how or recorded_how(evaluated, workers)
    return _refresh(workspace, run, evaluated, sorted(wanted), decay, how, progress)


def _refresh(
    workspace: Workspace, run: RunFolder, evaluated: RunFolder, symbols: Sequence[str],
    decay: FleetDecay | None, how: FleetHow, progress: Progress,
) -> Refreshed:  # fmt: skip
    started = time.perf_counter()
    _check_evaluated(evaluated, symbols)
    config = from_run(run.read("config.json"))
    market = refitted_market(workspace, evaluated, config)
    config, features = in_one_spelling(config, market), run_features(run, config.data.features)
    _check_takes_over(workspace, run, market, features, symbols)
    what = {"final_of": evaluated.info["id"], "refreshed": [run.info["id"], list(symbols)]}
    identity = identity_of({**config.identity(), **what}, market, features, {}, None)
    new = run_folder(workspace, f"{config.model}-final", identity)
    if new.is_done:
        progress.note(f"{new.name} is there already")
        return _refreshed(new, run, symbols)
    dataset = _dataset(workspace, run, market, features, symbols)
    entry = model_entry(config.model)
    check_fits(entry, config, dataset)
    with writer_lock(new.path), failure_recorded(new):
        facts = {"final": True, "parent": evaluated.name, "refreshed_from": run.name}
        new = begin(workspace, config, identity, dataset, fresh=False, **facts)
        taken = _take_over(run, new, set(symbols), market.bars.symbols)
        progress.note(f"{len(taken):,} models taken over from {run.name}, {len(symbols):,} to fit again")
        if taken:
            new.update(**{OLDEST: min(origin.taught_until for origin in taken)})
        outcome = fit_model(
            entry, config, dataset, new, progress, parent=evaluated,
            fleet=replace(how, only=frozenset(symbols)),
        )  # fmt: skip
        save_state(new, dataset, load_maps(evaluated))
        known = (known_until(run), known_until(evaluated), decay.until if decay else "")
        finish(
            new, dataset, outcome.facts, started, chosen_until=max(known),
            taught_before=run.info["taught_until"], num_taken_over=len(taken),
        )  # fmt: skip
    return _refreshed(new, run, symbols)


def _check_evaluated(evaluated: RunFolder, symbols: Sequence[str]) -> None:
    """Refuse symbols of which no evaluation says what preset, rounds and weights they need."""
    with Ledger.open(evaluated.fleet / LEDGER) as ledger:
        known = {row.symbol for row in ledger.rows(status=["done"])}
    if strange := [symbol for symbol in symbols if symbol not in known]:
        raise UsageError(
            f"{some(strange)} had no model of their own in `{evaluated.name}`",
            "a new fleet gives them one where they have the rows: barcast fleet trees",
        )


def _check_takes_over(
    workspace: Workspace, run: RunFolder, market: Market, features: FeatureSet, symbols: Sequence[str]
) -> None:
    """Refuse where stored models would read other inputs than they learned, or nothing is new to these."""
    check_known_by(workspace, run, market.cutoff)
    info = run.info
    if not _not_up_to_date(run, market, symbols):
        raise RunError(
            f"`{run.name}` knows all that the store does of {some(symbols)}", "barcast data update FILES"
        )
    again = "barcast train --refit fits everybody again"
    if info["features_code"] != features.code_digest():
        raise RunError(f"features `{features.name}` are computed otherwise than for `{run.name}`", again)
    if bool(info["small_universe"]) != market.small_universe:
        raise RunError(
            f"inputs and target of `{run.name}` are made otherwise: it is of a "
            f"{'small' if info['small_universe'] else 'large'} universe, the store's is no longer",
            again,
        )


def _not_up_to_date(run: RunFolder, market: Market, symbols: Sequence[str]) -> set[str]:
    """Return which symbols have no model that a refit taught all that the market holds."""
    with Ledger.open(run.fleet / LEDGER) as ledger:
        known = origins(run, ledger.rows(status=["done"]))
    evaluated = run.info.get("parent", run.name)
    return {
        symbol
        for symbol in symbols
        if symbol not in known or known[symbol].run == evaluated or known[symbol].data_key != market.data_key
    }


def _dataset(
    workspace: Workspace, run: RunFolder, market: Market, features: FeatureSet, symbols: Sequence[str]
) -> Dataset:
    """Return the rows of everything known, of which only those of the symbols teach."""
    dataset = build_dataset(market, workspace, features, tabular=True, final=True)
    bars, told = market.bars, run.read("state.json")["scaler"]
    wanted = np.isin(np.array(bars.symbols), np.array(symbols))
    dataset = replace(dataset, teach=dataset.teach & wanted[bars.symbol_of_row])
    if told is None:
        return dataset
    scaler = FittedScaler(np.array(told["mean"]), np.array(told["std"]))
    panel = make_panel(bars, features, workspace, market.data_digest)
    everyone = np.ones(bars.num_symbols, bool)
    return replace(dataset, scaler=scaler, inputs=normalised(panel, bars, features, scaler, everyone))


def _take_over(run: RunFolder, new: RunFolder, again: set[str], symbols: Sequence[str]) -> list[Origin]:
    """Bring what an old ledger says of everybody else, models included; return where each model comes from.

    What an interrupted call brought is there whole, and stays.
    """
    places = {symbol: position for position, symbol in enumerate(symbols)}
    opened = Ledger.open(run.fleet / LEDGER)
    with opened as old, old.unchanging(), Ledger.create(new.fleet / LEDGER) as ledger:
        here = {row.symbol for row in ledger.rows()}
        rows = [row for row in old.rows() if row.symbol in places and row.symbol not in again]
        missing = [row for row in rows if row.symbol not in here]
        from_where = origins(run, rows)
        bring(old, ledger, missing, places, lambda row: with_origin(row, from_where[row.symbol]))
        return [from_where[row.symbol] for row in rows if row.status == "done"]


def _refreshed(new: RunFolder, run: RunFolder, symbols: Sequence[str]) -> Refreshed:
    with Ledger.open(new.fleet / LEDGER) as ledger:
        rows = [ledger.row(symbol) for symbol in symbols]
    return Refreshed(
        new.name, run.name, tuple(row.symbol for row in rows if row.status == "done"),
        {row.symbol: row.reason for row in rows if row.status != "done"}, int(new.info["num_taken_over"]),
        oldest_taught_until(new),
    )  # fmt: skip
