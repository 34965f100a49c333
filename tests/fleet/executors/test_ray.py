import os
import signal
import socket
from contextlib import closing
from importlib.util import find_spec

import numpy as np
import pytest

from barcast.core.errors import ResourceError
from barcast.fleet.executors import executor
from barcast.fleet.executors import ray as module
from barcast.fleet.executors.pool import Broken, Report
from tests.fleet.executors.driving import drive, symbols_of
from tests.fleet.executors.fits import units
from tests.fleet.executors.test_executors import source

# Not imported here: what it reads from the environment is read then.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def ray():
    """One Ray of this machine for all tests; its start takes seconds."""
    before = signal.getsignal(signal.SIGTERM)
    ray, is_ours = module._connect(2, None)
    assert is_ours
    assert signal.getsignal(signal.SIGTERM) is before
    yield ray
    ray.shutdown()


def test_it_speaks_to_nobody_else(ray):
    assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_every_unit_comes_back_once_or_as_lost(ray, tmp_path):
    fatal = source("deadly", symbols=["S0017", "S0040"], log=str(tmp_path / "log"))
    with closing(executor("ray", 2, fatal)) as pool:
        finished = drive(pool, units(120))
        assert pool.capacity > 4
    assert ray.is_initialized()  # the connection was there before and stays
    assert symbols_of(finished) == [each.symbols[0] for each in units(120)]
    assert symbols_of(each for each in finished if each.lost) == ["S0017", "S0040"]
    done = [each for each in finished if not each.lost]
    assert all(each.results[0].model.decode() == each.unit.symbols[0] for each in done)
    assert all(each.memory_bytes > 1e6 for each in done)


def test_arrays_travel_with_the_source(ray):
    array = np.arange(1e6).reshape(4, -1)  # more than Ray sends along with a call
    with closing(executor("ray", 2, source("holding", array=array))) as pool:
        finished = drive(pool, units(5))
    sums = {each.unit.positions[0]: each.results[0] for each in finished}
    assert [sums[i].metrics["sum"] for i in range(4)] == array.sum(axis=1).tolist()
    assert sums[4].status == "failed"
    assert "IndexError" in sums[4].reason


def test_a_worker_says_that_it_cannot_begin_or_has_grown(monkeypatch):
    monkeypatch.setattr(module, "use_one_thread", lambda: None)  # of this process too
    assert module.RayWorker(source("unable"), None, []).begin() == Broken(
        "the folder is gone", "prepare it again"
    )
    worker = module.RayWorker(source("greedy", mib=60), 1, [])
    assert worker.begin() == Report()
    report = worker.run(units(30))
    assert report.leaves
    assert 2 <= len(report.outcomes) < 30
    assert worker.run(units(2)) == Report((), leaves=True)  # what was under way to it is left to others


def test_a_cluster_that_is_not_there_is_told(monkeypatch):
    import ray as plain

    def refuse(error):
        def init(*arguments, **options):
            raise error

        monkeypatch.setattr(plain, "init", init)

    monkeypatch.setattr(plain, "is_initialized", lambda: False)
    refuse(ConnectionError("Ray is trying to start at 10.0.0.1\nand more"))
    with pytest.raises(ResourceError, match=r"no Ray cluster at auto: Ray is trying.*\n  -> start one"):
        executor("ray", 2, source("busy"), address="auto")
    refuse(ValueError("Invalid address format: nowhere"))
    with pytest.raises(ResourceError, match=r"no Ray cluster at nowhere: Invalid address"):
        executor("ray", 2, source("busy"), address="nowhere")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_an_address_where_nobody_answers_is_told_at_once(monkeypatch, host):
    import ray as plain

    monkeypatch.setattr(plain, "is_initialized", lambda: False)
    monkeypatch.setattr(plain, "init", lambda *_, **__: pytest.fail("Ray tries for a quarter of an hour"))
    with socket.socket() as silent:
        silent.bind(("", 0))  # taken, but nobody listens
        port = silent.getsockname()[1]
        with pytest.raises(ResourceError, match=rf"no Ray cluster at .*:{port}: .*refused"):
            executor("ray", 2, source("busy"), address=f"{host}:{port}")
