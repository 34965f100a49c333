"""What a diagnosis consists of: verdicts in both languages, with numbers for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from barcast.core.texts import Text


@dataclass(frozen=True)
class Verdict:
    """One thing that was found.

    Attributes
    ----------
    kind : str
        Its name for programs, such as ``overfitting``.
    title : Text
        A few words for a table.
    found : Text
        What was seen, with numbers.
    sure : Text
        The test behind it: what it was compared with, and how far beyond chance it lies.
    todo : Text
        What to do.
    command : str
        What to type; empty where no one command helps.
    numbers : mapping of str to float
        All of it for programs.
    """

    kind: str
    title: Text
    found: Text
    sure: Text
    todo: Text
    command: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON, in English."""
        return {
            "kind": self.kind,
            "title": self.title.en,
            "found": self.found.en,
            "sure": self.sure.en,
            "todo": self.todo.en,
            "command": self.command or None,
            "numbers": dict(self.numbers),
        }


#: Said where no test fired.
NOTHING_FOUND = Text("nothing found", "未发现问题")
