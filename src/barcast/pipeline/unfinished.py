"""Runs that are not done: does a process still work on them, or was it killed, and what goes on with them."""

from __future__ import annotations

from typing import Any

from barcast.core.runs import RunFolder
from barcast.store.lock import is_locked

DONE, RUNNING, INTERRUPTED = "done", "running", "interrupted"


def run_status(run: RunFolder) -> str:
    """Return ``done``, ``running`` (a process holds the run's lock) or ``interrupted`` (nobody does)."""
    if run.is_done:
        return DONE
    return RUNNING if is_locked(run.path) else INTERRUPTED


def run_facts(run: RunFolder) -> dict[str, Any]:
    """Return the content of run.json with the true status; an interrupted run says how it goes on."""
    info, status = run.info, run_status(run)
    resume = {"resume": info["command"]} if status == INTERRUPTED else {}
    return {**info, "status": status, **resume}
