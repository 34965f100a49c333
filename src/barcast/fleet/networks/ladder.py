"""One rung of the ladder for all symbols: the narrowest that a sample does not clearly do better than."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from barcast.core.errors import RunError
from barcast.fleet.data import FleetData
from barcast.fleet.work import SymbolResult, Unit

#: Of two widths the wider one must be better by more than this many standard errors to be chosen for all.
CLEARLY = 1.0


@dataclass(frozen=True)
class WidthChoice:
    """Which rung of the ladder serves all symbols, and what it rests on.

    Attributes
    ----------
    preset : str
        The chosen rung.
    scores : mapping of str to float
        Mean best score on `stop` (R2 against zero) of the symbols that every rung could train.
    num_symbols : int
        How many those are.
    """

    preset: str
    scores: Mapping[str, float]
    num_symbols: int


def choose_width(
    fit: Callable[[Unit], list[SymbolResult]], data: FleetData, positions: Sequence[int], rungs: Sequence[str]
) -> WidthChoice:
    """Train a sample of symbols on each rung, narrow to wide, and choose one rung for all.

    A wider rung is chosen only where its mean gain over the narrower choice exceeds the standard error of
    that gain (the one-standard-error rule, Breiman et al. 1984, on paired differences).

    Raises
    ------
    RunError
        When no symbol of the sample can be trained on every rung.
    """
    symbols = tuple(data.symbols[position] for position in positions)
    results = [fit(Unit(symbols, tuple(positions), rung)) for rung in rungs]
    scores = np.array([[_score(result) for result in each] for each in results])
    scores = scores[:, np.isfinite(scores).all(axis=0)]
    if not scores.shape[1]:
        first = next(result.reason for each in results for result in each if result.status == "failed")
        raise RunError(f"no symbol of the sample can be trained: {first}", "choose symbols with more rows")
    best = 0
    for rung in range(1, len(rungs)):
        gain = scores[rung] - scores[best]
        error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else float("inf")
        if gain.mean() > CLEARLY * error:
            best = rung
    means = {rung: float(score) for rung, score in zip(rungs, scores.mean(axis=1), strict=True)}
    return WidthChoice(rungs[best], means, scores.shape[1])


def _score(result: SymbolResult) -> float:
    return result.metrics["stop_score"] if result.status == "done" else float("nan")
