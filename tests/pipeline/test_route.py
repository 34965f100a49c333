"""A routed run: every symbol's rows are those of the model that serves it, in tables, forecasts and pages."""

import json

import polars as pl
import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.errors import RunError, UsageError
from barcast.core.predictions import read_predictions
from barcast.core.runs import open_run
from barcast.core.workspace import Workspace
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


def test_what_cannot_be_routed_is_refused_with_what_to_do(place, tmp_path):
    with pytest.raises(RunError, match="no finished fleet"):
        barcast.route(workspace=tmp_path)
    with pytest.raises(UsageError, match="prefer-dedicated"):
        barcast.route(policy="best", workspace=place)
    fleet = next(r.name for r in barcast.runs(workspace=place) if r.name.startswith("fleet-trees-"))
    with pytest.raises(RunError, match="no universal model and fleet"):
        barcast.route(fleet, fleet, workspace=place)
    with pytest.raises(UsageError, match="two that are finished"):
        barcast.train("routed", workspace=place)
    other = barcast.train("ridge", workspace=place, target="return", report=False).run.name
    with pytest.raises(RunError, match="learned return"):
        barcast.route(other, fleet, workspace=place)
