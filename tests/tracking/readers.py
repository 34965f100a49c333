"""What a tracker's own library says is stored, in one form for all: the tests compare it with metrics.jsonl."""

import importlib.util
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from barcast.tracking.registry import TRACKERS

INSTALLED = [
    name
    for name, entry in TRACKERS.items()
    if all(importlib.util.find_spec(module) for module in entry.needs)
]
EACH = [
    pytest.param(
        name, marks=pytest.mark.skipif(name not in INSTALLED, reason=f"pip install 'barcast[{name}]'")
    )
    for name in TRACKERS
]

#: Deprecations that the libraries meet in the libraries they use.
OTHERS_WARNINGS = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@dataclass
class Stored:
    """One tracked run: every point of every curve in the order of writing, texts, and how it ended."""

    key: str
    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    status: str = ""
    reason: str = ""
    exact: bool = True

    def add(self, name, step, value):
        self.points.setdefault(name, []).append((step, value))


def stored(name: str, root: Path, project="barcast") -> list[Stored]:
    """All tracked runs of a workspace."""
    return {"tensorboard": _tensorboard, "mlflow": _mlflow, "swanlab": _swanlab}[name](
        root / "tracking", project
    )


def _tensorboard(folder, project):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for run in sorted((folder / "tensorboard" / project).iterdir()):
        events = EventAccumulator(str(run))
        events.Reload()
        one = Stored(run.name, exact=False)  # float32
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                one.add(tag, event.step, event.value)
        for tag in events.Tags()["tensors"]:
            table = events.Tensors(tag)[-1].tensor_proto.string_val[0].decode().splitlines()[2:]
            one.texts.update(tuple(line[2:-2].split(" | ", 1)) for line in table)
        one.status, one.reason = one.texts.pop("status", ""), one.texts.pop("reason", "").strip()
        found.append(one)
    return found


def _mlflow(folder, project):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(project)
    found = []
    for run in client.search_runs([experiment.experiment_id]):
        said = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted"}
        one = Stored(run.info.run_id, status=said.get(run.info.status, run.info.status))
        for name in run.data.metrics:
            for point in client.get_metric_history(run.info.run_id, name):
                one.add(name, point.step, point.value)
        one.texts = {**run.data.params, **run.data.tags}
        one.reason = one.texts.pop("reason", "")
        found.append(one)
    return found


def _swanlab(folder, project):
    import yaml
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    found = []
    for path in sorted((folder / "swanlab").glob("run-*/*.swanlab")):
        reader, one = DataStoreReader(), None
        reader.open(path)
        for data in reader:
            record = Record()
            record.ParseFromString(data)
            if record.HasField("start"):
                if record.start.project != project:
                    break
                one = Stored(record.start.id)
            if record.HasField("scalar"):
                one.add(record.scalar.key, record.scalar.step, record.scalar.value.number)
            if record.HasField("finish"):
                said = {0: "running", 1: "finished", 2: "failed", 3: "interrupted"}
                one.status, one.reason = said[record.finish.state], record.finish.error
        reader.close()
        if one:
            config = yaml.safe_load((path.parent / "files" / "config.yaml").read_text(encoding="utf-8"))
            one.texts = {name: entry["value"] for name, entry in config.items()}
            found.append(one)
    return found


def without_repeats(points):
    """Whether each step of every curve is there once."""
    return all(a < b for curve in points.values() for (a, _), (b, _) in itertools.pairwise(curve))
