"""Runs that are not done: is a process at work, was it killed, or did it fail, and what goes on with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from barcast.core.errors import RunError
from barcast.core.interruption import Interrupted
from barcast.core.lock import is_locked
from barcast.core.runs import RunFolder

DONE, RUNNING, INTERRUPTED, FAILED = "done", "running", "interrupted", "failed"


def run_status(run: RunFolder) -> str:
    """Return ``done``, ``running`` (a process holds the run's lock), ``failed`` or ``interrupted``."""
    if run.is_done:
        return DONE
    if is_locked(run.path):
        return RUNNING
    return FAILED if run.info["status"] == FAILED else INTERRUPTED


@contextmanager
def failure_recorded(run: RunFolder) -> Iterator[None]:
    """Write into the run what ends its making before it goes on: an error's reason, or an interruption."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as interruption:
        if (run.path / "run.json").is_file() and not run.is_done:
            run.update(status=INTERRUPTED)
            if isinstance(interruption, Interrupted):
                interruption.resume = run.info["command"]
        raise
    except Exception as error:
        if (run.path / "run.json").is_file() and not run.is_done:
            run.update(status=FAILED, reason=str(error)[:500])
        raise


def check_done(run: RunFolder) -> None:
    """Refuse a run that is not finished.

    Raises
    ------
    RunError
        With the command that goes on with it, where the run knows one.
    """
    if run.is_done:
        return
    known = going_on(run) or "run its `barcast train` again"
    raise RunError(f"run `{run.name}` is not finished", f"{known}   (it goes on where it was)")


def going_on(run: RunFolder) -> str:
    """Return the command that goes on with a run; empty where a Python program began it."""
    command = str(run.recorded.get("command", ""))
    return command.replace(" --dry-run", "") if command.startswith(("barcast ", "torchrun ")) else ""


def run_facts(run: RunFolder) -> dict[str, Any]:
    """Return the content of run.json with the true status; an unfinished run says how it goes on."""
    info, status = run.info, run_status(run)
    resume = {"resume": info["command"]} if status in (INTERRUPTED, FAILED) else {}
    return {**info, "status": status, **resume}
