"""The mirror goes on where a tracker stands, and no tracker's failure reaches the training."""

import io
import shutil
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.tracking import mirror as mirrors
from barcast.tracking.config import Place
from barcast.tracking.mirror import Mirror
from barcast.tracking.registry import TRACKERS
from tests.tracking.fake import Fake
from tests.tracking.readers import EACH, INSTALLED, OTHERS_WARNINGS, stored, without_repeats

pytestmark = OTHERS_WARNINGS


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = tmp_path / "runs" / "lstm-1"
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    run.write("run.json", {"name": "lstm-1", "id": "1", "num_symbols": 3, "status": "running"})
    run.write("config.json", {"model": "lstm", "train": {"lr": 0.5}, "data": {"symbols": ["S" * 9] * 5000}})
    return run


def place(run, project="barcast", online=False):
    return Place(run.path.parents[1], project, "", online)


def line(step, **more):
    return {"step": step, "epoch": step / 2, "train_loss": 1.0 / step, "stop_score": None, **more}


def attempt(run, trackers, steps, *, fresh=False, where=None, note=None):
    """Follow a run for some lines and leave it as a kill would."""
    mirror = Mirror(trackers, where or place(run))
    progress = Progress(enabled=note is not None, stream=note or io.StringIO())
    followed = mirror.follow(run, progress, fresh=fresh)
    for step in steps:
        followed.append_metrics(line(step))
    return mirror


# --- what is sent ------------------------------------------------------------------------------------------


def test_without_trackers_nothing_happens(run):
    before = sorted(path.name for path in run.path.iterdir())
    mirror = Mirror()
    with mirror.closing():
        assert mirror.follow(run, Progress(False)) is run
        mirror.results({"a": 1.0}, {})
    assert sorted(path.name for path in run.path.iterdir()) == before
    assert "tracking" not in run.info


def test_numbers_are_sent_and_what_is_no_finite_number_is_not(run):
    fake = Fake()
    mirror = attempt(run, {"fake": fake}, [])
    mirror.follow(run, Progress(False)).append_metrics(
        line(4, bad=float("nan"), text="x", flag=True, table={"a": 1}, whole=7)
    )
    assert fake.told("log") == [(4, {"epoch": 2.0, "train_loss": 0.25, "whole": 7.0})]
    about = fake.told("start")[0][0]
    assert about.config["train.lr"] == "0.5"
    assert len(about.config["data.symbols"]) <= 500
    assert about.facts["folder"] == "runs/lstm-1"


def test_a_run_that_goes_on_is_not_told_again_what_it_knows(run):
    attempt(run, {"fake": Fake()}, [1, 2, 3])
    run.keep_metrics(2)  # the checkpoint was before step 3, which is trained again
    second = Fake()
    attempt(run, {"fake": second}, [3, 4])
    assert second.told("start")[0][1]["id"] == "first"
    assert [step for step, _ in second.told("log")] == [4]


def test_a_tracker_that_comes_later_gets_the_whole_curve(run):
    attempt(run, {"early": Fake()}, [1, 2])
    late = Fake()
    attempt(run, {"late": late}, [3])
    assert [step for step, _ in late.told("log")] == [1, 2, 3]
    assert {"early", "late"} == set(run.read(mirrors.MEMORY))


@pytest.mark.parametrize("change", ["fresh", "project", "online", "damaged"])
def test_another_training_or_place_is_another_tracked_run(run, change):
    attempt(run, {"fake": Fake()}, [1, 2])
    if change == "damaged":
        (run.path / mirrors.MEMORY).write_text("{")
    second = Fake()
    where = place(run, "other" if change == "project" else "barcast", change == "online")
    attempt(run, {"fake": second}, [3], fresh=change == "fresh", where=where)
    assert second.told("start")[0][1] == {}
    assert [step for step, _ in second.told("log")] == ([3] if change == "fresh" else [1, 2, 3])


def test_another_run_is_not_followed(run, tmp_path):
    mirror = attempt(run, {"fake": Fake()}, [1])
    other = RunFolder(tmp_path / "other")
    assert mirror.follow(other, Progress(False)) is other


def test_results_are_sent_once(run):
    for _ in range(2):
        fake = Fake()
        mirror = attempt(run, {"fake": fake}, [])
        mirror.results({"route/h5/rank_ic": 0.1, "route/h5/ic": float("nan")}, {"path/report": "x"})
        told = fake.told("summarise")
        assert told in ([(0, {"route/h5/rank_ic": 0.1}, {"path/report": "x"})], [])
    assert told == []
    mirror.results({"route/h5/rank_ic": 0.2}, {})
    assert len(fake.told("summarise")) == 1


