"""Residual fleets: what they correct was never seen, is believed as far as it holds, and serves with its parent."""

import json
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.calendar import exchange_days
from barcast.core.errors import RunError, UsageError
from barcast.core.predictions import read_predictions
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.evaluation.metrics import rank_ic
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.pipeline import fleet_universal
from barcast.pipeline.dataset import build_dataset, make_target, run_features
from barcast.pipeline.fleet_lessons import lessons_of
from barcast.pipeline.fleet_residual import CALIBRATION, SLOPES, Residual, halves_of_weigh
from barcast.pipeline.fleet_universal import NUM_FOLDS, Universal, stored_scores, unseen_scores
from barcast.pipeline.fleet_weights import cross_weighed
from barcast.pipeline.market import load_market
from barcast.pipeline.settings import DataConfig, from_run
from tests.journey.test_journey import TINY
from tests.tracking.fake import tracked_by_default

NUM, SESSIONS = 34, 600
NAMES = [f"SYM{s:02d}" for s in range(NUM)]
DAYS = exchange_days("XNYS", np.datetime64("2019-01-02").item(), np.datetime64("2023-12-29").item())
DAYS = DAYS[:SESSIONS]
SHORT = "SYM33"
DATA = ["--horizon", "1", "--quiet", "--no-report"]
FLEET = ["--preset", "fast", "--min-rows", "120", "--executor", "serial", *DATA]


def run(*arguments) -> int:
    return _run([str(argument) for argument in arguments], debug=False)


