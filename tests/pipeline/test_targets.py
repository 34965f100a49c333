"""Directions and quantiles from the store to the predictions table, the comparison and the next session."""

import json

import numpy as np
import polars as pl
import pytest

from barcast.core.predictions import QUANTILE_LEVELS, read_predictions
from barcast.core.runs import list_runs
from barcast.core.workspace import Workspace
from barcast.pipeline.forecast import ScoreMap, fit_odds, fit_quantiles
from tests.journey.test_journey import DECLARED, run, write_market


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("targets")
    write_market(root / "bars", sessions=640)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED, "--quiet") == 0
    for target in ("direction", "quantiles"):
        how = ("train", "mlp", "--target", target, "--horizon", "1,5", "-w", root, "--quiet")
        assert run(*how, "--epochs", "6", "--hidden-size", "16", "--batch-size", "960") == 0
    return root


def run_of(place, target, model="mlp"):
    runs = list_runs(Workspace(place))
    return next(
        r for r in runs if (r.info["model"], r.read("config.json")["data"]["target"]) == (model, target)
    )


def served(place, capsys, name):
    capsys.readouterr()
    assert run("predict", name, "-w", place, "--json", "--quiet", "--allow-old") == 0
    return json.loads(capsys.readouterr().out)["forecasts"]


def test_a_direction_is_served_as_odds(place, capsys):
    found = run_of(place, "direction")
    table = read_predictions(found.predictions)
    assert table["quantiles"].null_count() == len(table)
    for score_map in found.read("state.json")["maps"]:
        assert score_map["odds"] > 0 and not score_map["shifts"]  # reversal is planted: there is something
        rows = table.filter(horizon=score_map["horizon"])
        odds = np.log(rows["p_up"] / (1 - rows["p_up"]))
        assert odds.to_numpy() == pytest.approx(score_map["odds"] * rows["score"].to_numpy(), abs=1e-6)
    assert all((row["p_up"] > 0.5) == (row["score"] > 0) for row in served(place, capsys, found.name))


def test_quantiles_hold_what_they_promise(place, capsys):
    found = run_of(place, "quantiles")
    table = read_predictions(found.predictions)
    quantiles = np.array(table["quantiles"].to_list())
    assert (np.diff(quantiles, axis=1) >= 0).all()
    for horizon in (1, 5):
        weigh = table.with_row_index().filter(pl.col("segment") == "weigh", pl.col("horizon") == horizon)
        below = (weigh["y"].to_numpy()[:, None] <= quantiles[weigh["index"]]).mean(axis=0)
        assert below == pytest.approx(QUANTILE_LEVELS, abs=0.02)  # conformal where it was fitted
        route = table.with_row_index().filter(pl.col("segment") == "route", pl.col("horizon") == horizon)
        below = (route["y"].to_numpy()[:, None] <= quantiles[route["index"]]).mean(axis=0)
        assert below == pytest.approx(QUANTILE_LEVELS, abs=0.1)  # and about so later
    assert found.info["num_parameters"] > run_of(place, "direction").info["num_parameters"]
    assert len(served(place, capsys, found.name)) == 2 * 40


def test_quantiles_stand_beside_those_of_every_other_row(place):
    for row in run_of(place, "quantiles").read("comparison.json")[0]["all_rows"]["rows"]:
        assert row["scores"]["pinball"]["value"] > 0, row["model"]


def test_odds_are_the_likeliest_and_none_without_skill():
    rng = np.random.default_rng(0)
    score = rng.normal(size=20_000)
    y = np.where(rng.random(20_000) < 1 / (1 + np.exp(-0.7 * score)), 0.01, -0.01)
    score_map = ScoreMap(horizon=1, slope=0.1, width=1.0, volatility=0.01)
    assert fit_odds(score_map, score, y).odds == pytest.approx(0.7, abs=0.05)
    assert fit_odds(ScoreMap(horizon=1, slope=0.0, width=1.0, volatility=0.01), score, y).odds == 0


def test_shifts_mend_quantiles_that_are_off():
    rng = np.random.default_rng(0)
    y, volatility = 0.02 * rng.normal(size=20_000), np.full(20_000, 0.01)
    score_map = ScoreMap(horizon=4, slope=0.0, width=1.0, volatility=0.01)
    wrong = np.tile([3.0, 2.0, 7.0, 8.0, 9.0], (20_000, 1))
    for base in (wrong, np.zeros((20_000, 1))):
        mended = fit_quantiles(score_map, y, base, volatility)
        found = mended.quantiles(base, volatility)
        assert found[0] == pytest.approx(np.quantile(y, QUANTILE_LEVELS), abs=1e-3)
