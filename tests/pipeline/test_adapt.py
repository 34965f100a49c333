"""Rows for new symbols: their skill rises, the others' bits stay, nothing is known too early or for nothing."""

import json
import subprocess
import time

import numpy as np
import polars as pl
import pytest
import torch

import barcast
from barcast.core.calendar import exchange_days
from barcast.core.errors import DataError, RunError, UsageError
from barcast.core.runs import list_runs, open_run
from barcast.core.workspace import Workspace
from barcast.pipeline.adapt import HELD_OUT, _dataset, _new_symbols, _with_rows_for, adapt, held_out_labels
from barcast.pipeline.data import import_data
from barcast.pipeline.market import load_market
from barcast.pipeline.predict import newest_run, predict
from barcast.pipeline.scoring import score_rows
from barcast.pipeline.settings import from_run, resolve
from barcast.pipeline.train import refit, train
from barcast.sources.options import ImportOptions
from barcast.training.checkpoint import load_tensors
from tests.journey.test_journey import run

NUM_OLD, NUM_NEW, SESSIONS = 40, 12, 420
SMALL = {
    "features": "core12", "hidden_size": 16, "num_layers": 1, "look_back_window": 6, "stretch_length": 20,
    "batch_size": 800, "epochs": 30, "patience": 12, "amp": "off", "threads": 1, "lr": 2e-2, "horizons": (1,), "delay": 1,
    "stock_embedding_dim": 4, "id_dropout": 0.2, "shares": (0.5, 0.1, 0.15, 0.2, 0.05),
}  # fmt: skip


def bars(own: np.ndarray, seed: int = 0) -> pl.DataFrame:
    """Volume is drawn at random; the return two sessions later answers to it as strongly as ``own`` (N,) says."""
    rng = np.random.default_rng(seed)
    shape = (len(own), SESSIONS)
    volume, noise = rng.normal(size=shape), rng.normal(size=shape)
    returns = 0.7 * noise
    returns[:, 2:] += own[:, None] * volume[:, :-2]
    close = 50 * np.exp(np.cumsum(0.01 * returns, axis=1))
    days = exchange_days("XNYS", np.datetime64("2020-01-02").item(), np.datetime64("2023-12-29").item())
    names = [f"N{n:02d}" if n >= NUM_OLD else f"A{n:02d}" for n in range(len(own))]
    return pl.DataFrame(
        {
            "symbol": np.repeat(names, SESSIONS),
            "date": np.tile(np.array(days[:SESSIONS]), len(own)),
            **{name: (close * factor).ravel() for name, factor in
               (("open", 1.0), ("high", 1.002), ("low", 0.998), ("close", 1.0))},
            "volume": np.round(1e6 * np.exp(0.7 * volume)).ravel(),
        }
    )  # fmt: skip


