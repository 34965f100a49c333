"""What the audit found, as values that print, save and raise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from barcast.audit.workings import STAGES
from barcast.core.errors import LeakError

Value = float | int | str | None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One column that saw its future, or breaks a rule that keeps the future out.

    Attributes
    ----------
    check : str
        Which check found it.
    stage : str
        Where in the pipeline; later stages change because earlier ones do.
    column : str
        The first column that changes.
    symbol, time : str
        The first value that changes; empty where the finding is about the whole.
    found : float, int, str or None
        The value as the pipeline has it.
    expected : float, int, str or None
        The value without the future, or as the rule has it.
    cut : str
        The last session that was known; empty where nothing was cut.
    detail : str
        What it means, in a sentence.
    num_values : int
        How many values of the stage differ.
    columns : tuple of str
        All columns of the stage that differ.
    """

    check: str
    stage: str
    column: str
    symbol: str = ""
    time: str = ""
    found: Value = None
    expected: Value = None
    cut: str = ""
    detail: str = ""
    num_values: int = 1
    columns: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """Stage, column, symbol and session in words."""
        place = " at ".join(part for part in (self.symbol, self.time) if part)
        return f"{self.stage}: `{self.column}`" + (f" of {place}" if place else "")

    @property
    def sentence(self) -> str:
        """The finding in one sentence."""
        values = ""
        if self.found is not None or self.expected is not None:
            then = "becomes" if self.cut else "should be"
            values = f" is {show(self.found)}, {then} {show(self.expected)}"
        known = f" (known: up to {self.cut})" if self.cut else ""
        return f"{self.where}{values}{known}: {self.detail}"

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "check": self.check, "stage": self.stage, "column": self.column, "symbol": self.symbol,
            "time": self.time, "found": self.found, "expected": self.expected, "cut": self.cut,
            "detail": self.detail, "num_values": self.num_values, "columns": list(self.columns),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Check:
    """One kind of check that was made.

    Attributes
    ----------
    name, about : str
        Its name, and what it does, in a sentence.
    num_values : int
        Values compared; 0 where there was nothing to compare.
    """

    name: str
    about: str
    num_values: int


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What ``barcast audit`` answers.

    Attributes
    ----------
    subject : str
        The run or the feature set.
    checks : tuple of Check
        What was looked at.
    findings : tuple of Finding
        The cause first: in the order of the stages, then of the cuts.
    notes : tuple of str
        What could not be checked, and what no recomputation can see.
    cuts : tuple of str
        Sessions at which history was cut.
    seconds : float
    """

    subject: str
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    cuts: tuple[str, ...]
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "subject": self.subject,
            "clean": self.is_clean,
            "findings": [finding.plain() for finding in self.findings],
            "checks": [{"name": c.name, "about": c.about, "num_values": c.num_values} for c in self.checks],
            "cuts": list(self.cuts),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 2),
        }

    def raise_if_leaking(self) -> None:
        """Raise on the first finding.

        Raises
        ------
        LeakError
            Naming the first column, symbol and session whose value saw the future.
        """
        if self.findings:
            first = self.findings[0]
            more = len(self.findings) - 1
            raise LeakError(
                f"{first.check}: {first.sentence}",
                f"mend the first stage named: {more} more finding{'s' * (more != 1)} may follow from it"
                if more
                else "nothing that was trained on this column can be believed",
            )


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """Put causes before what follows from them: by stage, then as found."""
    rank = {stage: position for position, stage in enumerate(STAGES)}
    return tuple(sorted(findings, key=lambda finding: rank.get(finding.stage, -1)))


def show(value: Value) -> str:
    """Write a value for people."""
    if value is None:
        return "missing"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
