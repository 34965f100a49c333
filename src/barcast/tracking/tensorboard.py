"""TensorBoard: event files in the workspace, never anything else."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from barcast.tracking.base import About
from barcast.tracking.config import Place


class TensorBoardTracker:
    """Writes ``tracking/tensorboard/PROJECT/RUN-TIME``."""

    def __init__(self, place: Place) -> None:
        self._logs = place.folder / "tensorboard"
        self._project = self._logs / place.project
        self._writer: Any = None

    def start(self, about: About, remembered: Mapping[str, Any]) -> dict[str, Any]:
        """Open the folder; events after the last step that was remembered are hidden (a kill in between)."""
        from torch.utils.tensorboard import SummaryWriter

        kept = dict(remembered)
        folder = self._project / str(kept.get("folder"))
        if not (kept and folder.is_dir()):
            began = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
            kept = {"folder": f"{about.name}-{began}"}
            folder = self._project / kept["folder"]
        purge = kept["step"] + 1 if "step" in kept else None
        self._writer = SummaryWriter(str(folder), purge_step=purge)
        self._tell("config", about.config, 0)
        self._tell("facts", about.facts, 0)
        self._writer.flush()
        return kept

    def where(self) -> str:
        """Say how a person looks at it."""
        return f"to see it: tensorboard --logdir {shlex.quote(str(self._logs))}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of one evaluation; on disk when it returns."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def summarise(self, step: int, scores: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """Write scores as points on the last step, paths as a table."""
        self.log(step, scores)
        self._tell("results", facts, step)

    def finish(self, status: str, reason: str) -> None:
        """Write the status and close the file."""
        if self._writer is not None:
            self._tell("status", {"status": status, "reason": reason}, 0)
            self._writer.close()

    def _tell(self, tag: str, values: Mapping[str, str], step: int) -> None:
        """Write a table, which TensorBoard shows from Markdown."""
        rows = [f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in values.items()]
        self._writer.add_text(tag, "\n".join(["| name | value |", "| --- | --- |", *rows]), step)