def workspace(root, own: np.ndarray, **more):
    """Import the market, train on the old symbols, refit."""
    declared = ImportOptions(market="us", basis="raw", volume_unit="share")
    import_data(root, bars(own), declared)
    place = Workspace(root)
    old = tuple(f"A{n:02d}" for n in range(NUM_OLD))
    evaluated = train(place, resolve(place, "lstm", {**SMALL, "symbols": old, **more})).run
    refit(place, evaluated, from_run(evaluated.read("config.json")))
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A market of which half answers to volume one way and half the other, new symbols too."""
    own = np.where(np.arange(NUM_OLD + NUM_NEW) % 2, 0.7, -0.7)
    return workspace(tmp_path_factory.mktemp("adapt"), own)


@pytest.fixture(scope="module")
def adapted(place):
    started = time.perf_counter()
    found = adapt(place, evaluated_of(place), symbols=new_names()[:-2])
    assert time.perf_counter() - started < 20
    return found


def new_names() -> list[str]:
    return [f"N{n:02d}" for n in range(NUM_OLD, NUM_OLD + NUM_NEW)]


def evaluated_of(place):
    return next(r for r in list_runs(place) if r.info["model"] == "lstm" and not r.info.get("final"))


def final_of(place):
    return next(r for r in list_runs(place) if r.info.get("final") and "adapted_from" not in r.info)


def test_new_symbols_gain_skill_beyond_unknown_on_labels_held_out(adapted):
    assert adapted.helps and adapted.steps > 0 and len(adapted.symbols) == NUM_NEW - 2
    assert all(number > 300 for number in adapted.symbols.values())
    assert adapted.losses[adapted.steps] < 0.9 * adapted.losses[0]  # the answer's sign is what a row says


def test_their_forecasts_follow_their_own_behaviour_on_sessions_never_seen(place, tmp_path):
    """Adapted as of a day, judged on the sessions after it."""
    root = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(place.root), str(root)], check=True)
    here, day = Workspace(root), evaluated_of(place).info["chosen_until"]
    found = adapt(here, evaluated_of(here), asof=day)
    assert found.run.info["chosen_until"] <= day and found.adapted_from == evaluated_of(here).name
    config = from_run(found.run.read("config.json"))
    market = load_market(here, config.data.__class__(**{**vars(config.data), "symbols": ()}))
    data, own = market.bars, np.array([name[0] == "N" for name in market.bars.symbols])
    later = data.calendar.times[data.session] > np.datetime64(day)
    rows = np.flatnonzero(own[data.symbol_of_row] & later & np.isfinite(market.labels.y[:, 0]))
    skill = {}
    for each in (found.run, evaluated_of(here)):
        state = each.read("state.json")
        universe = np.isin(np.array(data.symbols), np.array(state["universe"]))
        features = _dataset(here, each, config, market).features
        scores = score_rows(here, each, config, state, data, features, universe, rows)[0][:, 0]
        skill[each.name] = np.corrcoef(scores, market.labels.y[rows, 0])[0, 1]
    assert len(rows) > 500
    assert skill[found.run.name] > 0.5 and abs(skill[evaluated_of(here).name]) < 0.25


def test_all_else_is_as_it_was_bit_for_bit(place, adapted):
    final = final_of(place)
    assert adapted.adapted_from == final.name
    before, after = load_tensors(final.weights)[0], load_tensors(adapted.run.weights)[0]
    table = "identity.embedding.weight"
    assert all(torch.equal(before[name], after[name]) for name in before if name != table)
    assert torch.equal(after[table][: NUM_OLD + 1], before[table])
    assert len(after[table]) == NUM_OLD + 1 + NUM_NEW - 2
    first = predict(place, final, symbols=[*old_names(), *new_names()], allow_old=True).table
    second = predict(place, adapted.run, symbols=[*old_names(), *new_names()], allow_old=True).table
    both = first.join(second, on="symbol", suffix="_2")
    new = pl.col("symbol").is_in(list(adapted.symbols))
    for name in ("score", "y_hat", "sigma", "p_up"):
        same = both.filter(~new)
        assert len(same) == NUM_OLD + 2
        assert same[name].to_list() == same[f"{name}_2"].to_list()
        assert (both.filter(new)[name] != both.filter(new)[f"{name}_2"]).all() or name == "sigma"


def old_names() -> list[str]:
    return [f"A{n:02d}" for n in range(NUM_OLD)]


def test_it_is_a_run_of_its_own_that_serves_by_name_only(place, adapted):
    info, evaluated, final = adapted.run.info, evaluated_of(place), final_of(place)
    assert adapted.run.name.startswith("lstm-adapted-")
    assert (info["parent"], info["adapted_from"], info["final"]) == (evaluated.name, final.name, True)
    assert newest_run(place, None) == evaluated
    assert predict(place, evaluated, allow_old=True).run == final.name
    served = predict(place, adapted.run, allow_old=True)
    assert served.run == adapted.run.name and served.parent == evaluated.name
    assert set(served.table["symbol"]) == {*old_names(), *adapted.symbols}
    assert not any("never taught" in warning.en for warning in served.warnings)
    assert "with embeddings for new symbols" in (adapted.run.path / "card.md").read_text()
    assert adapt(place, evaluated, symbols=new_names()[:-2]).run == adapted.run  # found again
    with pytest.raises(barcast.BarcastError, match="refit"):
        barcast.compare([adapted.run.name], workspace=place)


def test_what_it_knows_is_written_down_and_guarded(place, adapted):
    final, info = final_of(place), adapted.run.info
    assert info["taught_until"] >= final.info["taught_until"]
    assert info["chosen_until"] >= max(final.info["chosen_until"], info["taught_until"])
    day = evaluated_of(place).info["chosen_until"]
    assert day < info["chosen_until"]
    with pytest.raises(RunError, match="would have seen its own outcome"):
        predict(place, adapted.run, asof=day, allow_old=True)
    with pytest.raises(RunError, match="would have seen its own outcome"):
        adapt(place, final, asof=day)


def test_an_adapted_run_is_adapted_again(place, adapted):
    found = adapt(place, adapted.run)
    assert list(found.symbols) == new_names()[-2:] and found.run.info["parent"] == evaluated_of(place).name
    assert found.run.read("state.json")["adapted"] == new_names()
    old, new = (load_tensors(one.weights)[0]["identity.embedding.weight"] for one in (adapted.run, found.run))
    assert torch.equal(new[: len(old)], old)


def test_labels_held_out_are_the_last_and_overlap_none_that_teach(place):
    final = final_of(place)
    config = from_run(final.read("config.json"))
    data = config.data.__class__(**{**vars(config.data), "symbols": (), "horizons": (5,)})
    dataset = _dataset(place, final, config, load_market(place, data))
    dataset = _with_rows_for(place, final, dataset, tuple(_new_symbols(final, dataset, (), 1)[0]))
    early, late = held_out_labels(dataset)
    market = dataset.market
    assert not (early & late).any() and not ((early | late) & ~dataset.teach).any()
    for symbol in np.unique(market.bars.symbol_of_row[dataset.teach]):
        mine = market.bars.symbol_of_row == symbol
        first = market.bars.session[mine & late].min()
        assert (mine & late).sum() == np.ceil(HELD_OUT * (mine & dataset.teach).sum())
        assert market.labels.last_known_at[mine & early].max() == first  # none overlaps, none is lost
        assert (mine & dataset.teach).sum() - (mine & (early | late)).sum() == 5


@pytest.mark.soak
def test_noise_seldom_looks_like_behaviour_of_ones_own(tmp_path, soak_table):
    """The most sure of several looks is taken, so that the border's rate is not that of a single look."""
    alarms = []
    for seed in range(1, 26):
        place = workspace(tmp_path / str(seed), np.full(NUM_OLD + 3, 0.0), epochs=2, seed=seed)
        alarms.append(adapt(place, evaluated_of(place)).helps)
    soak_table.add("adapt", "25 markets of noise: it helps on at most 2", sum(alarms) <= 2, str(sum(alarms)))
    assert sum(alarms) <= 2


