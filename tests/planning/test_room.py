"""What is too large for the memory is refused where it is still to be trained, and nowhere else."""

import shutil

import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.errors import OutOfMemoryError
from barcast.planning import machine, room
from tests.planning.test_size import TINY


def test_a_finished_run_is_found_again_whatever_the_memory(stored_market, tmp_path, monkeypatch):
    shutil.copytree(stored_market / "market", tmp_path / "market")
    asked = {"workspace": tmp_path, "hidden_size": 4, "report": False, **TINY}
    first = barcast.train("mlp", **asked)
    monkeypatch.setattr(room, "host_memory", lambda: machine.HostMemory(1000, 1 << 30, "cgroup"))
    assert barcast.train("mlp", **asked).run.name == first.run.name
    for again in ({"fresh": True}, {"hidden_size": 8}):
        with pytest.raises(OutOfMemoryError, match="which take at least"):
            barcast.train("mlp", **{**asked, **again})
    (tmp_path / "barcast.toml").write_text(f"[train]\nstretch_length = {TINY['stretch_length']}\n")
    typed = ["train", "mlp", "-w", str(tmp_path), "--hidden-size", "4", "--dry-run", "-q"]
    for name in TINY.keys() - {"stretch_length"}:
        typed += [f"--{name.replace('_', '-')}", str(TINY[name])]
    assert _run(typed, debug=False) == 0
    assert _run([*typed, "--fresh"], debug=False) == 6
    assert _run([*typed, "--seed", "1"], debug=False) == 6
