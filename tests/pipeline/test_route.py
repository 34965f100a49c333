"""A routed run: every symbol's rows are those of the model that serves it, in tables, forecasts and pages."""

import json
import shutil

import polars as pl
import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.errors import RunError, UsageError
from barcast.core.predictions import read_predictions
from barcast.core.runs import RunFolder, open_run
from barcast.core.workspace import Workspace
from barcast.pipeline.route_pair import runs_to_route
from tests.journey.test_journey import DECLARED, TINY, write_market

NAMES = [f"SYM{s:02d}" for s in range(32)]


def run(*arguments) -> int:
    return _run([str(argument) for argument in arguments], debug=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with a market, one symbol of which is short, a universal model and a fleet."""
    root = tmp_path_factory.mktemp("route")
    write_market(root / "bars", symbols=len(NAMES), sessions=500)
    short = root / "bars" / "SYM31.csv"
    pl.read_csv(short).tail(220).write_csv(short)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED) == 0
    assert run("train", "lstm", "-w", root, *TINY, "--quiet", "--no-report", "--final") == 0
    fleet = ("--preset", "extreme", "--min-rows", "200", "--executor", "serial", "--quiet", "--no-report")
    assert run("fleet", "trees", "-w", root, *fleet, "--final") == 0
    return root


@pytest.fixture(scope="module")
def found(place):
    return {policy: barcast.route(policy=policy, workspace=place) for policy in
            ("evidence", "prefer-dedicated", "universal")}  # fmt: skip


def test_rules_send_symbols_where_they_say(found):
    assert found["universal"].counts() == {5: {"universal": 32}}
    assert found["prefer-dedicated"].counts() == {5: {"dedicated": 31, "universal": 1}}
    assert len({each.run.name for each in found.values()}) == 3
    short = found["prefer-dedicated"].routes.row(by_predicate=pl.col("symbol") == "SYM31", named=True)
    assert short["decision"] == "universal" and short["reason"]
    assert found["evidence"].routes["reason"].str.len_chars().min() > 10


def test_each_symbol_has_the_rows_of_its_server(place, found):
    routed = found["prefer-dedicated"]
    own, universal, fleet = (
        read_predictions(place / "runs" / name / "predictions.parquet").sort("segment", "symbol", "time")
        for name in (routed.run.name, routed.universal, routed.fleet)
    )
    assert len(own) == len(universal)
    said = ["symbol", "time", "segment", "score", "y_hat", "sigma", "y"]
    dedicated, rest = own.filter(route="dedicated"), own.filter(route="universal")
    assert dedicated.select(said).equals(fleet.select(said))
    assert rest.select(said).equals(universal.filter(symbol="SYM31").select(said))
    assert set(own["run"]) == {routed.run.name} and set(own["model"]) == {"routed"}
    assert own.filter(segment="test")["y"].null_count() == len(own.filter(segment="test"))


def test_its_scores_on_route_are_marked_as_flattered(place, found, capsys):
    routed = found["prefer-dedicated"]
    assert run("compare", routed.run.name, routed.universal, routed.fleet, "-w", place, "--json", "-q") == 0
    (compared,) = json.loads(capsys.readouterr().out)
    rows = {row["model"]: row for row in compared["all_rows"]["rows"]}
    assert rows["routed"]["coverage"] == rows["lstm"]["coverage"] > rows["fleet-trees"]["coverage"]
    assert sum("who serves whom" in json.dumps(note) for note in compared["notes"]) == 1
    assert run("compare", routed.universal, routed.fleet, "-w", place, "--json", "-q") == 0
    assert "who serves whom" not in capsys.readouterr().out


def test_forecasts_come_from_both_models_and_cover_everybody(place, found):
    routed = found["prefer-dedicated"]
    table = barcast.predict(routed.run.name, workspace=place, allow_old=True).table
    parents = {
        name: barcast.predict(name, workspace=place, allow_old=True).table
        for name in (routed.universal, routed.fleet)
    }
    assert sorted(table["symbol"]) == sorted(NAMES)
    for route, name in (("universal", routed.universal), ("dedicated", routed.fleet)):
        served = table.filter(route=route).sort("symbol")
        same = parents[name].filter(pl.col("symbol").is_in(served["symbol"].to_list())).sort("symbol")
        assert len(served) and served["y_hat"].equals(same["y_hat"])
    only = barcast.predict(routed.run.name, workspace=place, allow_old=True, symbols=["SYM31"])
    assert only.table["route"].to_list() == ["universal"]


def test_the_command_says_who_serves_whom_and_writes_it(place, tmp_path, capsys):
    assert (
        run("route", "-w", place, "--route", "prefer-dedicated", "--export", tmp_path / "who.csv", "-q") == 0
    )
    told = capsys.readouterr().out
    assert "31 of 32 symbols are served by fleet-trees-" in told and "--open-test" in told
    assert pl.read_csv(tmp_path / "who.csv")["decision"].value_counts().height == 2
    assert run("route", "-w", place, "--json", "-q") == 0
    assert len(json.loads(capsys.readouterr().out)["routes"]) == 32


def test_a_routed_run_that_nobody_leaves_for_is_not_worth_a_look_at_test(place, capsys):
    assert run("route", "-w", place, "--route", "universal", "-q") == 0
    told = capsys.readouterr().out
    assert "nobody leaves: routed-" in told and "--open-test" not in told


def test_a_universal_model_whose_scores_have_no_size_is_said_to_count_as_zero(spare, capsys):
    universal = next(one for one in barcast.runs(workspace=spare) if one.name.startswith("lstm-"))
    universal = (
        universal if not universal.info.get("final") else open_run(Workspace(spare), universal.info["parent"])
    )
    state = universal.read("state.json")
    universal.write("state.json", {**state, "maps": [{**each, "slope": 0.0} for each in state["maps"]]})
    assert run("route", "-w", spare) == 0
    assert "counts as zero, whatever its RankIC" in capsys.readouterr().err
    assert run("route", "-w", spare, "--json", "-q") == 0
    assert "counts as zero" not in capsys.readouterr().err


def test_it_never_serves_a_session_before_it_was_decided(place, found):
    routed = found["prefer-dedicated"]
    info = routed.run.info
    seen = read_predictions(routed.run.predictions, segment="route")["known_at"].max()
    assert info["chosen_until"] == str(seen.date())
    weighed = str(read_predictions(routed.run.predictions, segment="weigh")["known_at"].max().date())
    later = str(read_predictions(routed.run.predictions, segment="route")["time"].max().date())
    assert weighed < later < info["chosen_until"]
    for name in (routed.universal, routed.fleet):
        assert len(barcast.predict(name, workspace=place, asof=later).table)
    with pytest.raises(RunError, match="would have seen its own outcome"):
        barcast.predict(routed.run.name, workspace=place, asof=later)
    assert len(barcast.predict(routed.run.name, workspace=place, asof=info["chosen_until"]).table)


def test_a_fleet_is_asked_only_where_it_serves_somebody(found, spare):
    for one in barcast.runs(workspace=spare):
        if one.info["model"] == "fleet-trees":
            one.update(taught_until="2001-01-02")
    alone, mixed = found["universal"].run.name, found["prefer-dedicated"].run.name
    served = barcast.predict(alone, workspace=spare)
    assert sorted(served.table["symbol"]) == sorted(NAMES) and served.oldest_taught_until > "2001-01-02"
    with pytest.raises(RunError, match="known until 2001-01-02"):
        barcast.predict(mixed, workspace=spare)
    assert len(barcast.predict(mixed, workspace=spare, symbols=["sym31"]).table) == 1
    both = barcast.predict(mixed, workspace=spare, allow_old=True)
    assert both.oldest_taught_until == "2001-01-02" < both.taught_until


@pytest.mark.parametrize("which", ["fleet", "routed"])
def test_what_reads_a_single_model_says_that_there_is_none(place, found, which, capsys):
    name = found["evidence"].fleet if which == "fleet" else found["evidence"].run.name
    said = "a model for each symbol" if which == "fleet" else "made of two runs"
    for command in ("doctor", "embeddings"):
        assert run(command, name, "-w", place) == 5, command
        assert said in capsys.readouterr().err, command
    with pytest.raises(RunError, match=said):
        barcast.load(name, workspace=place)
    if which == "routed":
        for command in (("train", "--refit", name), ("audit", name)):
            assert run(*command, "-w", place) == 5, command
            assert said in capsys.readouterr().err


def copied(root, name, ending, **facts):
    """Copy a run under another name, with other facts in its run.json."""
    folder = root / "runs" / f"{name}{ending}"
    shutil.copytree(root / "runs" / name, folder)
    other = RunFolder(folder)
    other.update(name=other.name, **facts)
    return other


def evaluation(root, model):
    """Return the newest run of a model that is no refit."""
    runs = [one for one in barcast.runs(workspace=root) if one.info["model"] == model]
    return next(one for one in reversed(runs) if not one.info.get("final"))


def test_the_last_pair_that_asks_the_same_is_taken(spare):
    place = Workspace(spare)
    universal, fleet = evaluation(spare, "lstm"), evaluation(spare, "fleet-trees")
    created = fleet.info["created"]
    copied(spare, fleet.name, "-alone", label_key="other", finished="9998")
    assert runs_to_route(place) == (universal, fleet), "a newer fleet without a partner is passed over"
    late = copied(spare, fleet.name, "-late", created="2000", started="2000", finished="9997")
    assert late.info["created"] < created
    assert runs_to_route(place) == (universal, late), "finished last, whenever it was begun"
    assert runs_to_route(place, fleet=fleet.name) == (universal, fleet)


def test_fleets_without_a_partner_are_told_with_what_trains_one(spare):
    place = Workspace(spare)
    universal, fleet = evaluation(spare, "lstm"), evaluation(spare, "fleet-trees")
    config = fleet.read("config.json")
    config["data"]["horizons"] = [1, 5]
    fleet.write("config.json", config)
    fleet.update(label_key="other")
    with pytest.raises(RunError, match=f"asks what `{fleet.name}` does .*`{universal.name}`") as told:
        runs_to_route(place)
    assert "barcast train lstm --horizon 1,5" in told.value.todo
    with pytest.raises(RunError, match=f"no finished fleet asks what `{universal.name}` does") as told:
        runs_to_route(place, universal.name)
    assert "barcast fleet trees" in told.value.todo
    ridge = copied(spare, universal.name, "-ridge", label_key="other", model="ridge")
    with pytest.raises(RunError, match="the reference of comparisons") as told:
        runs_to_route(place)
    assert f"barcast route {ridge.name} {fleet.name}" in told.value.todo
    assert runs_to_route(place, ridge.name) == (ridge, fleet)


def test_what_cannot_be_routed_is_refused_with_what_to_do(place, tmp_path):
    with pytest.raises(RunError, match="no finished fleet"):
        barcast.route(workspace=tmp_path)
    with pytest.raises(UsageError, match="prefer-dedicated"):
        barcast.route(policy="best", workspace=place)
    fleet = next(r.name for r in barcast.runs(workspace=place) if r.name.startswith("fleet-trees-"))
    with pytest.raises(RunError, match="is no universal model"):
        barcast.route(fleet, fleet, workspace=place)
    with pytest.raises(UsageError, match="two that are finished"):
        barcast.train("routed", workspace=place)
    other = barcast.train("ridge", workspace=place, target="return", report=False).run.name
    with pytest.raises(RunError, match="learned return"):
        barcast.route(other, fleet, workspace=place)
