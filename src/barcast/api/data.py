"""The store in Python: bars in, checks, facts, features and what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barcast.api.checked import checked
from barcast.api.places import Names, Place, place_of, symbols_of
from barcast.core.progress import Progress

if TYPE_CHECKING:
    import polars as pl

    from barcast.features import FeatureSet
    from barcast.pipeline.data_results import ExportResult, ImportResult, StatusResult
    from barcast.quality import QualityReport
    from barcast.store import Compaction, StoreInfo


@checked
def import_data(
    given: Any,
    *,
    workspace: Place = None,
    replace: bool = False,
    status: Path | str | pl.DataFrame | None = None,
    progress: bool = False,
    **declared: Any,
) -> ImportResult:
    """Bring bars into the workspace's store.

    Parameters
    ----------
    given : path, list of paths, frame, or dict of frames
        Files or folders of CSV or Parquet; a pandas or polars frame; or frames by symbol.
    replace : bool
        Replace what the store holds; older versions stay readable.
    status : path or polars frame, optional
        Listings, delistings, suspensions and ST spells.
    **declared
        What is known about the source: ``market``, ``basis``, ``volume_unit``, ``frequency``, ``tz``,
        ``stamp`` and the other fields of `ImportOptions`.
    """
    from barcast.pipeline.data import import_data as run
    from barcast.sources.options import ImportOptions

    said = ImportOptions(**declared)
    return run(
        place_of(workspace), given, said, replace_all=replace, status=status, progress=Progress(progress)
    )


@checked
def update_data(
    given: Any,
    *,
    workspace: Place = None,
    same_anchor: bool = False,
    status: Path | str | pl.DataFrame | None = None,
    progress: bool = False,
    **declared: Any,
) -> ImportResult:
    """Merge newer bars into the store: append sessions, take over corrections, replace moved anchors.

    Parameters
    ----------
    given, status, **declared
        As for :func:`import_data`; what was declared then need not be said again.
    same_anchor : bool
        That the source never moves the anchor of its adjusted prices.
    """
    from barcast.pipeline.data import update_data as run
    from barcast.sources.options import ImportOptions

    said = ImportOptions(**declared)
    return run(
        place_of(workspace), given, said, same_anchor=same_anchor, status=status, progress=Progress(progress)
    )


@checked
def check_data(
    *, workspace: Place = None, symbols: Names | None = None, policy: Mapping[str, str] | None = None
) -> QualityReport:
    """Look for every known kind of defect in the store.

    Parameters
    ----------
    policy : mapping, optional
        ``refuse``, ``mask`` or ``accept`` by kind of defect, over the workspace's ``[quality]``.

    Raises
    ------
    QualityError
        When a defect was found whose policy is ``refuse``.
    """
    from barcast.pipeline.check import check_store
    from barcast.quality import apply_policy

    found, chosen = check_store(place_of(workspace), symbols_of(symbols), policy)
    apply_policy(found, chosen)
    return found


@checked
def info(*, workspace: Place = None) -> StoreInfo:
    """Describe the store: what it holds, since when, in which versions."""
    from barcast.pipeline.data import store_info

    return store_info(place_of(workspace))


@checked
def status(*, workspace: Place = None, version: int | None = None) -> pl.DataFrame:
    """Return the listings, delistings, suspensions and ST spells that are on record."""
    from barcast.pipeline.data import store_status

    return store_status(place_of(workspace), version)


@checked
def add_status(
    table: Path | str | pl.DataFrame, *, workspace: Place = None, replace: bool = False
) -> StatusResult:
    """Put listings, delistings, suspensions and ST spells on record, or ``replace`` all that are."""
    from barcast.pipeline.beside import add_status as run

    return run(place_of(workspace), table, replace_all=replace)


@checked
def facts(
    table: Path | str | pl.DataFrame | None = None,
    *,
    workspace: Place = None,
    replace: bool = False,
    version: int | None = None,
) -> pl.DataFrame:
    """Return what is on record about symbols (name, industry, ...), after adding ``table`` where given.

    Parameters
    ----------
    table : path or polars frame, optional
        One row a symbol: ``symbol`` and columns of text. Rows whose symbol cannot be read are left out.
    replace : bool
        The table takes the place of what the store has.
    """
    from barcast.pipeline.beside import add_facts, store_facts

    if table is not None:
        add_facts(place_of(workspace), table, replace_all=replace)
    return store_facts(place_of(workspace), version)


@checked
def failures(*, workspace: Place = None, version: int | None = None) -> pl.DataFrame:
    """Return what the last import or update could not use, with file, line and reason."""
    from barcast.pipeline.data import store_failures

    return store_failures(place_of(workspace), version)


@checked
def conflicts(*, workspace: Place = None, version: int | None = None) -> pl.DataFrame:
    """Return the rows that disagree about a bar; the one marked as kept is stored."""
    from barcast.pipeline.data import store_conflicts

    return store_conflicts(place_of(workspace), version)


@checked
def compact(*, workspace: Place = None, keep_hours: int = 24) -> Compaction:
    """Merge small files and drop old versions of the store that no run cites.

    Parameters
    ----------
    keep_hours : int
        Versions replaced so lately stay, for whoever reads them.
    """
    from barcast.pipeline.data import compact_store

    return compact_store(place_of(workspace), keep_hours=keep_hours)


@checked
def export_data(
    target: Path | str,
    *,
    workspace: Place = None,
    form: str | None = None,
    per_symbol: bool = False,
    symbols: Names | None = None,
    start: date | None = None,
    end: date | None = None,
    version: int | None = None,
    force: bool = False,
) -> ExportResult:
    """Write stored bars, as given and with their factors, to one file or one file a symbol.

    Parameters
    ----------
    form : str
        ``parquet`` (the default) or ``csv``, for one file a symbol; a single file's ending says it.
    start, end : date, optional
        First and last day.
    version : int, optional
        Of the store; by default the last.
    force : bool
        Replace a file that is there.
    """
    from barcast.pipeline.data import export_data as run

    return run(
        place_of(workspace), Path(target), form=form, per_symbol=per_symbol,
        symbols=None if symbols is None else symbols_of(symbols), start=start, end=end,
        version=version, force=force,
    )  # fmt: skip


@checked
def feature_sets(name: str | None = None, *, workspace: Place = None) -> tuple[FeatureSet, ...]:
    """Return every feature set, the workspace's own included, or the one called ``name``."""
    from barcast.features import feature_set, user_feature_sets
    from barcast.features import feature_sets as built_in
    from barcast.pipeline.settings import check_workspace

    place = place_of(workspace)
    check_workspace(place)
    own = user_feature_sets(place)
    return (*built_in(), *own) if name is None else (feature_set(name, own),)


@checked
def check_features(name: str, *, workspace: Place = None) -> FeatureSet:
    """Recompute a file's or set's features on cut histories and return the set, if none saw its future.

    Raises
    ------
    LeakError
        With the feature that did.
    """
    from barcast.pipeline.check import check_features as run

    return run(place_of(workspace), name)[0]