def test_where_symbols_do_not_differ_nothing_is_written_unless_asked(tmp_path):
    place = workspace(tmp_path, np.full(NUM_OLD + 3, 0.0), epochs=2, seed=2)
    before = len(list_runs(place))
    found = adapt(place, evaluated_of(place))
    assert not found.helps and found.steps == 0 and found.run is None
    assert len(list_runs(place)) == before
    written = adapt(place, evaluated_of(place), anyway=True)
    assert written.run is not None and not written.helps and written.steps > 0


def test_who_cannot_be_adapted(place, adapted, capsys):
    evaluated = evaluated_of(place)
    with pytest.raises(UsageError, match="knows A00 already"):
        adapt(place, evaluated, symbols=["A00"])
    with pytest.raises(DataError, match="has 5000 known labels; the most are 399"):
        adapt(place, evaluated, min_labels=5000)
    nobody = train(place, resolve(place, "lstm", {**SMALL, "epochs": 1, "stock_embedding_dim": 0})).run
    with pytest.raises(RunError, match="no symbol embedding"):
        adapt(place, nobody)


def test_the_command(place, adapted, capsys):
    name, some = evaluated_of(place).name, ",".join(new_names()[:-2])
    assert run("adapt", name, "-w", place.root, "--symbols", some, "--quiet", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == adapted.run.name and found["helps"] and found["symbols"] == adapted.symbols
    assert run("adapt", name, "-w", place.root, "--symbols", some) == 0
    said = capsys.readouterr().out
    assert "10 new symbols" in said and f"barcast predict {adapted.run.name}" in said
    assert barcast.adapt(name, workspace=place, symbols=new_names()[:-2]).run == adapted.run


def test_an_ensemble_gets_rows_in_every_network(place):
    flags = {**SMALL, "symbols": tuple(old_names()), "num_seeds": 2, "epochs": 12}
    two = train(place, resolve(place, "lstm", flags)).run
    found = adapt(place, two)
    assert found.helps
    before, after = load_tensors(two.weights)[0], load_tensors(found.run.weights)[0]
    for number in range(2):
        name = f"members.{number}.identity.embedding.weight"
        assert torch.equal(after[name][: NUM_OLD + 1], before[name])
        assert (after[name][NUM_OLD + 1 :] != before[name][0]).any(dim=1).all()
    assert open_run(place, found.run.name).is_done
