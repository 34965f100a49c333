"""Ctrl-C and SIGTERM in a command that trains: what is half done is finished and saved first.

Only such a command takes the signals (:func:`signals_taken`); in somebody's own program they mean what that
program says.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM ends the command. No ``Exception``: what goes on after errors must not after this.

    Attributes
    ----------
    exit_code : int
        As shells count: 128 and the signal's number.
    resume : str
        The command that goes on, once it is known.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number
        self.resume = ""


class _Waiting:
    """What has come while it had to wait."""

    depth = 0
    number: int | None = None


_waiting = _Waiting()


@contextmanager
def signals_taken() -> Iterator[None]:
    """Turn both signals into :class:`Interrupted`; in any thread but the main one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _take) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def resumed_by(command: str) -> Iterator[None]:
    """Let an interruption of the block say which command goes on."""
    try:
        yield
    except Interrupted as interruption:
        interruption.resume = command
        raise


@contextmanager
def signals_held() -> Iterator[None]:
    """Let a signal wait for :func:`end_if_asked` or the end of the block; a second one does not wait."""
    _waiting.depth += 1
    try:
        yield
        end_if_asked()
    finally:
        _waiting.depth -= 1
        _waiting.number = None


def is_asked_to_end() -> bool:
    """Return whether a signal waits."""
    return _waiting.number is not None


def end_if_asked() -> None:
    """End here, where everything is saved, if a signal waits.

    Raises
    ------
    Interrupted
    """
    if _waiting.number is not None:
        raise Interrupted(_waiting.number)


def _take(number: int, frame: FrameType | None) -> None:
    if not _waiting.depth or is_asked_to_end():
        raise Interrupted(number)
    _waiting.number = number
