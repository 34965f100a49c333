"""A routed champion: promoted, rolled back, retrained, and nothing without the two runs that it is made of."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

import barcast
from barcast.core.champion import read_champions
from barcast.core.errors import RunError
from barcast.core.predictions import read_predictions, write_predictions
from barcast.core.runs import list_runs, open_run
from barcast.core.workspace import Workspace
from barcast.pipeline.compare import market_of
from barcast.pipeline.gate import GatePolicy, compare_with_champion, compared_from
from barcast.pipeline.record import known_until
from barcast.pipeline.route import routed_by
from barcast.pipeline.routed_parts import Parts, recorded_parts
from tests.journey.test_journey import DECLARED, run, write_market

SESSIONS, NEW, SYMBOLS = 640, 60, 33
DATA = ["--horizon", "1", "--quiet", "--no-report", "--final"]
FLEET = ["--preset", "extreme", "--min-rows", "150", "--executor", "serial", *DATA]
NAMES = [f"SYM{s:02d}" for s in range(SYMBOLS)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A refitted ridge and fleet, one symbol without a model, both of two routed runs; and later bars."""
    root = tmp_path_factory.mktemp("routed champion") / "ws"
    write_market(root / "more", symbols=SYMBOLS, sessions=SESSIONS + NEW)
    short = root / "more" / f"{NAMES[-1]}.csv"
    pl.read_csv(short).tail(NEW + 220).write_csv(short)
    (root / "bars").mkdir()
    for path in (root / "more").glob("*.csv"):
        pl.read_csv(path).head(-NEW).write_csv(root / "bars" / path.name)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED, "--quiet") == 0
    assert run("train", "ridge", "-w", root, "--features", "core12", *DATA) == 0
    assert run("fleet", "trees", "-w", root, *FLEET) == 0
    ridge, fleet = named(root, "ridge"), named(root, "fleet-trees")
    for policy in ("evidence", "prefer-dedicated"):
        barcast.route(ridge.name, fleet.name, policy, workspace=root)
    return root


def named(root, model, *, final=False):
    runs = list_runs(Workspace(root))
    return next(r for r in runs if r.info["model"] == model and bool(r.info.get("final")) is final)


def routed_of(root, policy="prefer-dedicated"):
    runs = [r for r in list_runs(Workspace(root)) if r.info["model"] == "routed"]
    return next(r for r in runs if r.read("config.json")["options"]["policy"] == policy)


def current(root) -> str:
    return read_champions(Workspace(root)).current.run


