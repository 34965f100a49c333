"""Whole fleets on a simulated machine: budgets, memory, lost workers, signals, resume; and a small real one."""

import itertools
import os
import re
import signal
from collections import Counter

import numpy as np
import pytest
import typer

from barcast.cli.app import app
from barcast.core.errors import DataError, ResourceError
from barcast.core.interruption import Interrupted, signals_taken
from barcast.core.progress import Progress
from barcast.fleet.calibrate import Measured
from barcast.fleet.driver import CUT_OFF, NO_TIME, Driver
from barcast.fleet.executors import executor
from barcast.fleet.floor import DIED, Job
from barcast.fleet.ledger import Ledger
from barcast.fleet.ledger_rows import Wanted
from barcast.fleet.limits import Limits
from barcast.fleet.work import TRY_AGAIN, FitSource, SymbolResult
from tests.fleet.simulated import LADDER, MB, Machine, MemoryLedger, candidates, driven, lognormal

WORKERS = 4


def busy_share(machine, budget, rows):
    """Share of all workers' time in the budget that fits took."""
    taken = 0.0
    for began, unit in machine.fits:
        took = sum(machine.seconds(unit, rows)) * machine.slow(began)
        taken += max(min(began + took, budget) - began, 0.0)
    return taken / (budget * WORKERS)


@pytest.mark.parametrize("budget", [15.0, 40.0, 100.0, 250.0, 420.0])
@pytest.mark.parametrize("slows", [False, True], ids=["steady", "3x slower halfway"])
@pytest.mark.parametrize("seed", range(4))
def test_budgets_are_kept_and_used_and_go_to_the_most_valuable(budget, slows, seed):
    machine = Machine(noise=lognormal(seed, 0.4), slow=lambda now: 3.0 if slows and now > budget / 2 else 1.0)
    who = candidates(600, seed)
    _, summary, ledger = driven(machine, who, budget=budget, workers=WORKERS)
    assert summary.overshoot <= 0.05 * budget
    assert summary.seconds == pytest.approx(machine.now)
    # calibration begins with one fit alone, which the shortest budget feels
    assert busy_share(machine, budget, dict(zip(who.symbols, who.rows.tolist(), strict=True))) > 0.85
    assert set(ledger.results) | set(summary.universal) == set(who.symbols)
    assert not set(ledger.results) & set(summary.universal)
    assert ledger.left == summary.universal
    assert set(summary.universal.values()) <= {NO_TIME, CUT_OFF}
    rank = dict(zip(who.symbols, who.rank.tolist(), strict=True))
    mean_rank = {
        name: np.mean([rank[s] for s, p in summary.done.items() if p == name])
        for name in set(summary.done.values())
    }
    if summary.universal:
        assert np.mean([rank[s] for s in summary.universal]) > mean_rank["extreme"]
    if budget >= 40:  # in less only what is left at the very end is enough for `high`
        assert mean_rank["high"] < mean_rank["extreme"]
    if not slows and budget >= 40:
        assert len(summary.universal) <= 0.08 * 600  # the plan had time for all, by costs known from few fits


def test_without_limits_all_get_what_was_asked_and_nobody_starves():
    machine, who = Machine(), candidates(100)
    _, summary, _ = driven(machine, who, workers=WORKERS)
    assert set(summary.done) == set(who.symbols)
    assert set(summary.done.values()) == {"high"}
    assert not summary.universal
    took = [
        sum(machine.seconds(unit, dict(zip(who.symbols, who.rows.tolist(), strict=True))))
        for _, unit in machine.fits
    ]
    assert summary.seconds < 1.15 * max(sum(took) / WORKERS, max(took)) + 3 * min(took)


