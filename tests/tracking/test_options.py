"""What may be asked of tracking, and what is refused before any work."""

import importlib.util
import subprocess
import sys

import pytest

from barcast.cli.app import _run
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace
from barcast.pipeline.settings import resolve
from barcast.tracking import registry
from barcast.tracking.config import track_settings
from barcast.tracking.registry import TRACKERS, open_mirror


@pytest.fixture(autouse=True)
def everything_is_installed(monkeypatch):
    """What is refused here has other reasons."""
    monkeypatch.setattr(registry, "find_spec", lambda name: object())
    for name in ("SWANLAB_API_KEY", "MLFLOW_TRACKING_URI", "RANK"):
        monkeypatch.delenv(name, raising=False)


def followers(mirror):
    return list(mirror._trackers)


def settings(tmp_path, text):
    (tmp_path / "barcast.toml").write_text(text, encoding="utf-8")
    return Workspace(tmp_path)


def test_trackers_come_from_the_call_or_the_settings_file(tmp_path):
    place = settings(tmp_path, '[track]\nadapters = ["tensorboard", "mlflow"]\nproject = "mine"\n')
    assert followers(open_mirror(place)) == ["tensorboard", "mlflow"]
    assert open_mirror(place)._place.project == "mine"
    assert followers(open_mirror(place, ("swanlab", "swanlab"), project="other")) == ["swanlab"]
    assert open_mirror(place, ("swanlab",), project="other", team="lab")._place.key() == {
        "project": "other", "team": "lab", "online": False,
    }  # fmt: skip
    assert followers(open_mirror(place, ("none",))) == []
    assert followers(open_mirror(Workspace(tmp_path / "empty"))) == []


def test_only_the_first_of_several_processes_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert followers(open_mirror(Workspace(tmp_path), ("mlflow",))) == []
    monkeypatch.setenv("RANK", "0")
    assert followers(open_mirror(Workspace(tmp_path), ("mlflow",))) == ["mlflow"]


@pytest.mark.parametrize(
    ("names", "options", "found"),
    [
        (("mlfow",), {}, "did you mean `mlflow`"),
        (("comet",), {}, "known: swanlab, mlflow, tensorboard, none"),
        (("none", "mlflow"), {}, "`none` is no tracker"),
        (None, {"project": "x"}, "--track-project: nothing is tracked"),
        (("none",), {"online": True}, "--track-online: nothing is tracked"),
        (("mlflow",), {"team": "x"}, "--track-workspace is read by swanlab only"),
        (("mlflow",), {"project": ""}, "--track-project` is empty"),
        (("tensorboard",), {"online": True}, "tensorboard has no servers"),
        (("swanlab",), {"online": True}, "swanlab needs SWANLAB_API_KEY in the environment"),
        (("tensorboard", "mlflow"), {"online": True}, "mlflow needs MLFLOW_TRACKING_URI"),
    ],
)
def test_what_is_refused(tmp_path, names, options, found):
    with pytest.raises(UsageError, match=found.replace("(", r"\(")):
        open_mirror(Workspace(tmp_path), names, **options)


def test_online_is_possible_with_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host.invalid")
    mirror = open_mirror(Workspace(tmp_path), ("mlflow", "tensorboard"), online=True)
    assert mirror._place.online
    assert "secret" not in mirror._trackers["mlflow"].where()


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_library_is_said_before_any_work(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(registry, "find_spec", lambda module: None)
    assert _run(["train", "lstm", "-w", str(tmp_path), "--track", name], debug=False) == 2
    said = capsys.readouterr().err
    assert f"pip install 'barcast[{name}]'" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[track]\nadaptors = ["mlflow"]', "did you mean `adapters`"),
        ('[track]\nadapters = "mlflow"', "expected a list"),
        ("track = 3", "expected a table"),
        ('[track]\nonline = true', "unknown key `online`"),
        ('[track]\napi_key = "x"', "unknown key `api_key`"),
    ],
)  # fmt: skip
def test_mistakes_in_the_table_are_said_by_every_run(tmp_path, text, found):
    place = settings(tmp_path, text)
    with pytest.raises(UsageError, match=found):
        track_settings(place)
    with pytest.raises(UsageError, match=found):
        resolve(place, "lstm")


def test_the_table_shapes_no_run(tmp_path):
    place = settings(tmp_path, '[track]\nadapters = ["mlflow"]\n')
    assert resolve(place, "lstm").identity() == resolve(Workspace(tmp_path / "empty"), "lstm").identity()


def test_no_option_takes_a_secret():
    import typer

    from barcast.cli.app import app

    command = typer.main.get_command(app).commands["train"]
    asked = {option.name for option in command.params if option.name.startswith("track")}
    assert asked == {"track", "track_project", "track_workspace", "track_online"}


def test_a_library_is_imported_only_when_its_tracker_starts():
    code = "import sys, barcast.tracking.registry; print(sorted({'mlflow', 'swanlab', 'tensorboard', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_extras_are_those_of_the_registry():
    """Each tracker's extra brings each module it needs (`mlflow-skinny` brings `mlflow`)."""
    import tomllib
    from pathlib import Path

    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for name, entry in TRACKERS.items():
        for module in entry.needs:
            assert any(line.startswith(module) for line in extras[name]), (name, module)
    assert importlib.util.find_spec("barcast.tracking") is not None
