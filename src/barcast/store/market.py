"""The market store: a versioned Delta table of bars, with what belongs beside each version.

::

    market/
        store.json                    market, frequency, calendar, format
        importing.json                only until then: marks the parts of a first import as ours
        bars/                         Delta table, partitioned by `period` (year, or month under one hour)
        status/, facts/, conflicts/, failures/    <version>.parquet: from that version of bars on
        cites/<run>.json              versions that compaction must keep
        kept.json                     versions that the last compaction left
        staging/                      parts of an unfinished import
        writer.lock

A version appears when the table's log gets its next entry, which is one rename; whatever a killed writer left
behind belongs to no version and is not seen. What stands beside the bars is written first, under the number
that the next version will have.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from barcast.core.atomic import read_json, sweep_leftovers, write_json
from barcast.core.bars import Bars
from barcast.core.calendar import Calendar
from barcast.core.errors import DataError, explained
from barcast.core.lock import writer_lock
from barcast.sources.base import num_failures
from barcast.store.adjust import to_bars
from barcast.store.beside import BesideTables
from barcast.store.birth import refuse_lost_description
from barcast.store.info import Compaction, StoreInfo, VersionNote, When
from barcast.store.meta import StoreMeta
from barcast.store.names import resolve_names
from barcast.store.sessions import calendar_of
from barcast.store.staging import Staging
from barcast.store.status import STATUS_SCHEMA
from barcast.store.table import BarsTable, in_order


@dataclass(frozen=True)
class MarketStore:
    """A market on disk. Make one with ``create`` or ``open``.

    Reading never waits for a writer and always sees one whole version.
    """

    path: Path
    meta: StoreMeta

    @classmethod
    def create(cls, path: Path, meta: StoreMeta) -> MarketStore:
        """Describe a new, empty store; the description of a store without any version is replaced.

        Raises
        ------
        DataError
            When there is a store with data already.
        """
        with explained("creating", path):
            path.mkdir(parents=True, exist_ok=True)
        store = cls(path, meta)
        if not store.is_empty:
            raise DataError(f"{path} holds a store already", "barcast data update adds to it")
        meta.write(path)
        return store

    @classmethod
    def open(cls, path: Path) -> MarketStore:
        """Open a store.

        Raises
        ------
        StoreError
            When there is none, or it has lost its description.
        StoreVersionError
            When a newer barcast wrote it.
        """
        with explained("reading", path):
            refuse_lost_description(path)
            return cls(path, StoreMeta.read(path))

    @cached_property
    def table(self) -> BarsTable:
        """The table of bars."""
        return BarsTable(self.path / "bars", self.meta.frequency)

    @property
    def beside(self) -> BesideTables:
        """Status, conflicts and failures."""
        return BesideTables(self.path)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever published."""
        return self.table.latest() is None

    @property
    def version(self) -> int:
        """The last published version.

        Raises
        ------
        DataError
            When there is none yet.
        """
        latest = self.table.latest()
        if latest is None:
            raise DataError(f"{self.path} is empty", "fill it: barcast data import PATH --market ...")
        return latest

    def frame(
        self,
        symbols: Collection[str] | None = None,
        start: When | None = None,
        end: When | None = None,
        version: int | None = None,
    ) -> pl.DataFrame:
        """Read stored rows, unadjusted as the source gave them, with their factors.

        Parameters
        ----------
        symbols : Collection of str, optional
            Canonical names; those without rows are simply absent.
        start, end : date or datetime, optional
            Both included; a date as end of intraday bars includes its whole day (UTC).
        version : int, optional
            By default the last one.

        Returns
        -------
        pl.DataFrame
            Columns of ``STORE_COLUMNS``, sorted by symbol and time. ``time`` is the session ``Date``, or the
            naive ``Datetime("us")`` UTC start of an intraday bar. Missing values are null.
        """
        first, last = self._bounds(start, end)
        rows = self.table.scan(version, self._periods(first, last))
        if symbols is not None:
            rows = rows.filter(pl.col("symbol").is_in(list(symbols)))
        if first is not None:
            rows = rows.filter(pl.col("time") >= first)
        if last is not None:
            rows = rows.filter(pl.col("time") <= last)
        return in_order(rows.collect(engine="in-memory"))

    def bars(
        self,
        symbols: Collection[str] | None = None,
        until: When | None = None,
        version: int | None = None,
        exclude: pl.DataFrame | None = None,
    ) -> Bars:
        """Read adjusted bars on the store's calendar.

        Parameters
        ----------
        symbols : Collection of str, optional
            In any spelling.
        until : date or datetime, optional
            Cut: no later row, session, symbol or delisting is seen.
        version : int, optional
            By default the last one.
        exclude : pl.DataFrame, optional
            Rows (``symbol``, ``time``) to leave out, such as defective ones; the calendar does without them.

        Raises
        ------
        SymbolError
            When the store has never seen a symbol asked for.
        """
        version = self.version if version is None else version  # one version, also while another is written
        wanted = None if symbols is None else self.resolve(symbols, version)
        frame = self.frame(wanted, end=until, version=version)
        if exclude is not None and len(exclude):
            masked = exclude.select("symbol", pl.col("time").cast(frame.schema["time"]))
            frame = frame.join(masked, on=["symbol", "time"], how="anti", maintain_order="left")
        calendar = self.calendar(version, until, exclude)
        return to_bars(frame, calendar, self.meta.market, self.status(version))

    def calendar(
        self, version: int | None = None, until: When | None = None, exclude: pl.DataFrame | None = None
    ) -> Calendar:
        """Return the sessions between the first and the last bar; the parameters are those of ``bars``.

        Stray dates at either end do not count (``store.sessions.calendar_of``). On an ``observed`` daily
        calendar a day counts when at least 5 % of the usual number of symbols trade.
        """
        rows = self.table.scan(version).select("time").group_by("time").agg(num=pl.len())
        _, last = self._bounds(None, until)
        if last is not None:
            rows = rows.filter(pl.col("time") <= last)
        counts = rows.collect(engine="in-memory").sort("time")
        if exclude is not None and len(exclude):
            masked = exclude.group_by(pl.col("time").cast(counts.schema["time"])).agg(masked=pl.len())
            counts = counts.join(masked, on="time", how="left", maintain_order="left").with_columns(
                num=pl.col("num") - pl.col("masked").fill_null(0)
            )
            counts = counts.filter(pl.col("num") > 0)
        return calendar_of(counts, self.meta.calendar, self.meta.frequency)

    def symbols(self, version: int | None = None) -> tuple[str, ...]:
        """Return the symbols that have a bar, sorted."""
        names = self.table.scan(version).select(pl.col("symbol").unique()).collect(engine="streaming")
        return tuple(names["symbol"].sort().to_list())

    def resolve(self, texts: Iterable[str], version: int | None = None) -> tuple[str, ...]:
        """Read symbols as a user may spell them, by the rules of this market (``store.names``).

        Raises
        ------
        SymbolError
            When some are no symbols, or not in the store, with the nearest names.
        """
        given = tuple(texts)
        return resolve_names(given, self.symbols(version), self.meta.market) if given else ()

    def status(self, version: int | None = None) -> pl.DataFrame:
        """Return listings, delistings, suspensions and ST spells: columns of ``STATUS_SCHEMA``."""
        found = self._beside("status", version)
        return pl.DataFrame(schema=STATUS_SCHEMA) if found is None else found

    def facts(self, version: int | None = None) -> pl.DataFrame:
        """Return what is on record about symbols: ``symbol`` and columns of text (``store.facts``)."""
        found = self._beside("facts", version)
        return pl.DataFrame(schema={"symbol": pl.String}) if found is None else found

    def conflicts(self, version: int | None = None) -> pl.DataFrame:
        """Return all rows of each (symbol, time) that sources gave more than once with different values.

        ``kept`` marks the one that is stored; ``file`` and ``line`` say where each came from.
        """
        found = self._beside("conflicts", version)
        return pl.DataFrame(schema={"symbol": pl.String, "time": pl.Date}) if found is None else found

    def failures(self, version: int | None = None) -> pl.DataFrame:
        """Return what the import or update that made a version could not use, row by row.

        By default of the last one, also where it made no version because nothing could be used.
        """
        found = self.beside.unpublished() if version is None else None
        found = self._beside("failures", version) if found is None else found
        return pl.DataFrame(schema={"kind": pl.String}) if found is None else found

    def declared(self) -> dict[str, Any]:
        """Return what the last import or update said about its source; nothing for an empty store."""
        notes = (note for _, _, note in self.table.history() if "declared" in note)
        return dict(next(notes, {}).get("declared", {}))

    def info(self) -> StoreInfo:
        """Describe the last version."""
        version = self.version
        rows = self.table.scan(version)
        spans = rows.select(
            num=pl.len(),
            symbols=pl.col("symbol").n_unique(),
            first=pl.col("time").min(),
            last=pl.col("time").max(),
        ).collect(engine="in-memory")
        bases = (
            rows.group_by("basis").agg(pl.col("symbol").n_unique()).collect(engine="in-memory").sort("basis")
        )
        span = spans.row(0, named=True)
        return StoreInfo(
            path=str(self.path),
            version=version,
            market=self.meta.market,
            frequency=self.meta.frequency,
            calendar=self.meta.calendar,
            declared=self.declared(),
            num_rows=span["num"],
            num_symbols=span["symbols"],
            num_sessions=len(self.calendar(version)),
            first=span["first"],
            last=span["last"],
            bases=dict(bases.iter_rows()),
            num_conflicts=len(self.conflicts(version)),
            num_failures=num_failures(self.failures()),
            num_files=len(self.table.files(version)),
            size_bytes=self._size(),
            cited=self.cited(),
            history=tuple(VersionNote(*entry) for entry in self.table.history()),
        )

    def publish(
        self,
        rows: pl.DataFrame,
        note: Mapping[str, Any],
        *,
        periods: Collection[int] | None,
        beside: Mapping[str, pl.DataFrame],
    ) -> int:
        """Add a version; the writer lock must be held.

        Parameters
        ----------
        rows : pl.DataFrame
            Columns of ``STORE_COLUMNS``, sorted.
        note : Mapping
            What happened, kept with the version.
        periods : Collection of int, optional
            As in ``BarsTable.commit``.
        beside : Mapping
            Tables by name (``store.beside``) as of the new version; one that is absent stays as it is.
        """
        self._drop_orphans()
        upcoming = 0 if self.is_empty else self.version + 1
        self.beside.write(upcoming, beside)
        return self.table.commit(rows, None if periods is None else sorted(periods), note)

    def staging(self) -> Staging:
        """Where an unfinished import keeps its parts."""
        return Staging(self.path / "staging")

    def cite(self, version: int, run: str) -> None:
        """Record that ``run`` was made from ``version``: compaction keeps it."""
        self.table.open(version)
        write_json(self.path / "cites" / f"{run}.json", {"version": version})

    def cited(self) -> dict[str, int]:
        """Return run to version."""
        files = sorted((self.path / "cites").glob("*.json"))
        return {file.stem: int(read_json(file)["version"]) for file in files}

    def compact(self, keep_hours: int = 24) -> Compaction:
        """Merge small files and drop the versions that no run cites, but the last.

        Parameters
        ----------
        keep_hours : int
            Versions that were the last one more recently stay, for readers that are at work.

        Raises
        ------
        DataError
            When the store is empty.
        StoreBusyError
            When another process is writing.
        """
        with writer_lock(self.path):
            self._drop_orphans()
            version, gone, before = self.version, self.table.dropped(), self._size()
            num_files = self.table.compact(self.cited().values(), keep_hours)
            dropped = self.table.dropped()
            kept = tuple(version for version in range(self.version + 1) if version not in dropped)
            self.beside.drop_unread(kept)
            return Compaction(
                path=str(self.path),
                version=self.version,
                kept=kept,
                dropped=tuple(sorted(dropped - gone)),
                made=tuple(range(version + 1, self.version + 1)),
                num_files=num_files,
                size_before=before,
                size_bytes=self._size(),
            )

    def _size(self) -> int:
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def _bounds(self, start: When | None, end: When | None) -> tuple[When | None, When | None]:
        """Make both comparable with ``time``."""
        if self.meta.frequency == "1d":
            return _as_date(start), _as_date(end)
        midnight, last = datetime.min.time(), datetime.max.time()
        first = start if start is None or isinstance(start, datetime) else datetime.combine(start, midnight)
        final = end if end is None or isinstance(end, datetime) else datetime.combine(end, last)
        return _as_utc(first), _as_utc(final)

    def _periods(self, start: When | None, end: When | None) -> tuple[int, int] | None:
        """Partitions that can hold rows between the bounds."""
        if start is None and end is None:
            return None
        ends = pl.select(
            first=self.table.period(pl.lit(start or date(1, 1, 1))),
            last=self.table.period(pl.lit(end or date.max)),
        )
        return int(ends.row(0)[0]), int(ends.row(0)[1])

    def _beside(self, name: str, version: int | None) -> pl.DataFrame | None:
        """Read what stood beside a version that was not dropped."""
        wanted = self.version if version is None else version
        self.table.require(wanted)
        return self.beside.read(name, wanted)

    def _drop_orphans(self) -> None:
        """Remove what a killed writer left."""
        sweep_leftovers(self.path)
        self.beside.drop_orphans(-1 if self.is_empty else self.version)


def _as_date(when: When | None) -> date | None:
    return when.date() if isinstance(when, datetime) else when


def _as_utc(when: datetime | None) -> datetime | None:
    """Naive UTC."""
    if when is None or when.tzinfo is None:
        return when
    return when.astimezone(UTC).replace(tzinfo=None)
