"""Fits units of many symbols as batches of dedicated networks.

Options of a unit are overrides of the preset for all of its symbols, but for one name:

``symbols``
    Overrides of single symbols, by name. Rates, decay, epochs, patience, features and the like differ freely
    inside a batch; options of ``presets.SHAPES`` put a symbol into a batch of its own kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from barcast.core.atomic import atomic_path
from barcast.core.errors import BarcastError, RunError
from barcast.core.memory import keep_freed_memory
from barcast.fleet.data import FleetData
from barcast.fleet.networks.presets import Kind, resolve
from barcast.fleet.networks.trainer import BatchTrainer, Member
from barcast.fleet.work import Fit, SymbolResult, Unit

#: A killed worker loses at most so much.
SAVE_SECONDS = 45.0


def make_fit(
    folder: str, kind: Kind, options: Mapping[str, Any], seed: int, states: str = "", keep_freed: bool = False
) -> Fit:
    """Return the fit of a worker.

    Parameters
    ----------
    folder : str
        Where :meth:`FleetData.save` wrote.
    kind : str
        ``lstm`` or ``gru``.
    options : mapping
        Overrides for all symbols; a unit's own options go over them.
    seed : int
        Of the fleet.
    states : str
        Folder for what a batch needs to go on after a kill; empty: nothing is kept. The files of a unit stay
        until the next unit of the same worker is done, so that results on their way to the caller are safe;
        what is left when a fleet is complete may be removed.
    keep_freed : bool
        Tell the allocator to keep what steps free: for processes that are workers and nothing else.
    """
    if keep_freed:
        keep_freed_memory()
    keep = Path(states) if states else None
    return NetworkFit(FleetData.map(Path(folder)), kind, dict(options), seed, keep)


@dataclass
class NetworkFit:
    """Fits a unit of dedicated networks; see the module for its options."""

    data: FleetData
    kind: Kind
    options: Mapping[str, Any]
    seed: int
    states: Path | None = None
    delivered: list[Path] = field(default_factory=list)
    """State files of the unit before."""

    def __call__(self, unit: Unit) -> list[SymbolResult]:
        """Return one result a symbol, in order; what fails, fails alone. Computes on one thread."""
        threads = torch.get_num_threads()
        torch.set_num_threads(
            1
        )  # one worker a core: several threads in one operation only wait for each other
        try:
            return self._results(unit)
        finally:
            torch.set_num_threads(threads)

    def _results(self, unit: Unit) -> list[SymbolResult]:
        options = {**self.options, **unit.options}
        own, members, found = options.pop("symbols", {}), [], {}
        for symbol, position in zip(unit.symbols, unit.positions, strict=True):
            try:
                members.append(
                    Member(position, resolve(self.kind, unit.preset, options, own.get(symbol, {})))
                )
            except BarcastError as error:
                found[position] = SymbolResult(
                    symbol, unit.preset, "failed", reason=error.found, todo=error.todo
                )
        found |= self._fit(members, unit)
        return [found[position] for position in unit.positions]

    def _fit(self, members: Sequence[Member], unit: Unit) -> dict[int, SymbolResult]:
        """Train batch after batch; return the results by position."""
        found: dict[int, SymbolResult] = {}
        files = []
        for batch in batches_of(members):
            file = self._file(batch, unit)
            files.append(file)
            trainer = self._trainer(batch, unit.preset, file)
            while not trainer.run(SAVE_SECONDS if file else float("inf")):
                _save(file, trainer)
            _save(file, trainer)
            found |= zip((member.position for member in batch), trainer.in_order(), strict=True)
        for file in self.delivered:
            file.unlink(missing_ok=True)
        self.delivered = [file for file in files if file]
        return found

    def _file(self, batch: Sequence[Member], unit: Unit) -> Path | None:
        if self.states is None:
            return None
        text = repr((batch, unit.symbols, self.seed))
        return self.states / f"{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}.safetensors"

    def _trainer(self, batch: Sequence[Member], name: str, file: Path | None) -> BatchTrainer:
        """Go on from a saved state where there is one that fits."""
        if file and file.is_file():
            try:
                return BatchTrainer.from_state(file.read_bytes(), self.data, batch, name, self.seed)
            except RunError:  # damaged, or the rows have changed since: training it again is all it costs
                file.unlink()
        return BatchTrainer(self.data, batch, name, self.seed)


def batches_of(members: Sequence[Member]) -> list[list[Member]]:
    """Put members of one shape together."""
    found: dict[Any, list[Member]] = {}
    for member in members:
        found.setdefault(member.preset.shape, []).append(member)
    return list(found.values())


def _save(file: Path | None, trainer: BatchTrainer) -> None:
    if file:
        with atomic_path(file) as temporary:
            temporary.write_bytes(trainer.state_bytes())
