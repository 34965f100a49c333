"""SwanLab: its offline files in the workspace; its servers only when asked."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from barcast.tracking.base import FAILED, FINISHED, INTERRUPTED, About
from barcast.tracking.config import Place

KEY = "SWANLAB_API_KEY"
_STATE = {FINISHED: "success", FAILED: "crashed", INTERRUPTED: "aborted"}


class SwanLabTracker:
    """Writes ``tracking/swanlab/run-TIME-ID``, which ``swanlab sync`` uploads.

    An offline file cannot be continued: a run that goes on is written again as a whole under the same id, and
    the file it replaces goes.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._folder = place.folder / "swanlab"
        self._run: Any = None

    def start(self, about: About, remembered: Mapping[str, Any]) -> dict[str, Any]:
        """Open a run under the remembered id, or a new one."""
        os.environ["SWANLAB_DEBUG"] = "false"  # its debug log would hold the credentials that it finds
        import swanlab

        run_id = str(remembered.get("run_id") or uuid.uuid4().hex[:21])
        self._folder.mkdir(parents=True, exist_ok=True)
        with _undisturbed():
            self._run = swanlab.init(
                mode="online" if self._place.online else "offline",
                log_dir=str(self._folder),
                project=self._place.project,
                workspace=self._place.team or None,
                name=about.name,
                id=run_id,
                resume="allow",
                config={**about.config, **about.facts},
                settings=_settings(swanlab, online=self._place.online),
            )
        if self._place.online:
            return {**remembered, "run_id": run_id}
        self._drop(str(remembered.get("folder", "")))
        return {"run_id": run_id, "folder": self._run.dir.name}

    def where(self) -> str:
        """Say how a person looks at it."""
        if self._place.online:
            return f"to see it: {self._run.url}"
        return f"to upload it: swanlab sync {shlex.quote(str(self._run.dir))}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of one evaluation."""
        with _undisturbed():
            self._run.log(dict(values), step=step)

    def summarise(self, step: int, scores: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """Write scores as points on the last step, paths beside the config."""
        self.log(step, scores)
        self._run.config.update(dict(facts))

    def finish(self, status: str, reason: str) -> None:
        """Close the run; everything is on disk when it returns."""
        if self._run is not None:
            with _undisturbed():
                self._run.finish(state=_STATE[status], error=reason or None)

    def _drop(self, name: str) -> None:
        """Remove the files that the run just opened replaces."""
        old = self._folder / name
        if name.startswith("run-") and old.parent == self._folder and old != self._run.dir:
            shutil.rmtree(old, ignore_errors=True)


def _settings(swanlab: Any, *, online: bool) -> Any:
    """Keep the library to what it is given: no terminal, no host or repository names, no questions."""
    kinds = swanlab.Settings
    probe = dict.fromkeys(
        ("hardware", "runtime", "requirements", "conda", "git", "swanlab", "monitor"), False
    )
    # Its environment can name a webhook, which it would call offline too.
    silent = {} if online else {"integration": kinds.Integration(webhook=kinds.Integration.Webhook(url=""))}
    return kinds(
        interactive=False, terminal=kinds.Terminal(proxy_type="none"), probe=kinds.Probe(**probe), **silent
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep stdout for results, and Ctrl-C and errors handled as before: the mirror closes the run itself."""
    hook, main = sys.excepthook, threading.current_thread() is threading.main_thread()
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        sys.excepthook = hook
        if main and on_interrupt is not None:
            signal.signal(signal.SIGINT, on_interrupt)
