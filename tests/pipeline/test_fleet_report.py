"""Pages of a fleet and of a routed run say what ledger, routes and predictions say, and nothing of `test`."""

import json
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.lock import writer_lock
from barcast.core.predictions import read_predictions
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.fleet.trees import fit
from barcast.pipeline import fleet_seen
from barcast.pipeline.fleet_seen import fleet_run
from barcast.pipeline.report_fleet import fleet_failures, reason_text
from barcast.pipeline.routed_parts import open_routes
from tests.journey.test_journey import DECLARED, write_market

NAMES = [f"SYM{s:02d}" for s in range(34)]
#: One too short for a model, one that is listed after `route`, one whose fit fails.
SHORT, LATE, BROKEN = "SYM33", "SYM32", "SYM07"


def run(*arguments) -> int:
    return _run([str(argument) for argument in arguments], debug=False)


def payload_of(page: str) -> dict:
    return json.loads(page.split('id="report-data">')[1].split("</script>")[0])


def columns_of(table: dict) -> dict[str, list]:
    def unpacked(column):
        if "each" in column:
            return column["each"]
        if "all" in column:
            return [column["all"]] * table["length"]
        return [column["of"][at] for at in column["at"]]

    return {name: unpacked(column) for name, column in table["columns"].items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with a universal model, a fleet and a routed run, all reported."""
    root = tmp_path_factory.mktemp("pages")
    write_market(root / "bars", symbols=len(NAMES), sessions=500)
    for name, length in ((SHORT, 220), (LATE, 60)):
        path = root / "bars" / f"{name}.csv"
        pl.read_csv(path).tail(length).write_csv(path)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED) == 0
    assert run("train", "lightgbm", "-w", root, "--quiet", "--no-report") == 0
    plain = fit.fit_symbol

    def broken(data, *rest):
        if data.symbol == BROKEN:
            raise ValueError("planted")
        return plain(data, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "fit_symbol", broken)
        options = ("--preset", "standard", "--min-rows", "200", "--executor", "serial", "--quiet")
        assert run("fleet", "trees", "-w", root, *options) == 0
    routed = barcast.route(workspace=root, policy="prefer-dedicated")
    assert run("report", routed.run.name, "-w", root, "--quiet") == 0
    return root


@pytest.fixture(scope="module")
def fleet(place):
    return fleet_run(Workspace(place))


@pytest.fixture(scope="module")
def page(fleet):
    return payload_of((fleet.path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def known(fleet):
    with Ledger.open(fleet.fleet / LEDGER) as ledger:
        return ledger.rows(), ledger.pooled("weights"), ledger.counts(), ledger.size_bytes()


def test_costs_are_those_of_the_ledger(page, known):
    rows, _, counts, size = known
    done = {row.symbol: row for row in rows if row.status == "done"}
    columns = columns_of(page["fleet"]["symbols"])
    assert page["fleet"]["counts"] == counts and len(done) == 31
    assert sorted(columns["symbol"]) == sorted(done)
    assert page["fleet"]["seconds"] == pytest.approx(sum(row.seconds for row in done.values()), rel=1e-5)
    assert page["fleet"]["ledger_bytes"] == size
    for i, symbol in enumerate(columns["symbol"]):
        row = done[symbol]
        assert columns["preset"][i] == row.preset == "standard"
        assert columns["seconds"][i] == pytest.approx(row.seconds, rel=1e-2)
        assert columns["bytes"][i] == row.model_bytes + row.native_bytes > 0
        assert columns["rows"][i] == row.num_rows and columns["memory"][i] == row.memory_bytes
        trees = {name: own["trees"] for name, own in row.metrics["horizons"][0]["members"].items()}
        assert {name: columns[f"trees {name}"][i] for name in trees} == trees


def test_weights_are_those_that_serve(page, known):
    _, weights, *_ = known
    columns = columns_of(page["fleet"]["symbols"])
    members = page["fleet"]["members"]
    names = [member["name"]["en"].lower() for member in members]
    assert names == ["forest", "xgboost", "lightgbm", "zero"]
    for i, symbol in enumerate(columns["symbol"]):
        (evidence,) = weights[symbol]
        shown = [columns[f"weight {k}"][i] for k in range(len(names))]
        assert shown == pytest.approx(evidence["weights"], abs=6e-4) and sum(shown) == pytest.approx(
            1, abs=3e-3
        )
    all_weights = np.array([each[0]["weights"] for each in weights.values()])
    scores = np.array([np.array(each[0]["log_score"]) / each[0]["num_rows"] for each in weights.values()])
    for k, member in enumerate(members):
        assert member["mean"] == pytest.approx(all_weights[:, k].mean(), rel=1e-4)
        assert member["quantiles"][2] == pytest.approx(np.median(all_weights[:, k]), rel=1e-4)
        assert member["leads"] == pytest.approx((all_weights.argmax(axis=1) == k).mean(), abs=1e-4)
        assert member["log_score"] == pytest.approx((scores[:, k] - scores[:, 3]).mean(), rel=1e-3, abs=1e-6)
        assert member["quantiles"] == sorted(member["quantiles"])


def test_skill_is_that_of_route_and_its_interval_holds_it(page, fleet):
    columns = columns_of(page["fleet"]["symbols"])
    rows = read_predictions(fleet.predictions, segment="route").filter(pl.col("y").is_not_null())
    assert page["fleet"]["segment"] == "route" and page["fleet"]["has_size"]
    for symbol in ("SYM00", "SYM11", "SYM31"):
        i, own = columns["symbol"].index(symbol), rows.filter(symbol=symbol)
        y, y_hat = own["y"].to_numpy(), own["y_hat"].to_numpy()
        assert columns["judged"][i] == len(own)
        assert columns["skill"][i] == pytest.approx(1 - ((y - y_hat) ** 2).sum() / (y**2).sum(), rel=1e-3)
        assert columns["low"][i] < columns["skill"][i] < columns["high"][i]


def test_curves_are_forecasts_beside_outcomes_of_route_alone(page, fleet):
    rows = read_predictions(fleet.predictions, segment="route").sort("symbol", "time")
    times = page["fleet"]["times"]
    assert times == [str(time.date()) for time in rows["time"].unique().sort()][: len(times)]
    details = {detail["symbol"]: detail for detail in page["fleet"]["details"]}
    assert len(details) == 31
    for symbol in ("SYM02", "SYM20"):
        own = rows.filter(symbol=symbol).filter(pl.col("time").dt.date().cast(pl.String).is_in(times))
        assert details[symbol]["forecast"] == pytest.approx((own["y_hat"] * 1e4).to_list(), rel=1e-2)
        assert details[symbol]["outcome"] == pytest.approx((own["y"] * 1e4).to_list(), rel=1e-2)


def test_members_of_a_symbol_have_their_errors_and_rounds(page, known):
    row = next(row for row in known[0] if row.symbol == "SYM05")
    detail = next(detail for detail in page["fleet"]["details"] if detail["symbol"] == "SYM05")
    judged = row.metrics["horizons"][0]
    assert [own["name"] for own in detail["errors"]] == ["forest", "xgboost", "lightgbm"]
    for own in detail["errors"]:
        saved = judged["members"][own["name"]]
        assert own["trees"] == saved["trees"] <= own["most"] == {"forest": 100}.get(own["name"], 150)
        assert own["stops"] == (own["name"] != "forest") and detail["learning"] is None
        for segment in ("stop", "weigh"):
            zero, error = judged["zero"][f"rmse_{segment}"], saved[f"rmse_{segment}"]
            assert own["rmse"][segment] == pytest.approx(error, rel=1e-3)
            assert own["r2"][segment] == pytest.approx(1 - (error / zero) ** 2, rel=1e-2, abs=1e-5)


def test_who_has_no_model_is_named_with_what_to_do(page):
    columns = columns_of(page["failures"])
    found = {symbol: i for i, symbol in enumerate(columns["symbol"])}
    assert set(found) == {SHORT, LATE, BROKEN}
    assert columns["error"][found[SHORT]]["zh"].startswith("历史过短：训练样本")
    assert "planted" in columns["error"][found[BROKEN]]
    assert "retry-failed" in columns["fallback"][found[BROKEN]]
    assert columns["stage"][found[BROKEN]]["en"] == "failed"
    assert reason_text("no time left in the budget").zh == "预算时间已用完"
    assert reason_text("something else").zh == "something else"


def test_the_sealed_test_stays_out_until_it_is_opened(place, fleet, page, tmp_path):
    last = page["fleet"]["times"][-1]
    first = json.loads((fleet.path / "state.json").read_text())["segments"]["test"][0]
    assert last < first and read_predictions(fleet.predictions, segment="test")["y"].null_count() > 100
    copy = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(place), str(copy)], check=True)
    assert run("report", fleet.name, "-w", copy, "--open-test", "--quiet") == 0
    opened = payload_of((copy / "runs" / fleet.name / "report.html").read_text(encoding="utf-8"))
    assert opened["fleet"]["segment"] == "test" and opened["fleet"]["times"][0] >= first


def test_a_routed_page_has_the_evidence_of_the_routes(place):
    routed = next(r for r in barcast.runs(workspace=place) if r.name.startswith("routed-"))
    text = (routed.path / "report.html").read_text(encoding="utf-8")
    page = payload_of(text)
    routes = open_routes(routed).sort("symbol")
    columns = columns_of(page["routing"]["symbols"])
    assert page["fleet"] is None and page["routing"]["policy"] == "prefer-dedicated"
    assert columns["symbol"] == routes["symbol"].to_list() == sorted(NAMES)
    assert columns["server"] == routes["decision"].to_list()
    for shown, kept in (("gain", "gain"), ("expected", "posterior_mean"), ("probability", "probability")):
        pairs = zip(columns[shown], routes[kept], strict=True)
        assert all(a is b is None or a == pytest.approx(b, rel=1e-3) for a, b in pairs)
    at = {symbol: i for i, symbol in enumerate(columns["symbol"])}
    for symbol in (SHORT, LATE, BROKEN):
        assert columns["why"][at[symbol]] == "none" and columns["server"][at[symbol]] == "universal"
    assert columns["detail"][at[SHORT]]["en"].startswith("too short: ")
    assert set(columns["why"]) == {"none", "policy"}
    assert 'id="routing"' in text and 'id="training"' not in text


def test_reasons_of_routes_name_what_a_symbol_lacks(place, capsys):
    assert run("route", "-w", place, "--json", "--quiet") == 0
    routes = {row["symbol"]: row for row in json.loads(capsys.readouterr().out)["routes"]}
    assert set(routes) == set(NAMES)
    assert "too short: 0 of 200" in routes[LATE]["reason"] and routes[LATE]["num_rows"] == 0
    assert routes[LATE]["probability"] is None and "planted" in routes[BROKEN]["reason"]
    by_evidence = next(
        r
        for r in barcast.runs(workspace=place)
        if r.read("config.json")["options"].get("policy") == "evidence"
    )
    assert run("report", by_evidence.name, "-w", place, "--quiet") == 0
    shown = columns_of(
        payload_of((by_evidence.path / "report.html").read_text(encoding="utf-8"))["routing"]["symbols"]
    )
    for symbol, why, server in zip(shown["symbol"], shown["why"], shown["server"], strict=True):
        row = routes[symbol]
        assert (why == "better") == (server == "dedicated") == (row["decision"] == "dedicated")
        said = {
            "none": "There is no",
            "luck": "may be luck",
            "worse": "no better",
            "better": "is better",
            "little": "Too little",
        }
        assert said[why] in row["reason"]


def test_networks_show_how_they_learned(place, tmp_path):
    options = (
        "--preset",
        "16",
        "--epochs",
        "2",
        "--look-back-window",
        "20",
        "--symbols",
        "SYM00,SYM01,SYM02,SYM03",
    )
    assert (
        run("fleet", "gru", "-w", place, *options, "--min-rows", "200", "--executor", "serial", "--quiet")
        == 0
    )
    fleet = next(r for r in barcast.runs(workspace=place) if r.name.startswith("fleet-gru-"))
    page = payload_of((fleet.path / "report.html").read_text(encoding="utf-8"))["fleet"]
    assert page["kind"] == "networks" and page["members"] == [] and page["strength"] is None
    with Ledger.open(fleet.fleet / LEDGER) as ledger:
        for detail in page["details"]:
            row = ledger.row(detail["symbol"])
            curve = row.metrics["curve"]
            assert detail["learning"]["best_epoch"] == row.metrics["best_epoch"]
            assert detail["learning"]["train_loss"] == pytest.approx(
                [line["train_loss"] for line in curve], rel=1e-3
            )
            assert detail["learning"]["stop_score"] == pytest.approx(
                [line["stop_score"] for line in curve], rel=1e-3
            )


def test_a_fleet_at_work_says_how_fast_it_is_and_what_is_left(place, fleet, monkeypatch, capsys):
    monkeypatch.setattr(fleet_seen, "RECENT_SECONDS", 3600.0)
    assert barcast.fleet_status(fleet.name, workspace=place).seconds_left is None  # nobody is at work
    with writer_lock(fleet.path):
        fleet.update(status="running")
        found = barcast.fleet_status(fleet.name, workspace=place)
        assert run("fleet", "status", "--run", fleet.name, "-w", place) == 0
    fleet.update(status="done")
    assert found.rate > 0 and found.seconds_left == 0 and found.memory_bytes > 10_000_000
    assert f"at work: {found.rate:.1f}"[:10] in capsys.readouterr().out


def test_who_has_no_model_in_a_residual_fleet_has_the_universal_forecast_of_that_run(fleet, tmp_path):
    plain = {each.symbol: each.fallback for each in fleet_failures(fleet)}
    assert "barcast route" in plain[SHORT].en and "通用模型" in plain[SHORT].zh
    shutil.copytree(fleet.path, tmp_path / "residual")
    residual = RunFolder(tmp_path / "residual")
    residual.update(universal={"run": "lstm-1"})
    told = {each.symbol: each.fallback for each in fleet_failures(residual)}
    assert set(told) == set(plain)
    assert all(text.en.startswith("this run gives it the universal forecast") for text in told.values())
    assert all(text.zh.startswith("本运行给出通用预测") for text in told.values())


def test_a_look_at_a_fleet_imports_nothing_that_fits_or_reads_bars(place):
    code = (
        "import sys; from pathlib import Path; import barcast\n"
        f"print(barcast.fleet_status(workspace=Path({str(place)!r})).counts['done'])\n"
        "print(sorted({'numba', 'polars', 'torch', 'lightgbm'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    num, heavy = printed.splitlines()
    assert int(num) > 0 and heavy == "[]"