def test_the_most_valuable_begin_first_after_the_calibration():
    machine, who = Machine(), candidates(200)
    job = Job(who, ("fast",), Limits(workers=1), known=[Measured("old", "fast", 1000, 0.2, 0, 100)])
    with Driver(
        MemoryLedger(),
        machine.workers,
        job,
        progress=Progress(False),
        clock=machine.clock,
        memory=machine.memory,
    ) as driver:
        assert driver.calibrate()["fast"].num_points == 1
        assert not machine.fits
        driver.run(driver.plan())
    order = [unit.symbols[0] for _, unit in machine.fits]
    assert order[:190] == [who.symbols[index] for index in who.order[:190]]


def test_calibration_fits_are_kept_and_a_dry_run_goes_on():
    machine, who, ledger = Machine(), candidates(200), MemoryLedger()
    job = Job(who, LADDER, Limits(workers=2, budget=60.0))
    with Driver(
        ledger, machine.workers, job, progress=Progress(False), clock=machine.clock, memory=machine.memory
    ) as driver:
        found = driver.calibrate()
        plan = driver.plan()
    assert set(found) >= {"extreme", "high"}
    kept = set(ledger.results)
    assert len(kept) == len(machine.fits) >= 6
    assert kept.isdisjoint(plan.presets)
    assert plan.spent == machine.now
    assert plan.seconds <= 60 - plan.spent
    rows = [unit.positions for _, unit in machine.fits if unit.preset == "extreme"]
    lengths = who.rows[np.array(rows)[:, 0]]
    assert lengths.min() < 800
    assert lengths.max() > 2400
    known = [
        Measured(s, r.preset, r.num_rows, r.seconds, r.memory_bytes, 100) for s, r in ledger.results.items()
    ]
    rest = who.only(np.array([i for i, s in enumerate(who.symbols) if s not in kept]))
    plan, summary, _ = driven(machine, rest, ledger, budget=60.0, workers=2, known=known)
    assert set(ledger.results) | set(summary.universal) == set(who.symbols)


@pytest.mark.parametrize("limit", [600, 900, 1400, 2200, 4000])
def test_memory_is_never_overshot_and_more_of_it_means_more_workers(limit):
    machine, who = Machine(), candidates(80)
    plan, summary, _ = driven(machine, who, workers=6, max_memory=limit * MB)
    assert machine.peak <= limit * MB
    assert summary.peak_memory <= limit * MB
    assert not summary.universal
    heavy = Counter(summary.done.values()).most_common(1)[0][0]
    # at 1400 the second fit of `high` might take too much by what the first took: nobody tries
    assert heavy == {600: "extreme", 900: "standard", 1400: "standard"}.get(limit, "high")
    assert plan.num_workers == (3 if limit == 4000 else 1)


def test_too_little_memory_is_refused_with_the_least_that_does():
    machine, who = Machine(), candidates(80)
    with pytest.raises(ResourceError, match="is the least that does") as refused:
        driven(machine, who, workers=6, max_memory=400 * MB)
    least = int(refused.value.todo.split()[1].removesuffix("M"))
    assert 500 < least < 600
    assert all(each.closed for each in machine.executors)


def test_workers_that_hold_more_than_was_measured_are_fewer():
    machine, who = Machine(), candidates(80, same=True)
    known = [Measured("old", "fast", 1000, 0.2, 100 * MB, 100)]  # they hold 240M
    job = Job(who, ("fast",), Limits(workers=6, max_memory=2000 * MB), known=known)
    with Driver(
        MemoryLedger(),
        machine.workers,
        job,
        progress=Progress(False),
        clock=machine.clock,
        memory=machine.memory,
    ) as driver:
        plan = driver.plan()
        summary = driver.run(plan)
    assert len(summary.done) == 80
    assert summary.peak_memory <= 2000 * MB


