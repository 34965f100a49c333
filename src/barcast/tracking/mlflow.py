"""MLflow: a SQLite file in the workspace; a tracking server only when asked."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Mapping
from typing import Any

from barcast.tracking.base import FAILED, FINISHED, INTERRUPTED, About
from barcast.tracking.config import Place

SERVER = "MLFLOW_TRACKING_URI"
_STATUS = {FINISHED: "FINISHED", FAILED: "FAILED", INTERRUPTED: "KILLED"}
#: The library's own limit on the entries of one call is 100 parameters and tags.
_MOST = 100
#: A server that does not answer holds a training up by so much, not by the library's quarter of an hour.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
#: Every line of metrics.jsonl has this number.
_ALWAYS = "epoch"


class MLflowTracker:
    """Writes runs of the experiment PROJECT."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client: Any = None
        self._run_id = ""

    def start(self, about: About, remembered: Mapping[str, Any]) -> dict[str, Any]:
        """Go on in the remembered run where it still is; else make one and write the config."""
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ.setdefault("DO_NOT_TRACK", "true")
        for name, value in _IMPATIENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports every table that it makes

        self._place.folder.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(tracking_uri=self._uri())
        if self._is_there(known := str(remembered.get("run_id", ""))):
            self._run_id = known
            self._client.update_run(known, status="RUNNING")
            return {**remembered, "step": self._last_step(known)}
        self._run_id = self._client.create_run(self._experiment(), run_name=about.name).info.run_id
        self._write(params=about.config, tags=about.facts)
        return {"run_id": self._run_id}

    def _last_step(self, known: str) -> int:
        """Return the last step that the tracker has; an ensemble's networks log under names of their own."""
        names = [
            name for name in self._client.get_run(known).data.metrics if name.rpartition("/")[2] == _ALWAYS
        ]
        points = [point for name in names for point in self._client.get_metric_history(known, name)]
        return max((point.step for point in points), default=-1)

    def where(self) -> str:
        """Say how a person looks at it; a server's address is not repeated: it may hold a password."""
        if self._place.online:
            return f"on the server of {SERVER}"
        return f"to see it: mlflow ui --backend-store-uri {shlex.quote(self._uri())}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of one evaluation."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics, synchronous=True)

    def summarise(self, step: int, scores: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """Write scores as metrics on the last step, paths as tags."""
        self.log(step, scores)
        self._write(params={}, tags=facts)

    def finish(self, status: str, reason: str) -> None:
        """End the run with its status."""
        if self._run_id:
            if reason:
                self._write(params={}, tags={"reason": reason})
            self._client.set_terminated(self._run_id, _STATUS[status])

    def _uri(self) -> str:
        return os.environ[SERVER] if self._place.online else f"sqlite:///{self._place.folder / 'mlflow.db'}"

    def _is_there(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(run_id) and self._client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _experiment(self) -> str:
        """Return the id of the experiment, which is made where it is not there."""
        found = self._client.get_experiment_by_name(self._place.project)
        if found is not None:
            return str(found.experiment_id)
        artifacts = None if self._place.online else (self._place.folder / "mlflow-artifacts").as_uri()
        return str(self._client.create_experiment(self._place.project, artifact_location=artifacts))

    def _write(self, *, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        for kind, values in ((Param, params), (RunTag, tags)):
            entries = [kind(name, value) for name, value in values.items()]
            for first in range(0, len(entries), _MOST):
                part = {"params" if kind is Param else "tags": entries[first : first + _MOST]}
                self._client.log_batch(self._run_id, **part, synchronous=True)