def import_market(root, *, common, own, seed=3):
    """Give a day's own move back two sessions later, by a share that symbols have in common plus or minus one."""
    rng = np.random.default_rng(seed)
    market = rng.normal(0, 0.006, SESSIONS)
    (root / "bars").mkdir(parents=True)
    for place, name in enumerate(NAMES):
        noise = rng.normal(0, 0.015, SESSIONS)
        move = noise.copy()
        move[2:] += (common + own * (1 if place % 2 else -1)) * noise[:-2]
        close = 30 * np.exp(np.cumsum(move + market))
        told = {"Date": DAYS, "Open": close, "High": close * 1.004, "Low": close * 0.996, "Close": close}
        bars = pl.DataFrame({**told, "Volume": rng.integers(10_000, 900_000, SESSIONS)})
        bars.tail(190 if name == SHORT else SESSIONS).write_csv(root / "bars" / f"{name}.csv")
    assert run("data", "import", root / "bars", "-w", root, "--market", "us", "--basis", "raw", "-q") == 0
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A market of two kinds of symbols, ridge, and a fleet on what it leaves, with its refit."""
    root = import_market(tmp_path_factory.mktemp("residual") / "ws", common=-0.3, own=0.5)
    facts = root / "facts.csv"
    lines = [f"{name},{'odd' if place % 2 else 'even'}" for place, name in enumerate(NAMES[:-2])]
    facts.write_text("\n".join(["symbol,industry", *lines]))
    assert run("data", "facts", facts, "-w", root) == 0
    assert run("train", "ridge", "-w", root, "--features", "core12", *DATA) == 0
    assert run("fleet", "trees", "-w", root, *FLEET, *on_ridge(root), "--final") == 0
    return root


def on_ridge(root):
    return ["--on", "residual", "--universal", named(root, "ridge").name]


def named(root, model, *, final=False):
    found = (r for r in barcast.runs(workspace=root) if r.info["model"] == model)
    return next(r for r in found if bool(r.info.get("final")) == final)


def joined(run):
    """What a residual fleet keeps: its slopes by symbol and the slope of the universal score."""
    with Ledger.open(run.fleet / LEDGER) as ledger:
        slopes = {symbol: found[0]["slope"] for symbol, found in ledger.pooled(SLOPES).items()}
        return slopes, ledger.meta()[CALIBRATION][0]


def skill(run, segment="route"):
    table = read_predictions(run.predictions, segment=segment).filter(pl.col("symbol") != SHORT)
    session = table["time"].rank("dense").to_numpy().astype(int) - 1
    return np.asarray(rank_ic(table["y"].to_numpy(), table["score"].to_numpy(), session, session.max() + 1))


def corrections(ridge, fleet):
    """Rows of both, with what the fleet adds to the calibrated universal forecast."""
    keys = ["symbol", "time", "segment"]
    tables = [read_predictions(each.predictions).select(*keys, "score") for each in (fleet, ridge)]
    both = tables[0].join(tables[1], on=keys, suffix="_universal")
    assert len(both) == len(tables[0]) == len(tables[1])  # everybody has a forecast
    base = joined(fleet)[1] * both["score_universal"]
    return both.select("symbol", base.alias("base"), added=both["score"] - base)


def size_of_correction(ridge, fleet):
    """Root mean square of what is added, in that of what it is added to."""
    found = corrections(ridge, fleet)
    return (found["added"].pow(2).mean() / found["base"].pow(2).mean()) ** 0.5


def test_it_corrects_what_is_different_about_symbols(place):
    ridge, fleet = named(place, "ridge"), named(place, "fleet-trees")
    gain = skill(fleet) - skill(ridge)
    assert gain.mean() > 3 * gain.std() / np.sqrt(len(gain)) > 0
    slopes, calibration = joined(fleet)
    assert sorted(slopes) == NAMES[:-1] and calibration > 0
    assert np.mean(list(slopes.values())) > 0.5 and size_of_correction(ridge, fleet) > 0.4
    assert fleet.info["universal"]["run"] == ridge.name and fleet.info["universal"]["id"] == ridge.info["id"]
    assert fleet.info["chosen_until"] >= ridge.info["chosen_until"]


def test_without_differences_between_symbols_it_is_the_universal_model(tmp_path):
    root = import_market(tmp_path / "ws", common=-0.4, own=0.0)
    assert run("train", "ridge", "-w", root, "--features", "core12", *DATA) == 0
    assert run("fleet", "trees", "-w", root, *FLEET, *on_ridge(root)) == 0
    ridge, fleet = named(root, "ridge"), named(root, "fleet-trees")
    assert size_of_correction(ridge, fleet) < 0.1
    gain = skill(fleet) - skill(ridge)
    assert gain.mean() > -2 * gain.std() / np.sqrt(len(gain)) - 1e-9


def test_a_forecast_is_the_calibrated_universal_one_plus_the_slope_times_its_own(place):
    ridge, fleet = named(place, "ridge"), named(place, "fleet-trees")
    slopes, _ = joined(fleet)
    found = corrections(ridge, fleet)
    alone = found.filter(pl.col("symbol") == SHORT)["added"]
    np.testing.assert_allclose(alone, 0, atol=1e-4)
    assert len(alone)
    assert max(slopes.values()) <= 1
    shown = barcast.fleet_symbol("SYM05", fleet.name, workspace=place)
    (evidence,) = shown.slopes
    assert evidence["slope"] == slopes["SYM05"] and evidence["industry"] == "odd"
    assert evidence["market_slope"] > 0 and evidence["industry_slope"] > 0


def test_no_outcome_has_a_part_in_the_weights_that_it_judges(spare):
    ridge, fleet, workspace = named(spare, "ridge"), named(spare, "fleet-trees"), Workspace(spare)
    data = from_run(fleet.read("config.json")).data
    market = load_market(workspace, data)
    dataset = build_dataset(market, workspace, run_features(fleet, data.features), tabular=True)
    session, known = market.bars.session, market.labels.last_known_at
    halves = halves_of_weigh(dataset)
    (_, late), (_, early) = halves
    assert early.sum() + late.sum() == len(dataset.rows_to_judge("weigh"))
    for by, judged in halves:
        earlier, later = sorted((by, judged), key=lambda rows: session[rows].min())
        assert known[earlier].max() < session[later].min() and min(by.sum(), judged.sum()) > 300
    lessons = lessons_of(dataset, "length")
    other = dataset.target.copy()
    other[early] *= -3
    changed = replace(lessons, data=replace(lessons.data, target=other))
    with Ledger.open(fleet.fleet / LEDGER) as ledger:
        found, again = (cross_weighed(ledger, each, halves) for each in (lessons, changed))
    alone = dataset.market.bars.symbol_of_row == NAMES.index(SHORT)
    assert np.isfinite(found[(early | late) & ~alone]).all() and np.isnan(found[alone]).all()
    np.testing.assert_array_equal(found[early], again[early])
    assert (found[late & ~alone] != again[late & ~alone]).mean() > 0.9

    def served(rows):
        raise AssertionError("weights of all of `weigh` judge rows of it")

    base = np.zeros(dataset.target.shape)
    residual = Residual(Universal.of(ridge), (1.0,), base, dataset, ("",) * NUM, None)
    residual.conclude(fleet, served)
    slopes, _ = joined(fleet)
    assert sorted(slopes) == NAMES[:-1]


def test_history_cut_at_a_session_gives_the_forecast_of_the_table(place):
    fleet = named(place, "fleet-trees")
    for segment in ("route", "test"):
        table = read_predictions(fleet.predictions, segment=segment)
        when = table["time"].unique().sort()[20]
        then = barcast.predict(fleet.name, workspace=place, asof=str(when.date())).table.sort("symbol")
        told = table.filter(pl.col("time") == when).sort("symbol")
        assert then["run"].unique().to_list() == [fleet.name]
        assert then["symbol"].to_list() == told["symbol"].to_list()
        for column in ("score", "y_hat", "sigma"):
            np.testing.assert_allclose(then[column], told[column], rtol=1e-4, atol=1e-6)


def test_the_audit_finds_no_leak(place, capsys):
    found = run("audit", named(place, "fleet-trees").name, "-w", place, "--cuts", "2", "-q")
    assert found == 0, capsys.readouterr()


def test_the_refit_keeps_slopes_and_serves_with_the_refit_of_its_parent(place):
    fleet, refit = named(place, "fleet-trees"), named(place, "fleet-trees", final=True)
    universal = named(place, "ridge", final=True)
    assert refit.info["universal"]["run"] == universal.name
    (before, scale), (after, same) = joined(fleet), joined(refit)
    assert same == scale and after == {symbol: before[symbol] for symbol in after}
    with Ledger.open(fleet.fleet / LEDGER) as old, Ledger.open(refit.fleet / LEDGER) as new:
        assert new.row("SYM03").num_rows > 1.3 * old.row("SYM03").num_rows
        taught = new.row("SYM03").num_rows
    begins = pl.read_parquet(fleet.fleet / "universal" / "fold-0.parquet")["time"].min().date()
    known = [day for day in map(str, DAYS[:-2]) if day >= str(begins)]
    first, last = fleet.read("state.json")["segments"]["stop"]
    assert taught == len([day for day in known if not first <= day <= last])  # `stop` chose the universal run
    served = barcast.predict(fleet.name, workspace=place, allow_old=True).table
    alone = barcast.predict(universal.name, workspace=place, allow_old=True).table
    assert served["run"][0] == refit.name and len(served) == NUM
    told = [table.filter(pl.col("symbol") == SHORT)["score"][0] for table in (served, alone)]
    assert told[0] == pytest.approx(scale * told[1], abs=1e-4)


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_it_serves_nothing_without_the_run_that_it_corrects(spare, how, capsys):
    ridge = named(spare, "ridge", final=True)
    if how == "gone":
        shutil.rmtree(ridge.path)
    else:
        ridge.weights.write_bytes(named(spare, "ridge").weights.read_bytes())
    assert run("predict", named(spare, "fleet-trees").name, "-w", spare, "--allow-old") == 5
    said = " ".join(capsys.readouterr().err.split())
    assert f"corrects what `{ridge.name}` says" in said and "--fresh" in said


def test_out_of_fold_forecasts_do_not_know_their_labels(tmp_path):
    """Labels are noise, and the universal model learns them by heart."""
    root = import_market(tmp_path / "ws", common=0.0, own=0.0)
    heart = {"num_leaves": 400, "min_data_in_leaf": 1, "num_rounds": 10, "learning_rate": 0.3,
             "bagging_fraction": 1.0, "lambda_l2": 0.0, "num_threads": 1}  # fmt: skip
    (root / "heart.toml").write_text("\n".join(["[lightgbm]", *(f"{k} = {v}" for k, v in heart.items())]))
    asked = ("--features", "core12", "--config", root / "heart.toml", *DATA)
    assert run("train", "lightgbm", "-w", root, *asked) == 0
    place, universal = Workspace(root), named(root, "lightgbm")
    market = load_market(place, DataConfig(features="core12", horizons=(1,)))
    scratch = RunFolder(tmp_path / "scratch")
    found = unseen_scores(place, scratch, universal, market, Progress(enabled=False))[:, 0]
    target = make_target(market)[0][:, 0]
    rows = np.flatnonzero(market.rows_of("fit") & np.isfinite(found))
    known = stored_scores(place, universal, market.bars, rows)[:, 0]
    assert np.corrcoef(known, target[rows])[0, 1] > 0.5
    assert len(rows) > 5000 and abs(np.corrcoef(found[rows], target[rows])[0, 1]) < 4 / np.sqrt(len(rows))
    # another truth from the middle on: only later blocks may tell
    session = market.bars.session
    files = [scratch.fleet / "universal" / f"fold-{k}.parquet" for k in range(NUM_FOLDS)]
    begins = market.bars.calendar.index(np.array([pl.read_parquet(f)["time"].min() for f in files], "M8[us]"))
    y = np.where(session[:, None] >= begins[2], -market.labels.y, market.labels.y)
    other = replace(market, labels=replace(market.labels, y=y))
    elsewhere = RunFolder(tmp_path / "other")
    again = unseen_scores(place, elsewhere, universal, other, Progress(enabled=False))[:, 0]
    early = rows[session[rows] < begins[3]]
    np.testing.assert_array_equal(found[early], again[early])
    late = rows[session[rows] >= begins[3]]
    assert (found[late] != again[late]).mean() > 0.5


def test_a_kill_costs_one_fold_and_changes_nothing(spare, monkeypatch):
    before = named(spare, "fleet-trees")
    digests = contents(before)
    plain, calls = fleet_universal.fit_model, []

    def dying(*arguments, **more):
        calls.append(arguments)
        if len(calls) == 3:
            raise RunError("killed", "the same command again")
        return plain(*arguments, **more)

    monkeypatch.setattr(fleet_universal, "fit_model", dying)
    command = ("fleet", "trees", "-w", spare, *FLEET, *on_ridge(spare))
    assert run(*command, "--fresh") != 0
    assert len(list(before.fleet.glob("universal/fold-*.parquet"))) == 2
    standing = barcast.fleet_status(workspace=spare)
    assert (standing.run, standing.universal) == (before.name, named(spare, "ridge").name)
    assert run("fleet", "status", "-w", spare) == 0
    (before.fleet / "universal" / "fold-0").mkdir()  # as a kill after the last file leaves it
    # ridge is taken only by its name, or by a fleet that had begun with it
    assert run("fleet", "trees", "-w", spare, *FLEET, "--on", "residual") == 0
    assert len(calls) == 3 + 2 and contents(before) == digests
    assert not [path for path in (before.fleet / "universal").iterdir() if path.is_dir()]


def contents(run):
    with Ledger.open(run.fleet / LEDGER) as ledger:
        return ledger.content_digest("weights", SLOPES), ledger.meta()[CALIBRATION]


def test_a_dry_run_plans_the_same_fleet(spare, capsys):
    before = contents(named(spare, "fleet-trees"))
    command = ("fleet", "trees", "-w", spare, *FLEET, *on_ridge(spare), "--seed", "4")
    assert run(*command, "--dry-run", "--json") == 0
    (plan,) = json.loads(capsys.readouterr().out)
    kept = barcast.fleet_status(workspace=spare)
    assert kept.counts["done"] == NUM - 1 - plan["num_symbols"] > 0
    assert kept.universal == named(spare, "ridge").name
    finished = {row.symbol: row.finished_at for row in kept.rows if row.status == "done"}
    assert run(*command) == 0
    found = barcast.fleet_status(workspace=spare)
    assert found.counts["done"] == NUM - 1
    assert finished.items() <= {row.symbol: row.finished_at for row in found.rows}.items()
    assert contents(named(spare, "fleet-trees")) == before  # the fleet of the other seed is as it was


def test_networks_correct_a_network(spare):
    """By default the newest universal run carries the fleet; its folds are trained by the loop."""
    assert run("train", "lstm", "-w", spare, "--features", "core12", *DATA, *TINY) == 0
    small = ("--hidden-size", "8", "--look-back-window", "10", "--stretch-length", "20", "--batch-size", "80",
             "--epochs", "2", "--min-rows", "120", "--executor", "serial")  # fmt: skip
    assert run("fleet", "gru", "-w", spare, "--on", "residual", *small, *DATA) == 0
    fleet, lstm = named(spare, "fleet-gru"), named(spare, "lstm")
    assert fleet.info["universal"]["run"] == lstm.name and not list(fleet.fleet.glob("universal/fold-?"))
    tables = [read_predictions(each.predictions) for each in (fleet, lstm)]
    assert len(tables[0]) == len(tables[1])
    assert barcast.fleet_symbol("SYM04", fleet.name, workspace=spare).slopes
    served = barcast.predict(fleet.name, workspace=spare, allow_old=True).table
    assert len(served) == NUM and served["score"].is_finite().all()


def test_a_retrained_champion_corrects_a_universal_model_of_the_same_day(spare, capsys, monkeypatch):
    ridge, fleet = named(spare, "ridge"), named(spare, "fleet-trees")
    days = exchange_days("XNYS", DAYS[-1].item(), np.datetime64("2023-12-29").item())[1:31]
    rng = np.random.default_rng(9)
    (spare / "more").mkdir()
    for path in sorted((spare / "bars").glob("*.csv")):
        bars = pl.read_csv(path, try_parse_dates=True)
        close = bars["Close"][-1] * np.exp(np.cumsum(rng.normal(0, 0.015, len(days))))
        told = {"Date": days, "Open": close, "High": close * 1.004, "Low": close * 0.996, "Close": close}
        later = pl.DataFrame({**told, "Volume": rng.integers(10_000, 900_000, len(days))})
        pl.concat([bars, later.cast(dict(bars.schema))]).write_csv(spare / "more" / path.name)
    assert run("data", "update", spare / "more", "-w", spare, "-q") == 0
    assert run("promote", fleet.name, "-w", spare) == 0
    assert run("retrain", "--dry-run", "-w", spare) == 0
    assert f"by the options of {ridge.name}" in capsys.readouterr().out
    fake = tracked_by_default(spare, monkeypatch)
    assert run("retrain", "--no-report", "--json", "-q", "-w", spare) == 0
    found = json.loads(capsys.readouterr().out)
    challenger = RunFolder(spare / "runs" / found["challenger"])
    universal = RunFolder(spare / "runs" / challenger.info["universal"]["run"])
    assert universal.name != ridge.name and universal.info["model"] == "ridge"
    assert universal.info["cutoff"] == challenger.info["cutoff"] == str(days[-1]) > ridge.info["cutoff"]
    assert found["differences"] and not found["problems"]
    assert fake.runs == [universal.name, challenger.name]


def test_a_fleet_without_the_run_that_it_corrects_is_not_routed(spare):
    ridge, fleet = named(spare, "ridge"), named(spare, "fleet-trees")
    fleet.update(universal={**fleet.info["universal"], "digest": "another"})
    with pytest.raises(RunError, match="has other weights now"):
        barcast.route(ridge.name, fleet.name, workspace=spare)


def test_routing_leaves_symbols_without_a_model_to_the_universal_one(spare):
    ridge, fleet = named(spare, "ridge"), named(spare, "fleet-trees")
    routes = barcast.route(ridge.name, fleet.name, "prefer-dedicated", workspace=spare).routes
    decided = dict(routes.select("symbol", "decision").iter_rows())
    assert decided.pop(SHORT) == "universal" and set(decided.values()) == {"dedicated"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--on", "residual"], "no finished universal run"),  # ridge alone is not taken unless it is named
        (["--on", "residual", "--universal", "ridge", "--horizon", "5"], "horizons or segments differ"),
        (["--on", "residual", "--universal", "ridge", "--target", "return"], "it learned rank"),
        (["--on", "residual", "--universal", "ridge", "--limit", "31"], "learned other rows"),
        (["--on", "residual", "--universal", "fleet-trees"], "no universal model"),
        (["--on", "residual", "--universal", "ridge-final"], "it is a refit"),
        (["--universal", "ridge"], "learns the target"),
        (["--on", "rest"], "residual"),
    ],
)
def test_what_no_residual_fleet_can_lean_on_is_refused(place, options, said, capsys):
    runs = [one.name for one in barcast.runs(workspace=place)]
    name = options[options.index("--universal") + 1] if "--universal" in options else ""
    if name:
        full = named(place, name.removesuffix("-final"), final=name.endswith("-final")).name
        options = [full if option == name else option for option in options]
    assert run("fleet", "trees", "-w", place, *FLEET, *options) in (2, 5)
    assert said in " ".join(capsys.readouterr().err.split())
    assert [one.name for one in barcast.runs(workspace=place)] == runs


def test_a_run_that_began_with_other_weights_is_refused(spare):
    ridge = named(spare, "ridge")
    ridge.update(warm_start={"run": "lstm-of-last-year"})
    with pytest.raises(RunError, match="know what a fold must not"):
        barcast.train_fleet(workspace=spare, on="residual", universal=ridge.name, horizons=(1,))


def test_what_reads_models_alone_refuses_a_residual_fleet(place, tmp_path):
    fleet = named(place, "fleet-trees").name
    for ask in (
        lambda: barcast.fleet_export("SYM01", tmp_path / "one.zip", fleet, workspace=place),
        lambda: barcast.fleet_refresh(["SYM01"], fleet, workspace=place),
        lambda: barcast.fleet_decay(fleet, workspace=place),
    ):
        with pytest.raises(RunError, match="is a residual fleet"):
            ask()
    with pytest.raises(UsageError, match="learns the target"):
        barcast.train_fleet(workspace=place, universal="ridge")


def test_plain_fleets_keep_their_names():
    from barcast.models.dedicated import FleetTreesConfig
    from barcast.pipeline.settings import RunConfig

    asked = [RunConfig("fleet-trees", 0, DataConfig(), options, None).identity()["options"]
             for options in (FleetTreesConfig(), FleetTreesConfig(on="residual", universal="x"))]  # fmt: skip
    assert not {"on", "universal"} & asked[0].keys() and asked[1]["universal"] == "x"
