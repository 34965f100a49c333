"""A real training with every tracker that is installed, in its own process, read back with the libraries' readers.

The environment is full of planted secrets and of invitations to use the network; every try to connect is written
down by a guard.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import barcast
from barcast.core.runs import list_runs
from barcast.core.workspace import Workspace
from barcast.tracking.registry import TRACKERS
from tests.journey.test_journey import write_market
from tests.tracking.readers import EACH, INSTALLED, OTHERS_WARNINGS, stored, without_repeats

pytestmark = OTHERS_WARNINGS

SECRETS = {
    "SWANLAB_API_KEY": "planted-swanlab-key",
    "MLFLOW_TRACKING_TOKEN": "planted-mlflow-token",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password",
    "MLFLOW_TRACKING_URI": "https://someone:planted-in-an-address@tracking.invalid",
    "SWANLAB_WEBHOOK": "https://hook.invalid/planted-in-a-hook",
}
#: Under these a library may hold its telemetry back, and the guard would have nothing to see.
OF_THE_TEST = ("CI", "PYTEST_CURRENT_TEST", "PYTEST_VERSION", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")
GUARD = """
import os, socket
def refuse(self, address, *rest):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        with open(os.environ["GUARD_LOG"], "a") as file:
            file.write(f"{address}\\n")
        raise OSError(101, "no network in this test")
    return connect(self, address, *rest)
def resolve(host, *rest, **more):
    if host not in (None, "127.0.0.1", "::1", "localhost"):
        with open(os.environ["GUARD_LOG"], "a") as file:
            file.write(f"{host}\\n")
        raise socket.gaierror(-2, "no network in this test")
    return getaddrinfo(host, *rest, **more)
connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo
socket.socket.connect, socket.getaddrinfo = refuse, resolve
"""
TINY = [
    "--epochs", "3", "--hidden-size", "8", "--num-layers", "1", "--look-back-window", "20", "--amp", "off",
    "--batch-size", "2400", "--limit", "31",
]  # fmt: skip


def guarded(folder: Path, *command: str):
    """Run Python under the guard; return the finished process and what it tried to reach."""
    guard = folder / "guard"
    guard.mkdir(exist_ok=True)
    (guard / "sitecustomize.py").write_text(GUARD)
    (log := guard / "log").write_text("")
    (login := folder / "login").mkdir(exist_ok=True)
    (login / ".netrc").write_text("machine https://a.invalid login b password planted-netrc\n")
    kept = {name: value for name, value in os.environ.items() if name not in OF_THE_TEST}
    path = os.pathsep.join([str(guard), *filter(None, [kept.get("PYTHONPATH")])])
    environment = {
        **kept, **SECRETS, "PYTHONPATH": path, "GUARD_LOG": str(log), "SWANLAB_DEBUG": "true",
        "SWANLAB_ROOT": str(login),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *command], env=environment, cwd=folder, capture_output=True, text=True, timeout=120
    )
    return done, log.read_text().split("\n")[:-1]


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="elsewhere trackers that are missing are skipped")
def test_ci_has_every_library_and_so_skips_no_tracker():
    assert set(INSTALLED) == set(TRACKERS)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    root = tmp_path_factory.mktemp("tracked") / "a workspace"
    write_market(root / "bars", symbols=32, sessions=420)
    barcast.import_data(root / "bars", workspace=root, market="us", basis="raw", volume_unit="share")
    return root


@pytest.fixture(scope="module")
def trained(market):
    """What the command line did: its process, what it tried to reach, the run."""
    command = ["-m", "barcast", "train", "lstm", "-w", str(market), *TINY, "--json", "--no-report"]
    done, reached = guarded(market.parent, *command, "--track", ",".join(INSTALLED))
    assert done.returncode == 0, done.stderr
    run = next(run for run in list_runs(Workspace(market)) if run.info["model"] == "lstm")
    return done, reached, run


@pytest.mark.parametrize("name", EACH)
def test_what_is_stored_is_what_the_run_has(name, trained, market):
    _, _, run = trained
    (one,) = stored(name, market)
    lines = run.read_metrics()
    assert len(lines) >= 6
    tolerance = 0.0 if one.exact else 1e-6
    for metric in set(lines[0]) - {"step"}:
        expected = [(line["step"], line[metric]) for line in lines if line[metric] is not None]
        assert [step for step, _ in one.points[metric]] == [step for step, _ in expected], metric
        for (_, found), (_, value) in zip(one.points[metric], expected, strict=True):
            assert found == pytest.approx(value, rel=tolerance, abs=0.0), metric
    (scores,) = run.read("comparison.json")
    (row,) = [row for row in scores["all_rows"]["rows"] if row["model"] == "lstm"]
    place = f"{scores['segment']}/h{scores['horizon']}"
    known = {f"{place}/{score}" for score, entry in row["scores"].items() if entry["value"] is not None}
    assert f"{place}/rank_ic" in known
    assert set(one.points) == (set(lines[0]) - {"step"}) | known
    ((step, found),) = one.points[f"{place}/rank_ic"]
    assert found == pytest.approx(row["scores"]["rank_ic"]["value"], rel=max(tolerance, 1e-12))
    assert step == lines[-1]["step"]


@pytest.mark.parametrize("name", EACH)
def test_the_config_the_data_the_paths_and_the_status_are_stored(name, trained, market):
    _, _, run = trained
    (one,) = stored(name, market)
    config = run.read("config.json")
    assert one.texts["model"] == "lstm"
    for table in ("data", "options", "train"):
        for key, value in config[table].items():
            expected = value if isinstance(value, str) else json.dumps(value)
            assert one.texts[f"{table}.{key}"].strip() == expected
    assert one.texts["data_digest"] == run.info["data_digest"]
    for path in ("weights", "predictions", "metrics"):
        assert (market / one.texts[f"path/{path}"]).is_file()
    assert (one.status, one.reason) == ("finished", "")
    assert run.info["tracking"][name] == "finished"


def test_nothing_was_reached_and_stdout_is_the_answer_alone(trained):
    done, reached, run = trained
    assert reached == []
    assert json.loads(done.stdout)["run"] == run.name


def test_the_guard_sees_a_try(tmp_path):
    _, reached = guarded(
        tmp_path, "-c", "import urllib.request as u; u.urlopen('http://10.0.0.1', timeout=1)"
    )
    assert reached == ["10.0.0.1"]


def test_no_secret_is_written_or_said(trained, market):
    done, _, _ = trained
    assert "planted" not in done.stdout + done.stderr
    files = [path for path in market.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if b"planted" in path.read_bytes()] == []


def test_trackers_shape_no_run_and_a_second_call_repeats_nothing(trained, market):
    """The same command without, then with trackers finds the run; what was sent is not sent again."""
    _, _, run = trained
    before = {name: stored(name, market) for name in INSTALLED}
    weights = run.weights.stat().st_mtime_ns
    options = {
        "epochs": 3, "hidden_size": 8, "num_layers": 1, "look_back_window": 20, "amp": "off",
        "batch_size": 2400, "limit": 31,
    }  # fmt: skip
    plain = barcast.train("lstm", workspace=market, report=False, **options)
    again = barcast.train("lstm", workspace=market, report=False, track=INSTALLED, **options)
    assert plain.run.name == again.run.name == run.name
    assert run.weights.stat().st_mtime_ns == weights
    for name in INSTALLED:
        (one,), (was,) = stored(name, market), before[name]
        assert (one.key, one.points, one.status) == (was.key, was.points, "finished")
        assert without_repeats(one.points)
