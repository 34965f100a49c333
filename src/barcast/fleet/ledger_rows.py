"""What a ledger says of a symbol, what is wanted of it, and what is therefore to be trained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

RowStatus = Literal["pending", "running", "done", "failed", "left_out"]
STATUSES: tuple[RowStatus, ...] = ("pending", "running", "done", "failed", "left_out")

#: Why a symbol is to be trained.
NEW = "new"
SETTINGS_CHANGED = "settings changed"
DATA_CHANGED = "data changed"
FAILED_BEFORE = "failed before"
INTERRUPTED = "was running when the fleet ended"
LEFT_OUT_BEFORE = "left out before"
ASKED_AGAIN = "asked for again"
NOT_TAKEN = "not taken over"
#: What the metrics of a symbol call where and when it was fitted, if another ledger has it first.
TAKEN_OVER = "taken_over"


@dataclass(frozen=True)
class Wanted:
    """One symbol that a fleet shall have.

    Attributes
    ----------
    symbol : str
    position : int
        In ``FleetData.symbols``.
    settings : str
        Digest of everything that shapes its model but the rows.
    data : str
        Digest of its rows.
    """

    symbol: str
    position: int
    settings: str
    data: str


@dataclass(frozen=True)
class Planned:
    """One symbol to be trained, why, and how often a fit of it began and gave nothing."""

    symbol: str
    position: int
    why: str
    attempts: int


@dataclass(frozen=True)
class Plan:
    """What is to be done for the symbols that are wanted.

    Attributes
    ----------
    todo : tuple of Planned
        In the order in which they were wanted.
    done : int
        Symbols whose models are there and still as wanted.
    failed : tuple of str
        Symbols that failed with these settings and rows; they are not tried again unless asked for.
    """

    todo: tuple[Planned, ...]
    done: int
    failed: tuple[str, ...]

    def reasons(self) -> dict[str, int]:
        """Return how many symbols are to be trained for each reason."""
        counts: dict[str, int] = {}
        for each in self.todo:
            counts[each.why] = counts.get(each.why, 0) + 1
        return counts


class StoredMetrics(Mapping[str, Any]):
    """Metrics as the table holds them, parsed for whom looks into them: a listing of thousands need not."""

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _values(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self._text)
        return values

    def __getitem__(self, name: str) -> Any:
        if name.isascii() and f'"{name}"' not in self._text:
            raise KeyError(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


@dataclass(frozen=True)
class LedgerRow:
    """What is known of one symbol; sizes in bytes, seconds of computing.

    Attributes
    ----------
    why : str
        Why it was (or is to be) trained last.
    settings, data : str
        Digests of what it was (or is to be) trained with.
    attempts : int
        Fits begun since the settings or rows last changed.
    memory_bytes : int
        What its worker held.
    num_rows : int
        Rows that taught.
    reason, todo : str
        Of a failure, or why it was left out.
    finished_at : str
        ISO 8601 with zone; empty until then.
    content : str
        Digest of the packed model; empty where there is none.
    """

    symbol: str
    position: int
    status: RowStatus
    why: str
    settings: str
    data: str
    preset: str
    attempts: int
    seconds: float
    memory_bytes: int
    num_rows: int
    metrics: Mapping[str, Any]
    reason: str
    todo: str
    finished_at: str
    content: str
    model_bytes: int
    native_bytes: int

    @classmethod
    def read(cls, values: Sequence[Any]) -> LedgerRow:
        """Make a row from what the table holds, in the order of the fields."""
        named = dict(zip(cls.__dataclass_fields__, values, strict=True))
        return cls(**named | {"metrics": StoredMetrics(named["metrics"])})

    @property
    def fitted_by(self) -> str:
        """Name of the run that fitted it, where that is not the ledger's own; else empty."""
        return str(self.metrics.get(TAKEN_OVER, {}).get("fitted_by", ""))

    @property
    def fitted_at(self) -> str:
        """When its fit ended, wherever that was: ISO 8601 with zone; empty until then."""
        return str(self.metrics.get(TAKEN_OVER, {}).get("finished_at", self.finished_at))


#: The columns of :class:`LedgerRow`, for a query.
COLUMNS = ", ".join(LedgerRow.__dataclass_fields__)


def decide(wanted: Wanted, row: LedgerRow | None) -> str:
    """Return why a symbol is to be trained; empty where it is done, or failed with the same digests."""
    if row is None:
        return NEW
    if row.settings != wanted.settings:
        return SETTINGS_CHANGED
    if row.data != wanted.data:
        return DATA_CHANGED
    return {"pending": row.why, "running": INTERRUPTED, "left_out": LEFT_OUT_BEFORE}.get(row.status, "")


def decide_anew(wanted: Wanted, before: LedgerRow | None) -> str:
    """Return why a symbol is to be trained of which, if any, only an older ledger knows."""
    why = decide(wanted, before)
    if why or before is None:
        return why
    return FAILED_BEFORE if before.status == "failed" else NOT_TAKEN


def to_json(value: Any) -> str:
    """Write plain values, numpy's included; numbers that JSON cannot hold become null."""
    text = json.dumps(value, default=lambda other: other.tolist(), sort_keys=True, ensure_ascii=False)
    if "NaN" in text or "Infinity" in text:
        from barcast.evaluation.results import without_nan  # brings polars along

        text = json.dumps(without_nan(json.loads(text)), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text