# --- how it ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), (ValueError("no labels"), "failed"), (KeyboardInterrupt(), "interrupted"),
     (SystemExit(143), "interrupted")],
)  # fmt: skip
def test_the_end_is_told_and_goes_on(run, error, status):
    fake = Fake()
    mirror = attempt(run, {"fake": fake}, [1])
    raised = None
    try:
        with mirror.closing():
            if error is not None:
                raise error
    except BaseException as found:
        raised = found
    assert raised is error
    ((told, reason),) = fake.told("finish")
    assert told == run.info["tracking"]["fake"] == status
    assert ("no labels" in reason) == isinstance(error, ValueError)


@pytest.mark.parametrize("fails_at", ["start", "log", "summarise", "finish"])
@pytest.mark.parametrize("error", [OSError("no such host"), SystemExit(1)], ids=["error", "exit"])
def test_a_failing_tracker_is_switched_off_with_one_note(run, fails_at, error):
    notes, broken, sound = io.StringIO(), Fake(fails_at, error), Fake()
    mirror = attempt(run, {"broken": broken, "sound": sound}, [], note=notes)
    with mirror.closing():
        followed = mirror.follow(run, Progress(False))
        for step in (1, 2):
            followed.append_metrics(line(step))
        mirror.results({"a": 1.0}, {})
    assert [each["step"] for each in run.read_metrics()] == [1, 2]
    assert [len(sound.told(what)) for what in ("start", "log", "summarise", "finish")] == [1, 2, 1, 1]
    assert len(broken.told(fails_at)) == (2 if fails_at == "finish" else 1)  # the end is tried, then given up
    assert notes.getvalue().count("tracking by broken is off for this run") == 1
    state = run.info["tracking"]
    assert state["broken"].startswith("off: ") and type(error).__name__ in state["broken"]
    assert state["sound"] == "finished"


def test_what_a_library_says_is_kept_without_secrets(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "planted-token")
    monkeypatch.setenv("SOME_API_KEY", "planted-key")
    error = OSError("401 for https://me:planted-password@host/x with planted-token, planted-key\nsecond line")
    notes = io.StringIO()
    mirror = attempt(run, {"broken": Fake("log", error), "sound": (sound := Fake())}, [1], note=notes)
    with pytest.raises(OSError, match="401"), mirror.closing():
        raise error
    said = notes.getvalue() + (run.path / "run.json").read_text() + str(sound.told("finish"))
    assert "401 for https://***@host/x" in said
    assert "planted" not in said