def test_a_lost_unit_is_tried_once_more_then_failed_with_its_reason():
    machine, who, ledger = Machine(kills={"S00010": 1, "S00020": 5}), candidates(60), MemoryLedger()
    _, summary, _ = driven(machine, who, ledger, workers=WORKERS)
    assert summary.num_lost == 3
    assert list(summary.failed) == ["S00020"]
    assert summary.failed["S00020"].startswith(DIED)
    assert "S00010" in summary.done
    attempts = Counter(unit.symbols[0] for _, unit in machine.fits)
    assert attempts["S00010"] == attempts["S00020"] == 2
    assert [unit.attempt for _, unit in machine.fits if unit.symbols == ("S00020",)] == [1, 2]
    assert len({unit.preset for _, unit in machine.fits if unit.symbols == ("S00020",)}) == 1
    assert len(summary.done) == 59
    assert "59 symbols fitted, 1 failed, 0 left universal" in summary.render()
    assert "; about 4.07G of memory at most" in summary.render()


def test_a_symbol_that_kills_its_workers_fails_alone_however_many_share_its_unit():
    """Twice as a whole, then in halves; what one kill from outside hits goes on as the unit that it was."""
    machine, who, units = Machine(kills={"S00037": 99}), candidates(100), {"batch_size": 16, "mixed": True}
    _, summary, _ = driven(machine, who, workers=WORKERS, **units)
    assert list(summary.failed) == ["S00037"] and summary.failed["S00037"].startswith(DIED)
    assert len(summary.done) == 99 and not summary.universal
    assert summary.num_lost <= 2 + 4  # of 16 at most: two, then one a halving
    guilty = [unit.symbols for _, unit in machine.fits if "S00037" in unit.symbols]
    assert guilty[0] == guilty[1] and len(guilty[0]) > 1 and guilty[-1] == ("S00037",)
    assert all(len(after) <= -(-len(before) // 2) for before, after in itertools.pairwise(guilty[1:]))
    machine = Machine(kills={"S00037": 1})
    _, summary, _ = driven(machine, who, workers=WORKERS, **units)
    once = [unit for _, unit in machine.fits if "S00037" in unit.symbols]
    assert [unit.attempt for unit in once] == [1, 2] and once[0].symbols == once[1].symbols
    assert len(summary.done) == 100


def test_what_to_do_about_a_failure_is_a_command_that_there_is():
    machine, ledger = Machine(kills={"S00020": 5}), MemoryLedger()
    driven(machine, candidates(60), ledger, workers=WORKERS)
    command = typer.main.get_command(app).commands["fleet"].commands["retry-failed"]
    options = {name for option in command.params for name in option.opts}
    for todo in (ledger.results["S00020"].todo, TRY_AGAIN):
        assert "`barcast fleet retry-failed" in todo
        assert set(re.findall(r"--[a-z-]+", todo)) <= options


def test_bad_symbols_fail_alone_and_a_market_of_them_says_so():
    who = candidates(60)
    _, summary, _ = driven(Machine(bad=frozenset(("S00003", "S00004"))), who, workers=WORKERS)
    assert summary.failed == {"S00003": "bad data", "S00004": "bad data"}
    assert len(summary.done) == 58
    with pytest.raises(DataError, match=r"no symbol could be fitted: S.....: bad data"):
        driven(Machine(bad=frozenset(who.symbols)), who, workers=WORKERS)


def test_the_preset_is_on_record_before_its_fit_and_finished_ones_are_kept_once():
    machine, who, ledger = Machine(), candidates(120), MemoryLedger()
    driven(machine, who, ledger, budget=30.0, workers=WORKERS)
    started = {}
    for what, each in ledger.log:
        if what == "start":
            started[each.symbols[0]] = each.preset
        else:
            assert started[each.symbol] == each.preset
    assert set(ledger.results) <= set(started)


def test_a_killed_driver_goes_on_and_fits_at_most_one_unit_a_worker_twice():
    who = candidates(200)
    for kill_after in (3, 40, 111):
        machine, ledger = Machine(), MemoryLedger()
        commit, finishes = ledger.finish, []

        def dies(results, commit=commit, finishes=finishes, kill_after=kill_after):
            finishes.append(len(results))
            if sum(finishes) > kill_after:
                raise MemoryError("killed")
            commit(results)

        ledger.finish = dies
        with pytest.raises(MemoryError):
            driven(machine, who, ledger, workers=WORKERS)
        ledger.finish = commit
        attempts = {s: 1 for s in ledger.started if s not in ledger.results}
        rest = who.only(np.array([i for i, s in enumerate(who.symbols) if s not in ledger.results]))
        driven(machine, rest, ledger, workers=WORKERS, attempts=attempts)
        assert set(ledger.results) == set(who.symbols)
        fits = Counter(unit.symbols[0] for _, unit in machine.fits)
        twice = [s for s, times in fits.items() if times > 1]
        assert len(twice) <= WORKERS
        assert max(fits.values()) <= 2
        assert {unit.attempt for _, unit in machine.fits if unit.symbols[0] in twice} <= {1, 2}


@pytest.mark.parametrize("kill_after", [0, 10, 60, 120])
@pytest.mark.parametrize("budget", [None, 1000.0])
def test_what_was_together_when_the_driver_was_killed_is_so_again(kill_after, budget):
    """Whenever that was, while presets were measured too: what a unit saved is of use to the same alone."""
    machine, who, ledger = Machine(), candidates(200), MemoryLedger()
    commit, options = ledger.finish, {"workers": WORKERS, "batch_size": 16, "mixed": True, "budget": budget}

    def dies(results):
        if len(ledger.results) >= kill_after:
            raise MemoryError("killed")
        commit(results)

    ledger.finish = dies
    with pytest.raises(MemoryError):
        driven(machine, who, ledger, **options)
    ledger.finish, before = commit, len(machine.fits)
    lost = {(each.preset, each.symbols) for each in ledger.begun()}
    assert lost and all(len(symbols) > 1 for _, symbols in lost)
    rest = who.only(np.array([i for i, s in enumerate(who.symbols) if s not in ledger.results]))
    rows = dict(zip(who.symbols, who.rows.tolist(), strict=True))
    known = [
        Measured(s, r.preset, rows[s], r.seconds, r.memory_bytes, 100) for s, r in ledger.results.items()
    ]
    _, summary, _ = driven(machine, rest, ledger, known=known, **options)
    assert set(ledger.results) == set(who.symbols) and len(summary.done) == len(rest.symbols)
    again = [(unit.preset, unit.symbols) for _, unit in machine.fits[before:]]
    assert set(again) >= lost and len(set(again)) == len(again)


def test_a_signal_keeps_what_is_at_work_and_begins_nothing_more():
    machine, who, ledger = Machine(), candidates(100), MemoryLedger()
    commit = ledger.finish

    def signalled(results):
        commit(results)
        if len(ledger.results) == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    ledger.finish = signalled
    with pytest.raises(Interrupted) as ended, signals_taken():
        driven(machine, who, ledger, workers=WORKERS)
    assert ended.value.exit_code == 143
    assert len(machine.fits) == len(ledger.results) <= 20 + 2 * WORKERS
    assert not ledger.left
    assert all(each.closed for each in machine.executors)


def test_what_hangs_is_cut_off_before_the_overshoot_is_too_large():
    machine, who = Machine(), candidates(100)
    noise = machine.noise
    machine.noise = lambda symbol, preset: 1e6 if symbol == "S00050" else noise(symbol, preset)
    _, summary, ledger = driven(machine, who, budget=30.0, workers=WORKERS)
    assert summary.universal["S00050"] == CUT_OFF
    assert "S00050" not in ledger.results
    assert 0 < summary.overshoot <= 0.05 * 30
    assert len(summary.done) >= 95


def test_a_long_fit_does_not_begin_where_it_would_hardly_end_in_time():
    cut = 0
    for seed in range(15):
        machine, who = Machine(noise=lognormal(seed, 0.5)), candidates(200, same=True)
        _, summary, _ = driven(machine, who, ladder=("high",), budget=24.0, workers=WORKERS)  # 2.3 s each
        assert summary.overshoot <= 1.2
        cut += list(summary.universal.values()).count(CUT_OFF)
    assert cut <= 1  # of 60 workers' last fits


def test_mixed_batches_bring_each_symbols_options_by_its_name():
    machine, who = Machine(), candidates(100)
    overrides = {symbol: {"width": 32 + place} for place, symbol in enumerate(who.symbols[::5])}
    driven(machine, who, workers=WORKERS, batch_size=16, overrides=overrides, mixed=True)
    for _, unit in machine.fits:
        own = {symbol: overrides[symbol] for symbol in unit.symbols if symbol in overrides}
        assert unit.options == ({"symbols": own} if own else {})
    assert any(0 < len(unit.options.get("symbols", ())) < len(unit.symbols) for _, unit in machine.fits)


def test_batches_share_preset_and_options_and_no_worker_goes_without():
    machine, who = Machine(), candidates(100)
    overrides = {symbol: {"width": 32} for symbol in who.symbols[::5]}
    _, summary, _ = driven(machine, who, workers=WORKERS, batch_size=16, overrides=overrides)
    assert len(summary.done) == 100
    for _, unit in machine.fits:
        assert len(unit.symbols) <= 16
        assert [who.symbols[position] for position in unit.positions] == list(unit.symbols)
        assert {symbol in overrides for symbol in unit.symbols} == {bool(unit.options)}
    assert max(len(unit.symbols) for _, unit in machine.fits) == 16


def test_the_same_fleet_twice_makes_the_same_moves():
    moves = []
    for _ in range(2):
        machine = Machine(noise=lognormal(3))
        driven(machine, candidates(150), budget=20.0, workers=WORKERS)
        moves.append([(now, unit.symbols, unit.preset) for now, unit in machine.fits])
    assert moves[0] == moves[1]


def test_progress_says_count_rate_memory_failures_and_time_left(capsys):
    machine, who = Machine(bad=frozenset(("S00003",))), candidates(60)
    progress = Progress(True)
    progress.due = lambda: True
    job = Job(who, ("fast",), Limits(workers=2))
    with Driver(
        MemoryLedger(), machine.workers, job, progress=progress, clock=machine.clock, memory=machine.memory
    ) as driver:
        driver.calibrate()
        driver.run(driver.plan())
    text = capsys.readouterr().err
    assert "measuring fast on 5 symbols of different lengths" in text
    for part in ("/60 symbols", "/s", "2 at work", "1 failed", " left"):
        assert part in text


# --- real workers and a real ledger ----------------------------------------------------------------------


def make_fit(seconds):
    """Make a fit that computes nothing, for a little while."""
    import time

    def fit(unit):
        time.sleep(seconds)
        return [
            SymbolResult(name, unit.preset, "done", seconds, 1, 10, model=name.encode())
            for name in unit.symbols
        ]

    return fit


def test_a_small_real_fleet_with_its_ledger(tmp_path):
    who = candidates(24)
    source = FitSource(__name__, "make_fit", {"seconds": 0.002})
    job = Job(who, ("fast", "high"), Limits(workers=2, budget=30.0))
    with Ledger.create(tmp_path / "fleet.sqlite") as ledger:
        ledger.plan([Wanted(symbol, index, "s", "d") for index, symbol in enumerate(who.symbols)])

        def workers(num, worker_bytes):
            return executor("processes", num, source, worker_bytes=worker_bytes)

        with Driver(ledger, workers, job, progress=Progress(False)) as driver:
            driver.calibrate()
            summary = driver.run(driver.plan())
        assert set(summary.done) == set(who.symbols)
        assert summary.peak_memory > 10 * MB
        assert {row.symbol: row.preset for row in ledger.rows(status=("done",))} == summary.done
        known = [Measured.of_row(row) for row in ledger.rows(status=("done",))]
        assert {(each.seconds, each.rows) for each in known} == {(0.002, 10)}
        assert all(each.disk_bytes == len(each.symbol) for each in known)
        assert (
            ledger.plan([Wanted(symbol, index, "s", "d") for index, symbol in enumerate(who.symbols)]).todo
            == ()
        )
