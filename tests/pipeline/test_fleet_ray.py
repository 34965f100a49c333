"""A fleet by the command on a Ray cluster of two nodes of this machine: one loses power, or the driver is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.journey.test_journey import DECLARED, write_market
from tests.pipeline.test_fleet import NUM_WORKERS, digest_of, finished_in, ledger_of, run

# Not imported here: what it reads from the environment is read then.
pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'barcast[ray]'"),
]

NUM_SYMBOLS = 96
#: Of the symbols so many are done before anything is killed.
MARK = NUM_SYMBOLS // 4
#: Seconds that nothing takes that comes to an end at all.
WAIT = 900
#: Read by Ray as it starts: nothing is told to its makers, and 127.0.0.1 is taken as it is written.
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
#: Fits of a tenth of a second and more: nobody is done before both nodes have begun.
FITS = ["--preset", "high", "--horizon", "1,5", "--min-rows", "200"]


def command(root, *by) -> list[str]:
    """One symbol is with a worker at a time, so that the ledger's attempts count those that were begun."""
    return [sys.executable, "-m", "barcast", "fleet", "trees", "-w", str(root), *FITS, "--quiet", "--no-report",
            "--workers", str(NUM_WORKERS), "--batch-size", "1", *by]  # fmt: skip


@contextmanager
def fleet_at_work(root, *by):
    """Run the command beside the block; it does not outlive it."""
    with (root / "said").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(command(root, *by), stdout=subprocess.DEVNULL, stderr=said)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def assert_ends_well(process, root) -> None:
    assert process.wait(WAIT) == 0, (root / "said").read_text()[-3000:]


def wait_until(holds, process, root) -> None:
    """Wait for a condition for as long as the command is at work, however slow the machine."""
    end = time.monotonic() + WAIT
    while not holds():
        assert process.poll() is None, f"ended too early: {(root / 'said').read_text()[-3000:]}"
        assert time.monotonic() < end, f"{finished_in(root)} of {NUM_SYMBOLS} symbols done, and still waiting"
        time.sleep(0.005)


def raylets_of(*nodes) -> list[int]:
    """Processes that have the workers of nodes as their children; one that was ended is not among them."""
    return [each.process.pid for node in nodes for each in node.all_processes.get("raylet", ())]


def children_of(pids) -> list[int]:
    """Processes that any thread of these processes started."""
    found = []
    for pid in pids:
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):  # the thread may be gone
                found += map(int, listed.read_text().split())
    return found


def kill_all(pids) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_fitting(node) -> bool:
    """Whether a worker of a node is in the middle of a symbol: Ray names processes by what they run."""
    for pid in children_of(raylets_of(node)):
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::RayWorker.run"):
                return True
    return False


def cut_off(cluster, node) -> None:
    """End a node with everything on it at once, as a power failure does."""
    raylets = raylets_of(node)
    kill_all([*raylets, *children_of(raylets)])
    cluster.remove_node(node, allow_graceful=False)


@contextmanager
def two_nodes():
    """A cluster of two nodes of one CPU each that listen on this machine alone; nothing of it is left after the block.

    A driver connects to the first one.
    """
    from ray.cluster_utils import Cluster

    asked = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "wait": False}
    before, cluster = signal.getsignal(signal.SIGTERM), Cluster()
    try:
        cluster.add_node(include_dashboard=False, **asked)
        second = cluster.add_node(**asked)
        cluster.wait_for_nodes(WAIT)
        yield cluster, second
    finally:
        workers = children_of(raylets_of(*cluster.list_all_nodes()))
        try:
            cluster.shutdown()
        finally:
            kill_all(workers)
            signal.signal(signal.SIGTERM, before)  # Ray takes it without asking


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A workspace with a market."""
    root = tmp_path_factory.mktemp("market")
    write_market(root / "bars", symbols=NUM_SYMBOLS, sessions=700)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED) == 0
    return root


@pytest.fixture(scope="module")
def expected(market, tmp_path_factory):
    """What an uninterrupted fleet by processes of this machine comes to."""
    root = shutil.copytree(market, tmp_path_factory.mktemp("whole") / "ws")
    with fleet_at_work(root) as process:
        assert_ends_well(process, root)
    assert finished_in(root) == NUM_SYMBOLS
    return digest_of(root)


@pytest.fixture
def place(market, tmp_path, monkeypatch):
    """A workspace of its own for one test, and a Ray that keeps to this machine."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    return shutil.copytree(market, tmp_path / "ws")


def rows_in(root, *status):
    with ledger_of(root) as ledger:
        return {row.symbol: row for row in ledger.rows(status=status)}


def assert_is_whole(root, done_before, expected) -> dict[str, int]:
    """Every symbol is done, once, with the bytes expected; return the attempts of those that were begun again."""
    with ledger_of(root) as ledger:
        rows = {row.symbol: row for row in ledger.rows()}
        kept = {symbol: sha256(model).hexdigest() for symbol, model in ledger.models()}
    assert len(rows) == NUM_SYMBOLS
    assert {row.status for row in rows.values()} == {"done"}
    assert kept == {symbol: row.content for symbol, row in rows.items()}
    assert digest_of(root) == expected
    for symbol, before in done_before.items():
        now = rows[symbol]
        assert (now.attempts, now.finished_at, now.seconds) == (1, before.finished_at, before.seconds)
    return {symbol: row.attempts for symbol, row in rows.items() if row.attempts > 1}


def test_a_node_that_dies_costs_the_symbol_that_its_worker_was_at(place, expected, soak_table):
    what = (
        f"fleet of {NUM_SYMBOLS} symbols on a Ray cluster of two nodes, one killed on the way: "
        "complete, the bytes of a fleet by processes, nothing finished is begun again"
    )
    with soak_table.judging("fleet", what) as found, two_nodes() as (cluster, second):
        by = ("--executor", "ray", "--address", cluster.address)
        with fleet_at_work(place, *by) as process:
            wait_until(lambda: finished_in(place) >= MARK and is_fitting(second), process, place)
            done = rows_in(place, "done")
            wait_until(lambda: is_fitting(second), process, place)
            cut_off(cluster, second)
            assert_ends_well(process, place)
        again = assert_is_whole(place, done, expected)
        found.append(f"killed after {len(done)}, {len(again)} begun again")
        assert MARK <= len(done) < NUM_SYMBOLS
        assert list(again.values()) == [2]


def test_a_driver_that_is_killed_is_resumed_by_the_same_command(place, expected, soak_table):
    what = (
        f"fleet of {NUM_SYMBOLS} symbols on a Ray cluster of two nodes, its driver killed: the same command ends "
        f"in the same bytes, at most {NUM_WORKERS} symbols begun again"
    )
    with soak_table.judging("fleet", what) as found, two_nodes() as (cluster, second):
        by = ("--executor", "ray", "--address", cluster.address)
        with fleet_at_work(place, *by) as process:
            both = (cluster.head_node, second)
            wait_until(lambda: finished_in(place) >= MARK and all(map(is_fitting, both)), process, place)
            process.kill()
            process.wait()
        done, at_work = rows_in(place, "done"), rows_in(place, "running")
        with fleet_at_work(place, *by) as process:
            assert_ends_well(process, place)
        again = assert_is_whole(place, done, expected)
        found.append(f"killed after {len(done)}, {len(again)} begun again")
        assert MARK <= len(done) < NUM_SYMBOLS
        assert again == dict.fromkeys(at_work, 2)
        assert len(again) <= NUM_WORKERS
