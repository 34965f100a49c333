import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from barcast.core.errors import BarcastError, ResourceError, UsageError
from barcast.fleet.executors import executor
from barcast.fleet.executors.pool import AHEAD_SECONDS, Pace
from barcast.fleet.work import FitSource, Unit
from tests.fleet.executors.driving import drive, symbols_of
from tests.fleet.executors.fits import units

ROOT = Path(__file__).parents[3]


def source(function, **arguments):
    return FitSource("tests.fleet.executors.fits", function, arguments)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def begun_in(log):
    """What was begun, in order: symbols and processes."""
    return [line.split() for line in Path(log).read_text().splitlines()]


@pytest.mark.parametrize("name", ["serial", "processes"])
def test_every_unit_comes_back_once(name):
    with closing(executor(name, 2, source("busy"))) as pool:
        assert pool.results(5.0) == []  # nothing is under way
        todo = units(60)
        finished = drive(pool, todo)
        assert symbols_of(finished) == [each.symbols[0] for each in todo]
        assert all(each.unit is todo[each.unit.positions[0]] for each in finished)
        assert all(
            each.results[0].model.decode() == each.unit.symbols[0] and not each.lost for each in finished
        )
        assert all(each.seconds >= 0.002 and each.memory_bytes > 1e6 for each in finished)
        ours = {each.results[0].metrics["pid"] == os.getpid() for each in finished}
        assert ours == {name == "serial"}


@pytest.mark.parametrize("name", ["serial", "processes"])
def test_an_error_of_the_fit_is_the_failure_of_its_symbol(name, capfd):
    with closing(executor(name, 2, source("faulty"))) as pool:
        finished = drive(pool, units(6))
    by_position = {each.unit.positions[0]: each.results[0] for each in finished}
    assert [by_position[i].status for i in range(6)] == ["done", "failed"] * 3
    assert by_position[1].reason == "ZeroDivisionError: division by zero"
    assert by_position[1].preset == "fast"
    if name == "processes":  # the output is ours alone
        assert capfd.readouterr().out == ""


def test_results_say_what_their_worker_held():
    with closing(executor("processes", 1, source("greedy", mib=40))) as pool:
        (finished,) = drive(pool, units(1))
    assert 35 << 20 < finished.memory_bytes < 150 << 20
    assert finished.results[0].memory_bytes == finished.memory_bytes


def test_an_error_of_one_symbol_is_not_that_of_all_in_its_unit():
    symbols = tuple(f"S{i}" for i in range(13))
    with closing(executor("serial", 1, source("picky", bad=["S3", "S11"]))) as pool:
        (finished,) = drive(pool, [Unit(symbols, tuple(range(13)), "fast")])
    assert tuple(each.symbol for each in finished.results) == symbols
    failed = {each.symbol: each.reason for each in finished.results if each.status == "failed"}
    assert failed == {"S3": "ZeroDivisionError: by S3", "S11": "ZeroDivisionError: by S11"}


def test_workers_use_one_thread_and_import_only_what_the_fit_needs():
    with closing(
        executor("processes", 1, source("environment", names=["OMP_NUM_THREADS", "NUMBA_NUM_THREADS"]))
    ) as pool:
        ((only,),) = [drive(pool, units(1))]
    metrics = only.results[0].metrics
    assert (metrics["OMP_NUM_THREADS"], metrics["NUMBA_NUM_THREADS"]) == ("1", "1")
    assert not {"torch", "polars", "numba", "pytest"} & set(metrics["modules"])


def test_a_unit_that_kills_its_worker_is_lost_and_it_alone(tmp_path):
    log = str(tmp_path / "log")
    with closing(executor("processes", 2, source("deadly", symbols=["S0017", "S0040"], log=log))) as pool:
        finished = drive(pool, units(120))
    lost = [each for each in finished if each.lost]
    assert symbols_of(lost) == ["S0017", "S0040"]
    assert "killed by SIGKILL, as happens when memory runs out" in lost[0].lost
    assert not lost[0].results
    assert symbols_of(finished) == [each.symbols[0] for each in units(120)]
    begun = begun_in(log)
    # Units that merely waited for the worker go to others; results it had not sent yet are made again.
    assert 3 <= len({pid for _, pid in begun}) <= 4
    assert 120 <= len(begun) <= 120 + 2 * 26


def test_long_units_are_begun_once_and_wait_for_nobody(tmp_path):
    """Units of over a tenth of a second: one a worker, so that a kill costs what was under way, no more."""
    log = str(tmp_path / "log")
    slow = AHEAD_SECONDS * 1.2
    with closing(
        executor("processes", 2, source("deadly", symbols=["S0003"], log=log, seconds=slow))
    ) as pool:
        finished = drive(pool, units(10))
        assert pool.capacity == 2
    assert [each.unit.symbols[0] for each in finished if each.lost] == ["S0003"]
    assert len(begun_in(log)) == 10


def test_a_worker_killed_from_outside_between_units_loses_nothing():
    with closing(executor("processes", 1, source("busy"))) as pool:
        (first,) = drive(pool, units(1))
        os.kill(first.results[0].metrics["pid"], signal.SIGKILL)
        time.sleep(0.05)
        finished = drive(pool, units(5))
    assert symbols_of(finished) == [each.symbols[0] for each in units(5)]
    assert not any(each.lost for each in finished)


