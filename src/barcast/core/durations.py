"""Durations, minutes and cutoffs as people type them."""

from __future__ import annotations

import re
from datetime import datetime
from numbers import Real

from barcast.core.errors import UsageError

_DURATION = re.compile(r"(?:(?P<h>[\d.]+)h)?(?:(?P<m>[\d.]+)m(?!s))?(?:(?P<s>[\d.]+)s)?(?:(?P<ms>[\d.]+)ms)?")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse_duration(text: str, option: str) -> float:
    """Read ``30m``, ``1h30m``, ``90s`` or ``500ms`` as seconds.

    Raises
    ------
    UsageError
        On anything else, a number without unit included, and on nothing at all.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    try:
        parts = {} if found is None else {unit: float(value) for unit, value in found.groupdict("0").items()}
    except ValueError:  # 1.2.3
        parts = {}
    seconds = sum(value * _SECONDS[unit] for unit, value in parts.items())
    if seconds <= 0:
        raise UsageError(f"{option} `{text}` is no duration", f"{option} 30m, 1h30m, 90s or 500ms")
    return seconds


def minutes_of(given: object, option: str) -> float | None:
    """Return minutes given as a number, or as text with its unit (``30m``, ``1h30m``); None stays None.

    Raises
    ------
    UsageError
        On anything else, naming the option, and on what is not positive.
    """
    if given is None:
        return None
    if isinstance(given, str):
        try:
            return parse_duration(given, option) / 60
        except UsageError as error:
            raise UsageError(error.found, f'{option}: a number of minutes, "30m" or "1h30m"') from None
    if not isinstance(given, Real) or isinstance(given, bool):
        raise UsageError(f"{option}: expected minutes, found `{given!r}`", f'{option}: 30, "30m" or "1h30m"')
    minutes = float(given)
    if not minutes > 0:
        raise UsageError(f"`{option}` must be positive, got {given}", f'{option}: 120, "30m" or "1h30m"')
    return minutes


def moment_of(asof: str) -> datetime | None:
    """Return what a cutoff says, a day at its first moment; None where nothing is said.

    Raises
    ------
    UsageError
        When it is no date.
    """
    if not asof:
        return None
    try:
        return datetime.fromisoformat(asof)
    except ValueError as error:
        raise UsageError(f"`asof` is not a date: `{asof}`", "--asof 2024-03-08") from error
