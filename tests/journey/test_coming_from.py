"""The page of copied commands: each runs as it stands, in its order."""

import shlex

import pytest

from barcast.cli import app
from tests.journey.test_journey import write_market
from tests.test_docs import DOCS, marked

PAGE = DOCS / "en" / "coming-from.md"
#: Enough to be trained, not enough to be waited for.
SHORT = ["--epochs", "1", "--no-report", "--quiet"]


def commands():
    return [cells[-1].strip("`") for cells in marked(PAGE, "copied")]


def test_both_languages_have_the_same_commands():
    other = [cells[-1].strip("`") for cells in marked(DOCS / "zh" / "coming-from.md", "copied")]
    assert other == commands() and len(commands()) >= 10


def test_every_copied_command_runs(tmp_path, monkeypatch):
    write_market(tmp_path / "bars", symbols=32, sessions=640)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BARCAST_WORKSPACE", raising=False)
    for command in commands():
        words = shlex.split(command)[1:]
        words += SHORT if words[0] == "train" else []
        words += ["--allow-old"] if words[0] == "predict" else []
        monkeypatch.setattr("sys.argv", ["barcast", *words])
        with pytest.raises(SystemExit) as ended:
            app.main()
        assert ended.value.code == 0, command
    assert (tmp_path / "out" / "universal" / "run.json").is_file()
