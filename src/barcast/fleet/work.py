"""A unit of work and its result: what the driver, the executors and the ledger say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

Status = Literal["done", "failed"]
#: After an error that no check foresaw.
TRY_AGAIN = "try again with `barcast fleet retry-failed`; please report it if it fails the same way"


@dataclass(frozen=True)
class Unit:
    """One symbol (or a batch of them, for networks) that one worker fits in one go.

    Attributes
    ----------
    symbols : tuple of str
        One for ensembles; the members of a batch for networks.
    positions : tuple of int
        Where they are in ``FleetData.symbols``.
    preset : str
        Committed before the fit.
    attempt : int
        From 1.
    options : mapping
        Overrides of these symbols, plain values.
    """

    symbols: tuple[str, ...]
    positions: tuple[int, ...]
    preset: str
    attempt: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    def halves(self) -> tuple[Unit, Unit]:
        """Return two units, each of half the symbols; there are at least two."""
        middle = len(self.symbols) // 2
        first, second = slice(middle), slice(middle, None)
        return (
            replace(self, symbols=self.symbols[first], positions=self.positions[first]),
            replace(self, symbols=self.symbols[second], positions=self.positions[second]),
        )


class Begun(NamedTuple):
    """The preset and the symbols, in order, of a unit that began."""

    preset: str
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class SymbolResult:
    """What became of one symbol.

    Attributes
    ----------
    symbol : str
    preset : str
    status : str
        ``done`` or ``failed``.
    seconds : float
        Of computing in the worker.
    memory_bytes : int
        What the worker held lately, its proportional set size; noted by the worker itself, not by the fit.
    num_rows : int
        Rows that taught.
    metrics : mapping
        Plain numbers and lists, for the ledger and the report.
    model : bytes
        The packed model; empty where it failed.
    native : bytes
        The libraries' own formats, compressed, for export; may be empty.
    reason, todo : str
        Of a failure: what was found, what to do.
    """

    symbol: str
    preset: str
    status: Status
    seconds: float = 0.0
    memory_bytes: int = 0
    num_rows: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    model: bytes = b""
    native: bytes = b""
    reason: str = ""
    todo: str = ""


class Fit(Protocol):
    """Fits units inside a worker; made once a worker, it keeps what it has mapped and compiled.

    A fit never raises for one symbol's sake: that symbol comes back as ``failed``, with its reason.
    """

    def __call__(self, unit: Unit) -> list[SymbolResult]:
        """Return one result a symbol of the unit, in order."""
        ...


@dataclass(frozen=True)
class FitSource:
    """How a worker makes its :class:`Fit`: an importable function by name, and plain arguments.

    A name rather than an object, so that nothing but plain values crosses to other processes and machines.
    """

    module: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Fit:
        """Import the function and call it with the arguments."""
        from importlib import import_module

        made: Fit = getattr(import_module(self.module), self.function)(**self.arguments)
        return made
