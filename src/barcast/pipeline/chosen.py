"""What chose options that nobody named: a search, or a comparison of sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from barcast.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Where options come from that a search has chosen on `stop`; a search writes it beside them.

    It shapes no result, so it is no part of a run's identity: the run remembers it, whoever trains it.
    """

    model: str = ""
    run: str = ""
    """Name of the search."""
    trials: int = 0
    """How many candidates it looked at."""
    until: str = ""
    """When the last label of its `stop` became known; empty for searches that did not write it down."""

    def __post_init__(self) -> None:
        if self.trials < 1 or not self.run or not _is_time(self.until):
            raise UsageError(
                "[tuned] says which search chose the options, and among how many trials",
                "keep the table as `barcast tune` wrote it",
            )


@dataclass(frozen=True, kw_only=True)
class Sized:
    """What ``--size auto``, or a fleet's ``--preset auto``, came to; it shapes nothing but widths.

    Attributes
    ----------
    size : str
        A preset, or ``default`` for the network without one.
    options : mapping
        What the size stands for.
    candidates : tuple of str
        Sizes that the plan lets through, smallest first.
    to_compare : tuple of str
        Those that are still to be tried on `stop`.
    trial_seconds : float
        What that takes, as planned; 0 where nothing is to be compared any more.
    num_compared : int
        How many were compared on `stop`; 0 where the plan alone decided.
    until : str
        When the last label of that `stop` became known; empty where nothing was compared.
    reasons : tuple of str
        One line a size that was looked at, smallest first.
    by : str
        What was asked for, as users type it.
    """

    size: str
    options: Mapping[str, Any]
    candidates: tuple[str, ...]
    to_compare: tuple[str, ...] = ()
    trial_seconds: float = 0.0
    num_compared: int = 0
    until: str = ""
    reasons: tuple[str, ...]
    by: str = "--size auto"

    def facts(self) -> dict[str, Any]:
        """Return what run.json says of it."""
        reasons = list(self.reasons)
        return {"size": self.size, "num_compared": self.num_compared, "reasons": reasons, "by": self.by}

    def beside(self, tuned: Tuned | None, model: str) -> Tuned | None:
        """Return the search whose trials a run is to count: those of the sizes beside those of ``tuned``."""
        if not self.num_compared:
            return tuned
        if tuned is None:
            return Tuned(model=model, run=self.by, trials=self.num_compared, until=self.until)
        return replace(
            tuned, run=f"{tuned.run}, {self.by}", trials=tuned.trials + self.num_compared,
            until=max(tuned.until, self.until),
        )  # fmt: skip


def _is_time(text: str) -> bool:
    try:
        return not text or bool(datetime.fromisoformat(text))
    except ValueError:
        return False


#: How the comparison of sizes is called where a search would be named.
SIZE_AUTO = Sized.by