def test_a_disk_that_keeps_no_memory_stops_nothing(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    fake = Fake()
    mirror = attempt(run, {"fake": fake}, [1])
    monkeypatch.setattr(RunFolder, "write", full)
    mirror.line(line(2))
    assert [step for step, _ in fake.told("log")] == [1, 2]


# --- the real libraries ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory) -> Path:
    """MLflow's tables, which take a second to make."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    if "mlflow" in INSTALLED:
        from mlflow import MlflowClient

        MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def real(run, empty_database):
    """Makes the tracker of a library for the run."""

    def make(name):
        folder = place(run).folder
        if name == "mlflow" and not folder.exists():
            folder.mkdir()
            shutil.copy(empty_database, folder)
        return {name: TRACKERS[name].make(place(run))}

    return make


@pytest.mark.parametrize("name", EACH)
def test_a_killed_run_goes_on_in_the_same_tracked_run(name, run, real):
    """The first process is left without an end; a second one goes on, and a third finds it finished."""
    first = attempt(run, real(name), [1, 2, 3])
    key = _key(name, run)
    _leave(name, first)
    run.keep_metrics(2)
    mirror = attempt(run, real(name), [3, 4])
    with mirror.closing():
        mirror.results({"route/h5/rank_ic": 0.125}, {"path/report": "runs/lstm-1/report.html"})
    (one,) = stored(name, run.path.parents[1])
    assert _key(name, run) == key
    assert [step for step, _ in one.points["train_loss"]] == [1, 2, 3, 4]
    assert one.points["route/h5/rank_ic"] == [(4, 0.125)]
    assert without_repeats(one.points)
    assert one.status == "finished"


@pytest.mark.parametrize("name", [case for case in EACH if case.values[0] != "swanlab"])
def test_a_kill_between_the_tracker_and_its_memory_repeats_no_step(name, run, real):
    first = attempt(run, real(name), [1, 2])
    memory = (run.path / mirrors.MEMORY).read_text()
    first.line(line(3))
    (run.path / mirrors.MEMORY).write_text(memory)
    _leave(name, first)
    mirror = attempt(run, real(name), [3, 4])
    with mirror.closing():
        pass
    (one,) = stored(name, run.path.parents[1])
    assert [step for step, _ in one.points["train_loss"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", [case for case in EACH if case.values[0] != "swanlab"])
def test_no_step_of_an_ensembles_networks_is_sent_twice(name, run, real):
    """Their numbers bear the seed, and the tracker alone knows that the third evaluation has arrived."""

    def of_member(total):
        return {**line(1 + (total - 1) % 2), "member": (total - 1) // 2, "total_step": total}

    first = attempt(run, real(name), [])
    for total in (1, 2):
        run.append_metrics(of_member(total))
        first.line(of_member(total))
    memory = (run.path / mirrors.MEMORY).read_text()
    run.append_metrics(of_member(3))
    first.line(of_member(3))
    (run.path / mirrors.MEMORY).write_text(memory)
    _leave(name, first)
    mirror = attempt(run, real(name), [])
    with mirror.closing():
        mirror.follow(run, Progress(False)).append_metrics(of_member(4))
    (one,) = stored(name, run.path.parents[1])
    assert without_repeats(one.points)
    assert [step for step, _ in one.points["seed-0/train_loss"]] == [1, 2]
    assert [step for step, _ in one.points["seed-1/train_loss"]] == [3, 4]


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("it broke"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_failed_and_an_interrupted_run_are_told_apart(name, run, real, error, status):
    mirror = attempt(run, real(name), [1])
    with pytest.raises(type(error)), mirror.closing():
        raise error
    (one,) = stored(name, run.path.parents[1])
    assert one.status == status
    assert ("it broke" in one.reason) == (status == "failed")


@pytest.mark.skipif("mlflow" not in INSTALLED, reason="pip install 'barcast[mlflow]'")
def test_a_server_that_errs_is_one_note_without_its_password(run, monkeypatch):
    asked = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Authorization"])
            self.send_error(500)

        def log_message(self, *_):
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:planted@127.0.0.1:{server.server_port}")
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "planted-token")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        where, notes = place(run, online=True), io.StringIO()
        attempt(run, {"mlflow": TRACKERS["mlflow"].make(where)}, [1, 2], where=where, note=notes)
        server.shutdown()
    assert len(asked) == 1 and asked[0], "the library reads its secret itself"
    assert [each["step"] for each in run.read_metrics()] == [1, 2]
    assert notes.getvalue().count("tracking by mlflow is off for this run") == 1
    assert "planted" not in notes.getvalue()
    for path in run.path.parents[1].rglob("*"):
        assert not path.is_file() or b"planted" not in path.read_bytes(), path


@pytest.mark.parametrize("name", EACH)
def test_a_tracked_run_that_was_removed_is_made_again(name, run, real):
    with attempt(run, real(name), [1, 2]).closing():
        pass
    if name == "mlflow":
        from mlflow import MlflowClient

        database = place(run).folder / "mlflow.db"
        MlflowClient(tracking_uri=f"sqlite:///{database}").delete_run(_key(name, run))
    else:
        place(run).folder.rename(run.path / "moved")
    with attempt(run, real(name), [3]).closing():
        pass
    (one,) = stored(name, run.path.parents[1])
    assert [step for step, _ in one.points["train_loss"]] == [1, 2, 3]


def _key(name, run):
    memory = run.read(mirrors.MEMORY)[name]
    return memory["folder"] if name == "tensorboard" else memory["run_id"]


def _leave(name, mirror):
    """Let go of what a killed process would: one process holds one SwanLab run at a time."""
    if name == "swanlab":
        mirror._trackers[name]._run.finish(state="aborted")
    elif name == "tensorboard":
        mirror._trackers[name]._writer.close()


def test_swanlab_keeps_the_files_of_the_last_attempt_only(run, real):
    pytest.importorskip("swanlab", reason="pip install 'barcast[swanlab]'")
    folder = run.path.parents[1] / "tracking" / "swanlab"
    (stranger := folder / "run-of-somebody-else").mkdir(parents=True)
    for step in (1, 2):
        with attempt(run, real("swanlab"), [step]).closing():
            pass
    assert len([path for path in folder.glob("run-*") if path != stranger]) == 1
    assert stranger.is_dir()


def test_swanlab_leaves_the_program_its_own_handling_of_ctrl_c(run, real):
    pytest.importorskip("swanlab", reason="pip install 'barcast[swanlab]'")
    import signal
    import sys

    before = signal.getsignal(signal.SIGINT), sys.excepthook
    mirror = attempt(run, real("swanlab"), [1])
    assert (signal.getsignal(signal.SIGINT), sys.excepthook) == before

    def ours(*_):
        """What a training installs while it runs."""

    signal.signal(signal.SIGINT, ours)
    try:
        with mirror.closing():
            pass
        assert signal.getsignal(signal.SIGINT) is ours
    finally:
        signal.signal(signal.SIGINT, before[0])


def test_the_path_below_the_workspace_names_nobody(run):
    about = mirrors.about_run(run, Path(run.path.parents[1]))
    assert not any(str(Path.home()) in value for value in about.facts.values() if str(Path.home()) != "/")