def said(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


# --- who answers -------------------------------------------------------------------------------------------


def test_a_routed_champion_answers_by_the_refits_of_its_two_runs(spare, capsys):
    routed, ridge = routed_of(spare), named(spare, "ridge")
    refits = [named(spare, model, final=True).name for model in ("ridge", "fleet-trees")]
    assert run("promote", ridge.name, "-w", spare) == 0
    capsys.readouterr()
    assert run("promote", routed.name, "-w", spare, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["champion"]["run"] == told["champion"]["evaluated"] == routed.name and told["changed"]
    assert told["served_by"] == refits and told["before"]["run"] == refits[0]
    assert run("promote", "champion", "-w", spare) == 0 and "already" in capsys.readouterr().out

    assert run("predict", "-w", spare, "--allow-old", "--json", "-q") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["run"] == routed.name and {one["symbol"] for one in answer["forecasts"]} == {*NAMES}
    parents = [barcast.predict(name, workspace=spare, allow_old=True).table for name in refits]
    for one in answer["forecasts"]:
        own = parents[one["route"] == "dedicated"].filter(symbol=one["symbol"])
        assert one["y_hat"] == own["y_hat"].item()
    (kept,) = routed.path.glob("live/*.parquet")  # it was served, and is kept like any champion's
    assert len(read_predictions(kept)) == SYMBOLS

    assert run("runs", "-w", spare) == 0 and f"champion: {routed.name}" in capsys.readouterr().out
    assert run("rollback", "-w", spare) == 0 and current(spare) == refits[0]
    assert run("promote", routed.name, "-w", spare) == 0
    told = capsys.readouterr().out
    assert f"it predicts by {refits[0]} and {refits[1]}" in told and "barcast train --refit" not in told
    assert run("promote", ridge.name, "-w", spare) == 0 and run("rollback", "-w", spare) == 0
    assert current(spare) == routed.name


def test_as_of_a_session_that_decided_a_routed_champion_answers_nothing(spare, capsys):
    routed = routed_of(spare)
    assert run("promote", routed.name, "-w", spare) == 0
    seen = read_predictions(routed.predictions, segment="route")["time"].max().date()
    assert run("predict", "-w", spare, "--asof", seen, "-q") == 5
    assert "would have seen its own outcome" in said(capsys)
    assert run("predict", "-w", spare, "--asof", known_until(routed), "-q") == 0


# --- its parts ---------------------------------------------------------------------------------------------


def lose(root, how) -> str:
    """Do something to the fleet of a routed run, and return what is said of it."""
    fleet, routed = named(root, "fleet-trees"), routed_of(root)
    if how == "gone":
        shutil.rmtree(fleet.path)
        return "is gone"
    if how == "unfinished":
        fleet.update(status="running")
        return "is not finished"
    if how == "without weights":
        shutil.rmtree(fleet.fleet)
        return "has lost its weights"
    parts = routed.info["parts"]
    routed.update(parts={**parts, "fleet": {**parts["fleet"], "digest": "of another fit"}})
    return "has other weights now"


@pytest.mark.parametrize("how", ["gone", "unfinished", "without weights", "others"])
def test_nothing_is_served_promoted_or_rolled_back_to_without_the_parts(spare, how, capsys):
    routed, ridge, fleet = routed_of(spare), named(spare, "ridge"), named(spare, "fleet-trees")
    assert run("promote", routed.name, "-w", spare) == 0 and run("promote", ridge.name, "-w", spare) == 0
    why = lose(spare, how)
    capsys.readouterr()
    assert run("rollback", "-w", spare) == 5
    told = said(capsys)
    assert "cannot go back" in told and fleet.name in told and why in told
    assert current(spare) == named(spare, "ridge", final=True).name
    for verb in ("predict", "promote"):
        assert run(verb, routed.name, "-w", spare) == 5, verb
        told = said(capsys)
        assert f"`{fleet.name}` {why}" in told and "barcast route" in told, verb
    assert run("runs", "-w", spare) == 0


def test_retraining_says_at_once_that_a_part_is_gone(spare, capsys):
    assert run("promote", routed_of(spare).name, "-w", spare) == 0
    lose(spare, "gone")
    for flags in ([], ["--dry-run"]):
        assert run("retrain", "-w", spare, "-q", *flags) == 5
        assert "is gone" in said(capsys)


def test_routing_again_takes_up_parts_that_have_changed(spare):
    routed, space = routed_of(spare), Workspace(spare)
    lose(spare, "others")
    with pytest.raises(RunError, match="decides anew"):
        recorded_parts(space, routed)
    ridge, fleet = named(spare, "ridge"), named(spare, "fleet-trees")
    again = barcast.route(ridge.name, fleet.name, "prefer-dedicated", workspace=spare).run
    assert again.name == routed.name and recorded_parts(space, again) == Parts(ridge, fleet)


def test_a_damaged_refit_of_a_part_is_not_promoted(spare, capsys):
    refit = named(spare, "ridge", final=True)
    refit.weights.write_bytes(b"no weights")
    assert run("promote", routed_of(spare).name, "-w", spare) == 5
    assert f"cannot read {refit.weights}" in said(capsys)


# --- retraining --------------------------------------------------------------------------------------------


def mean_rank_ic(scores: pl.DataFrame, outcomes: pl.DataFrame) -> float:
    """Independent: Spearman by session, by scipy."""
    both = outcomes.select("symbol", "time", "y").join(scores, on=["symbol", "time"])
    assert len(both) == len(outcomes)
    found = [spearmanr(part["score"], part["y"]).statistic for _, part in both.group_by("time")]
    return float(np.mean(found))


def test_a_routed_champion_is_retrained_with_the_runs_that_it_routes_between(spare, capsys):
    old, ridge, fleet = routed_of(spare), named(spare, "ridge"), named(spare, "fleet-trees")
    assert run("promote", old.name, "-w", spare) == 0
    nothing = barcast.retrain(workspace=spare, report=False)
    assert nothing.decision == "kept" and "nothing is new" in nothing.reason
    assert run("data", "update", spare / "more", "-w", spare, "-q") == 0
    before = {each.name for each in list_runs(Workspace(spare))}
    capsys.readouterr()
    assert run("retrain", "--dry-run", "-w", spare) == 0
    told = capsys.readouterr().out
    assert f"by the options of {ridge.name} and {fleet.name}" in told and "would route anew" in told
    assert run("retrain", "--dry-run", "--json", "-w", spare) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["first"] == [ridge.name, fleet.name]
    assert {each.name for each in list_runs(Workspace(spare))} == before

    flags = ("--promote-if-better", "--margin", "0.5", "--when-unclear", "promote")
    assert run("retrain", "--no-report", "--json", "-q", "-w", spare, *flags) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["decision"] == "promoted" and not found["problems"]
    assert current(spare) == found["serving"] == found["challenger"] != old.name
    challenger = open_run(Workspace(spare), found["challenger"])
    parts = recorded_parts(Workspace(spare), challenger)
    assert not {part.name for part in parts} & before
    assert [part.info["model"] for part in parts] == ["ridge", "fleet-trees"]
    assert challenger.read("config.json")["options"]["policy"] == "prefer-dedicated"
    for part in parts:
        assert part.info["cutoff"] == challenger.info["cutoff"] == plan["cutoff"] > old.info["cutoff"]
    refits = [r for r in list_runs(Workspace(spare)) if r.info.get("parent") in {part.name for part in parts}]
    assert len(refits) == 2

    (gap,) = found["differences"]
    route = read_predictions(challenger.predictions, segment="route")
    days = route["time"].unique().sort()
    assert gap["first"] > old.info["chosen_until"] and gap["first"] > str(days[len(days) // 2 - 1].date())
    assert gap["num_sessions"] == plan["sessions_to_compare"] > 20
    judged = route.filter(pl.col("time") >= pl.lit(np.datetime64(gap["first"], "us")))
    theirs = read_predictions(old.predictions).select("symbol", "time", "score")
    assert judged["time"].n_unique() == gap["num_sessions"]
    assert gap["challenger"] == pytest.approx(mean_rank_ic(route.select("symbol", "time", "score"), judged))
    assert gap["champion"] == pytest.approx(mean_rank_ic(theirs, judged), abs=1e-6)
    assert {*read_predictions(old.predictions)["route"]} == {"universal", "dedicated"}

    assert barcast.predict(workspace=spare, allow_old=True).run == challenger.name
    assert run("rollback", "-w", spare) == 0 and current(spare) == old.name


# --- what decides does not judge ---------------------------------------------------------------------------


def foresee(parts, *, after=None) -> None:
    """Let the fleet's stored forecasts of `route`, or of sessions after one, be the outcomes."""
    table = read_predictions(parts.fleet.predictions)
    sure = (pl.col("segment") == "route") & pl.col("y").is_not_null()
    if after is not None:
        sure &= pl.col("known_at") > pl.lit(after)
    told = pl.when(sure).then(pl.col("y")).otherwise(pl.col("y_hat"))
    write_predictions(parts.fleet.predictions, table.with_columns(y_hat=told))


def test_who_serves_whom_is_decided_for_the_gate_by_earlier_labels_alone(spare):
    """A fleet that is perfect after a session takes over in the run, and not in what the gate compares."""
    space, routed = Workspace(spare), routed_of(spare, "evidence")
    parts, days = recorded_parts(space, routed), read_predictions(routed.predictions, segment="route")["time"]
    until = np.datetime64(days.unique().sort()[days.n_unique() // 2].date(), "us")
    before = routed_by(space, routed, until)
    foresee(parts, after=until)
    after = routed_by(space, routed, until)
    server = ["symbol", "time", "route"]
    assert after.select(server).equals(before.select(server))
    everything = barcast.route(parts.universal.name, parts.fleet.name, workspace=spare)
    assert everything.counts()[1]["dedicated"] > 20 > after.filter(route="dedicated")["symbol"].n_unique()
    foresee(parts)
    assert routed_by(space, routed, until).filter(route="dedicated")["symbol"].n_unique() > 20
    assert not routed_by(space, routed, np.datetime64("2000-01-01", "us")).filter(route="dedicated").height


def test_the_gate_compares_what_neither_routed_run_had_chosen_by(spare):
    space, routed = Workspace(spare), routed_of(spare, "evidence")
    market = market_of(space, routed)
    first, last = market.plan.spans["route"]
    times = market.bars.calendar.times
    assert compared_from(market, routed) == np.datetime64(known_until(routed))
    (gap,) = compare_with_champion(space, routed, routed, market, GatePolicy())
    assert gap.num_sessions == 0 and gap.answer == "unclear"  # all of it had decided
    routed.update(chosen_until=str(times[first]))
    assert compared_from(market, routed) == times[(first + last) // 2]
    ridge = named(spare, "ridge")
    assert compared_from(market, ridge) == np.datetime64(known_until(ridge)) < times[first]