def test_a_worker_that_has_grown_is_replaced_between_units():
    limit = 150 << 20
    with closing(executor("processes", 1, source("greedy", mib=60), worker_bytes=limit)) as pool:
        finished = drive(pool, units(8))
    kept = [each.results[0].metrics["kept"] for each in finished]
    pids = [each.results[0].metrics["pid"] for each in finished]
    assert symbols_of(finished) == [each.symbols[0] for each in units(8)]
    assert len(set(pids)) >= 2
    assert max(kept) <= 4  # with the interpreter's own, three of them are above the share
    assert not any(each.lost for each in finished)
    assert len({each.worker for each in finished}) == len(set(pids))


def test_a_worker_that_is_large_from_the_start_is_kept():
    with closing(executor("processes", 1, source("busy"), worker_bytes=1)) as pool:
        finished = drive(pool, units(1))
        time.sleep(0.55)  # it is looked at twice a second
        finished += drive(pool, units(1))
    assert len({each.worker for each in finished}) == 1


def test_large_results_and_units_do_not_block_each_other():
    options = {"matrix": list(range(20_000))}
    todo = [Unit(each.symbols, each.positions, "fast", 1, options) for each in units(12)]
    with closing(executor("processes", 2, source("large", num_bytes=3_000_000), batch_size=4)) as pool:
        finished = drive(pool, todo)
    assert [len(each.results[0].model) for each in finished] == [3_000_000] * 12


def test_arrays_may_come_with_the_source():
    array = np.arange(24.0).reshape(6, 4)
    with closing(executor("processes", 2, source("holding", array=array))) as pool:
        finished = drive(pool, units(6))
    sums = {each.unit.positions[0]: each.results[0].metrics["sum"] for each in finished}
    assert [sums[i] for i in range(6)] == array.sum(axis=1).tolist()


def test_workers_that_cannot_begin_say_why():
    cases = {
        "unable": (BarcastError, r"cannot begin: the folder is gone\n  -> prepare it again"),
        "nobody": (BarcastError, "AttributeError: module .* has no attribute 'nobody'"),
        "stillborn": (ResourceError, "die as they start: its worker ended by itself with code 3"),
    }
    for function, (kind, words) in cases.items():
        with closing(executor("processes", 2, source(function))) as pool, pytest.raises(kind, match=words):
            drive(pool, units(3))


def test_closing_ends_workers_in_the_middle_of_a_unit_too():
    with closing(executor("processes", 2, source("busy", seconds=60.0))) as pool:
        for unit in units(2):
            pool.submit(unit)
        assert pool.results(0.5) == []
        pids = [seat.process.pid for seat in pool._seats]
        began = time.monotonic()
    assert time.monotonic() - began < 5.0
    assert not any(map(is_running, pids))


DRIVER = """
import sys
from contextlib import closing
from barcast.fleet.executors import executor
from barcast.fleet.work import FitSource
from tests.fleet.executors.fits import units
source = FitSource("tests.fleet.executors.fits", "busy", {"seconds": float(sys.argv[2]), "log": sys.argv[1]})
# No guard around the program: workers must not run it again.
with closing(executor("processes", 2, source)) as pool:
    for unit in units(2):
        pool.submit(unit)
    done = 0
    while done < 2:
        try:
            done += len(pool.results(60.0))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    print("done", done, flush=True)
"""


def start_driver(log, seconds):
    script = log.with_name("driver.py")
    script.write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, str(script), str(log), str(seconds)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 30
    while time.monotonic() < end and (not log.exists() or len(begun_in(log)) < 2):
        time.sleep(0.02)
    return driver, [int(pid) for _, pid in begun_in(log)]


def test_no_worker_outlives_a_killed_driver(tmp_path):
    driver, workers = start_driver(tmp_path / "log", 60)
    with driver:
        assert len(workers) == 2
        assert all(map(is_running, workers))
        driver.kill()
    end = time.monotonic() + 8  # half a second on a machine that has a core to spare
    while any(map(is_running, workers)):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_ctrl_c_reaches_the_driver_alone(tmp_path):
    driver, workers = start_driver(tmp_path / "log", 1.5)
    with driver:
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
        for worker in workers:
            os.kill(worker, signal.SIGINT)
        out, _ = driver.communicate(timeout=30)
    assert out.splitlines() == ["interrupted", "done 2"]
    assert len(begun_in(tmp_path / "log")) == 2


def test_pace_fills_a_moment_and_follows_the_units():
    pace = Pace()
    assert pace.allowance == 1
    pace.note(0.002)
    assert pace.allowance == 1 + round(AHEAD_SECONDS / 0.002)
    for _ in range(80):
        pace.note(AHEAD_SECONDS * 1.1)
    assert pace.allowance == 1
    pace.note(-1e9)
    assert pace.allowance == 501  # never without bound
    fixed = Pace(7)
    fixed.note(10.0)
    assert fixed.allowance == 7


def test_short_units_travel_together():
    with closing(executor("processes", 2, source("busy"))) as pool:
        assert pool.capacity == 2
        drive(pool, units(20))
        assert pool.capacity > 8
    with closing(executor("processes", 2, source("busy"), batch_size=3)) as pool:
        assert pool.capacity == 6


def test_choices_that_make_no_sense_are_refused():
    for name, arguments in (
        ("threads", {}),
        ("processes", {"address": "auto"}),
        ("processes", {"num_workers": 0}),
        ("serial", {"batch_size": 0}),
    ):
        with pytest.raises(UsageError):
            executor(name, **{"num_workers": 1, "source": source("busy"), **arguments})
