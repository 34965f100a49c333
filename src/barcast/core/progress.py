"""Progress lines: count, rate and time left, rewritten in place on a terminal, sparse elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO


def clock(seconds: float) -> str:
    """Write a duration as 0:07, 12:30 or 1:02:03."""
    whole = max(round(seconds), 0)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


def count(value: float) -> str:
    """Write a count for people: 950, 12.3k, 4.8M."""
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f}{suffix}"
    return f"{value:.0f}"


@dataclass
class Progress:
    """Writes to stderr so that stdout stays machine-readable.

    Parameters
    ----------
    enabled : bool
        False writes nothing (``--quiet``, ``--json`` in a pipe, library use).
    """

    enabled: bool = True
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _last: float = 0.0
    _width: int = 0
    _subject: str = ""

    @contextmanager
    def about(self, subject: str) -> Iterator[None]:
        """Begin every line of the block with what it is about."""
        before, self._subject = self._subject, subject
        try:
            yield
        finally:
            self._subject = before

    def note(self, text: str) -> None:
        """Write one line that stays."""
        if self.enabled:
            self._erase()
            self.stream.write(f"{self._subject}{text}\n")
            self.stream.flush()

    def due(self) -> bool:
        """Return whether a line given to :meth:`step` now would be shown; making one may cost something."""
        return self.enabled and time.monotonic() - self._last >= (0.2 if self.stream.isatty() else 10.0)

    def step(self, text: str, *, final: bool = False) -> None:
        """Show a line that the next one replaces; five a second on a terminal, one in 10 s elsewhere."""
        if not self.enabled or (not final and not self.due()):
            return
        terminal, text = self.stream.isatty(), self._subject + text
        self._last = time.monotonic()
        if terminal:
            self._erase()
            self.stream.write(text if not final else text + "\n")
            self._width = 0 if final else len(text)
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def _erase(self) -> None:
        if self._width:
            self.stream.write("\r\x1b[K")
            self._width = 0
