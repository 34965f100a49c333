"""What to do about each kind of defect: refuse the data, leave rows out, or accept them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from barcast.core.errors import QualityError, UsageError
from barcast.quality.kinds import KINDS, Choice, known_kind

if TYPE_CHECKING:
    from barcast.quality.report import QualityReport

#: Offending rows that an error names.
NAMED_ROWS = 5


@dataclass(frozen=True)
class QualityPolicy:
    """A choice for every kind of defect; kinds that are not given take their default.

    Parameters
    ----------
    choices : dict of str to Choice
        ``refuse`` stops with the offending rows, ``mask`` leaves them out, ``accept`` keeps them. After
        construction every kind is there, so that a saved policy says all that was in force.

    Raises
    ------
    UsageError
        On an unknown kind (with the nearest name), an unknown choice, or ``mask`` for a kind whose rows must
        not be left out (with the reason).

    Warnings
    --------
    A row may be left out only for what was known at that row. Kinds that need later bars to be seen therefore
    cannot be masked: a symbol that was dropped because it later went stale, or turned out to be two
    securities, would make the past look cleaner than it was.
    """

    choices: dict[str, Choice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, choice in self.choices.items():
            _check(name, choice)
        full = {name: self.choices.get(name, kind.default) for name, kind in KINDS.items()}
        object.__setattr__(self, "choices", full)

    def choice(self, kind: str) -> Choice:
        """Return what happens to findings of a kind."""
        return self.choices[known_kind(kind).name]


def _check(name: str, choice: object) -> None:
    kind = known_kind(name)
    if choice in kind.allowed:
        return
    if choice == "mask":
        raise UsageError(
            f"quality.{name}: rows of this kind cannot be masked: {kind.no_mask_reason}",
            f"choose {' or '.join(kind.allowed)}",
        )
    raise UsageError(f"quality.{name}: `{choice}` is not one of {', '.join(kind.allowed)}")


def apply_policy(report: QualityReport, policy: QualityPolicy) -> pl.DataFrame:
    """Return the rows to leave out.

    Parameters
    ----------
    report : QualityReport
        What was found.
    policy : QualityPolicy
        What to do about it.

    Returns
    -------
    pl.DataFrame
        Columns ``symbol`` and ``time`` (in the type of the checked frame), sorted, each row once. A row is
        here only for what was known at that row.

    Raises
    ------
    QualityError
        When a kind whose choice is ``refuse`` was found, with offending rows.
    """
    refused = [kind for kind in report.counts if policy.choice(kind) == "refuse"]
    if refused:
        raise QualityError(_refusal(report, refused), _next_step(refused))
    masked = [kind for kind in report.counts if policy.choice(kind) == "mask"]
    chosen = report.findings.filter(pl.col("kind").is_in(masked))
    return chosen.select("symbol", "time").unique().sort("symbol", "time")


def _refusal(report: QualityReport, kinds: list[str]) -> str:
    lines = []
    for kind in kinds:
        part = report.of(kind)
        lines.append(f"{kind}: {len(part):,} found ({KINDS[kind].meaning.en})")
        for row in part.head(NAMED_ROWS).iter_rows(named=True):
            where = " ".join(str(row[name]) for name in ("symbol", "time", "detail", "file") if row[name])
            lines.append(f"    {where}")
        if len(part) > NAMED_ROWS:
            lines.append(f"    ... and {len(part) - NAMED_ROWS:,} more")
    return "\n".join(lines)


def _next_step(kinds: list[str]) -> str:
    first = KINDS[kinds[0]]
    instead = "mask" if "mask" in first.allowed else "accept"
    return (
        f"{first.todo.en}. `barcast data check` shows all; "
        f'`{first.name} = "{instead}"` under [quality] in barcast.toml goes on without'
    )
