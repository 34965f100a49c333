from collections import Counter
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest

from barcast.fleet.executors import executor
from tests.fleet.executors.driving import drive
from tests.fleet.executors.fits import units
from tests.fleet.executors.test_executors import ROOT, begun_in, source

# Not imported here: what it reads from the environment is read then.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@pytest.mark.soak
def test_a_node_killed_on_the_way_costs_what_was_under_way(tmp_path, monkeypatch, soak_table):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with soak_table.judging("fleet", "Ray cluster of two nodes, one killed: complete, nothing twice"):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        second = cluster.add_node(num_cpus=1)
        count, log = 400, tmp_path / "log"
        try:
            with closing(
                executor("ray", 2, source("busy", seconds=0.02, log=str(log)), address=cluster.address)
            ) as pool:
                killed = []

                def kill_once(each):
                    both = len({pid for _, pid in begun_in(log)}) == 2
                    if both and not killed and len(begun_in(log)) > 100:
                        killed.append(each)
                        cluster.remove_node(second, allow_graceful=False)

                finished = drive(pool, units(count), seconds=200, on_finished=kill_once)
                lost = [each.unit for each in finished if each.lost]
                finished += drive(pool, lost, seconds=100)
        finally:
            cluster.shutdown()
        assert killed
        done = Counter(each.unit.symbols[0] for each in finished if not each.lost)
        assert done == Counter(each.symbols[0] for each in units(count))
        assert len(lost) <= 1
        again = len(begun_in(Path(log))) - count
        assert again <= 12  # the chunk under way
