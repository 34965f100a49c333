"""Tables that stand beside the bars, added without any bar: status and facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl

from barcast.core.lock import writer_lock
from barcast.pipeline.data_results import StatusResult
from barcast.pipeline.ingest import Place, find_workspace
from barcast.store import MarketStore
from barcast.store.facts import join_facts, read_facts
from barcast.store.status import join_status, read_status

Table = Path | str | pl.DataFrame


def add_status(workspace: Place, status: Table, *, replace_all: bool = False) -> StatusResult:
    """Add listings, delistings, suspensions and ST spells to a store, without any bar.

    The same symbol, kind and start is the same fact, told anew. With ``replace_all`` the table given takes
    the place of the stored one, so that a wrong fact can go; older versions keep theirs.

    Raises
    ------
    StoreError
        When there is no store.
    DataError
        When the store is empty, or the table cannot be read, with the first such rows.
    """
    store = MarketStore.open(find_workspace(workspace).market)
    given = read_status(status, store.meta.market)
    return _add(store, "status", given, store.status, join_status, replace_all)


def add_facts(workspace: Place, facts: Table, *, replace_all: bool = False) -> StatusResult:
    """Add what is known about symbols (name, industry, other columns) to a store, without any bar.

    Rows whose symbol cannot be read are left out and told in ``left_out``. A value told anew wins; with
    ``replace_all`` the table given takes the place of the stored one.

    Raises
    ------
    StoreError, DataError
        As for `add_status`.
    """
    store = MarketStore.open(find_workspace(workspace).market)
    told = read_facts(facts, store.meta.market)
    added = _add(store, "facts", told.facts, store.facts, join_facts, replace_all)
    return replace(added, left_out=told.left_out)


def store_facts(workspace: Place, version: int | None = None) -> pl.DataFrame:
    """Return what is on record about symbols."""
    return MarketStore.open(find_workspace(workspace).market).facts(version)


def _add(
    store: MarketStore, name: str, given: pl.DataFrame, stored: Callable[[], pl.DataFrame],
    join: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame], replace_all: bool,
) -> StatusResult:  # fmt: skip
    with writer_lock(store.path):
        version = store.version
        beside = {name: given if replace_all else join(stored(), given)}
        published = store.beside.differ(version, beside)
        if published:
            note = {"verb": name, "num_read": len(given), "replaced": replace_all}
            version = store.publish(store.table.empty(), note, periods=(), beside=beside)
    return StatusResult(
        store=str(store.path),
        version=version,
        published=published,
        num_given=len(given),
        num_facts=len(beside[name]),
        not_stored=tuple(sorted(set(given["symbol"]) - set(store.symbols(version)))),
    )
