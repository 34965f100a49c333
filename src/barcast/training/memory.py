"""What to say when a computation does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from barcast.core.errors import OutOfMemoryError

#: torch raises a RuntimeError, in words of each device.
_WORDS = ("out of memory", "not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out."""
    return isinstance(error, MemoryError) or any(said in str(error) for said in _WORDS)


@contextmanager
def memory_explained(found: str, todo: str) -> Iterator[None]:
    """Turn "out of memory", however it is raised, into an error that says what to do.

    Raises
    ------
    OutOfMemoryError
        With ``found`` and ``todo``.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(found, todo) from error
