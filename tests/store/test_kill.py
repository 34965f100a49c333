"""Whenever a writer dies: the last version is readable, and the same call then gives the same result."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from barcast.pipeline.data import import_data, update_data
from barcast.store import MarketStore
from tests.store.builders import DAYS, rows
from tests.store.test_merge import RAW, as_given, assert_same

SYMBOLS = [f"S{i:02d}" for i in range(12)]


def run(verb, workspace, given, when, seconds=1.0):
    command = [sys.executable, "-m", "tests.store.killed", verb, str(workspace), str(given), str(when)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "SECONDS": str(seconds), "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -9), done.stderr
    return [int(word) for word in done.stdout.split()] if done.returncode == 0 else None


@pytest.fixture
def market(tmp_path):
    """A folder to import, one to update with, and what the store must hold after each."""
    frame = rows(SYMBOLS)
    first = frame.filter(pl.col("time") < DAYS[250])
    late = frame.filter(pl.col("time") >= DAYS[245])
    for name, part in (("first", first), ("late", late)):
        (tmp_path / name).mkdir()
        for (symbol,), own in part.partition_by("symbol", as_dict=True).items():
            as_given(own).write_csv(tmp_path / name / f"{symbol}.csv")
    return tmp_path, first, frame


def kill_import(folder, first, when, seconds=1.0):
    """Kill an import, look, kill nothing: the store must be as if nothing had happened."""
    workspace = folder / "w"
    shutil.rmtree(workspace, ignore_errors=True)
    run("import", workspace, folder / "first", when, seconds)
    if (workspace / "market" / "store.json").exists():
        assert_same(MarketStore.open(workspace / "market").frame(), first)
    result = import_data(workspace, folder / "first", RAW)
    store = MarketStore.open(workspace / "market")
    assert_same(store.frame(), first)
    assert store.version == 0
    assert not (workspace / "market" / "staging").exists()
    return result


def kill_update(folder, first, frame, when, seconds=1.0):
    workspace = folder / "w"
    store = MarketStore.open(workspace / "market")
    before = store.version
    run("update", workspace, folder / "late", when, seconds)
    found = store.frame()
    assert store.frame(version=before).equals(found) or store.version == before + 1
    assert_same(found, first if found.height == first.height else frame)
    update_data(workspace, folder / "late", RAW)
    assert_same(store.frame(), frame)
    assert store.version == before + 1
    assert len(store.failures()) == 0


def test_import_killed_three_times(market, monkeypatch):
    monkeypatch.setattr("barcast.pipeline.ingest._PART_FILES", 3)
    folder, first, _ = market
    total, commit, _ = run("import", folder / "clean", folder / "first", 0)
    assert total > commit + 1 > 10
    early = kill_import(folder, first, commit // 2)
    assert early.num_resumed_files >= 3  # finished parts were not read again
    assert kill_import(folder, first, commit).num_resumed_files == 12
    assert kill_import(folder, first, commit + 1).published  # the version was there, the store not yet


def test_update_killed_three_times(market):
    folder, first, frame = market
    import_data(folder / "clean", folder / "first", RAW)
    shutil.copytree(folder / "clean", folder / "w")
    total, commit, _ = run("update", folder / "clean", folder / "late", 0)
    for when in (total // 3, commit, commit + 1):
        shutil.rmtree(folder / "w")
        import_data(folder / "w", folder / "first", RAW)
        kill_update(folder, first, frame, when)


def test_a_version_is_seen_whole_while_the_next_is_written(market):
    """Reading between a killed update and its repetition gives the old version, however often."""
    folder, first, _ = market
    import_data(folder / "w", folder / "first", RAW)
    run("update", folder / "w", folder / "late", 6)
    store = MarketStore.open(folder / "w" / "market")
    assert_same(store.frame(), first)
    assert store.info().version == 0


@pytest.mark.soak
def test_import_and_update_killed_at_every_touch_of_the_disk(market, monkeypatch, soak_table):
    monkeypatch.setattr("barcast.pipeline.ingest._PART_FILES", 3)
    folder, first, frame = market
    imports, _, _ = run("import", folder / "clean", folder / "first", 0)
    updates, _, _ = run("update", folder / "clean", folder / "late", 0)
    with soak_table.judging("store", f"import killed at each touch of the disk; update at each of {updates}"):
        for when in range(1, imports + 1):
            kill_import(folder, first, when)
        for when in range(1, updates + 1):
            shutil.rmtree(folder / "w")
            import_data(folder / "w", folder / "first", RAW)
            kill_update(folder, first, frame, when)


@pytest.mark.soak
def test_killed_at_random_moments(market, soak_table):
    folder, first, frame = market
    with soak_table.judging("store", "import and update killed at 30 random moments each"):
        for _ in range(30):
            kill_import(folder, first, "random", seconds=0.4)
            kill_update(folder, first, frame, "random", seconds=0.4)
