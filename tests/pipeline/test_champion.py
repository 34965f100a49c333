"""The champion: who may become it, who answers in its name, how it goes back; and runs loaded as objects."""

import itertools
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import barcast
from barcast.core.champion import MAX_REMEMBERED, Champions, Reign, read_champions
from barcast.core.errors import RunError, SymbolError, UsageError
from barcast.core.predictions import read_predictions
from barcast.core.runs import RunFolder, list_runs, open_run
from barcast.core.workspace import Workspace
from barcast.pipeline import champion as room
from barcast.pipeline import serving_notes
from barcast.pipeline.compare import market_of
from barcast.pipeline.dataset import build_dataset, run_features
from barcast.training.checkpoint import load_arrays, save_arrays
from tests.journey.test_journey import DECLARED, TINY, run, write_market


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A workspace with two evaluated ridges: `old` with a refit, and the newer `bare` without one."""
    root = tmp_path_factory.mktemp("champion")
    write_market(root / "bars", sessions=640)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED, "--quiet") == 0
    assert run("train", "ridge", "-w", root, "--quiet", "--no-report", "--final") == 0
    assert run("train", "ridge", "-w", root, "--quiet", "--no-report", "--horizon", "2") == 0
    return root


@pytest.fixture
def spare(place, tmp_path) -> Path:
    subprocess.run(["cp", "-r", str(place), str(tmp_path / "ws")], check=True)
    return tmp_path / "ws"


def three(root) -> tuple[RunFolder, RunFolder, RunFolder]:
    """The run with a refit, its refit, and the run without one."""
    runs = list_runs(Workspace(root))
    final = next(r for r in runs if r.info.get("final"))
    old = open_run(Workspace(root), final.info["parent"])
    bare = next(r for r in runs if r.read("config.json")["data"]["horizons"] == [2])
    return old, final, bare


def current(root) -> str:
    return read_champions(Workspace(root)).current.run


def reign(name: str) -> Reign:
    return Reign.now(name, name, "")


# --- the pointer -------------------------------------------------------------------------------------------


def test_going_back_undoes_promotions_one_by_one_or_down_to_a_name():
    state = Champions(current=reign("a"))
    for name in "bcd":
        state = state.followed_by(reign(name))
    assert [one.run for one in state.earlier] == ["a", "b", "c"]
    twice = state.back().back()
    assert (twice.current.run, [one.run for one in twice.earlier]) == ("b", ["a"])
    assert {one.run for one in twice.withdrawn} == {"c", "d"}
    assert state.back("a").current.run == "a" and not state.back("a").earlier
    assert [one.run for one in state.back("a").withdrawn] == ["b", "c", "d"]
    assert [one.run for one in twice.followed_by(reign("d")).withdrawn] == ["c"]  # forgiven
    for one, to in ((state.back("a"), ""), (state, "z"), (state, "d")):
        with pytest.raises(RunError):
            one.back(to)


def test_the_history_is_bounded():
    state = Champions(current=reign("0"))
    for number in range(1, 3 * MAX_REMEMBERED):
        state = state.followed_by(reign(str(number)))
    assert len(state.earlier) == MAX_REMEMBERED and state.earlier[-1].run == str(3 * MAX_REMEMBERED - 2)


def test_promotions_at_the_same_time_lose_none(spare, monkeypatch):
    """Every promotion that says it changed something stands in the history, each after the one it names."""
    monkeypatch.setattr(room, "check_can_serve", lambda *_: None)
    names = [r.name for r in three(spare)[1:]] * 8
    with ThreadPoolExecutor(8) as pool:
        changes = list(pool.map(lambda name: room.promote(Workspace(spare), name), names))
    found = read_champions(Workspace(spare))
    chain = [one.run for one in (*found.earlier, found.current)]
    assert sum(change.changed for change in changes) == len(chain) > 1
    assert all(one != other for one, other in itertools.pairwise(chain))
    pairs = [(change.before.run, change.now.run) for change in changes if change.before and change.changed]
    assert sorted(pairs) == sorted(itertools.pairwise(chain))


# --- who answers -------------------------------------------------------------------------------------------


def answer(root, capsys, *flags) -> dict:
    capsys.readouterr()
    assert run("predict", *flags, "-w", root, "-q", "--json", "--allow-old") == 0
    return json.loads(capsys.readouterr().out)


def test_the_champion_answers_when_nobody_is_named(spare, capsys):
    old, final, bare = three(spare)
    assert answer(spare, capsys)["run"] == final.name  # as ever: the newest with a refit
    assert run("predict", "champion", "-w", spare) == 5
    assert "no champion yet" in capsys.readouterr().err
    assert run("promote", bare.name, "-w", spare) == 0
    said = capsys.readouterr().out
    assert "before: none" in said and f"barcast train --refit {bare.name}" in said
    assert answer(spare, capsys)["run"] == answer(spare, capsys, "champion")["run"] == bare.name
    assert answer(spare, capsys, old.name)["run"] == final.name  # a named one is the named one
    assert (
        run("promote", old.name, "-w", spare, "--why", "monthly", "--json") == 0
    )  # what predicts is promoted
    found = json.loads(capsys.readouterr().out)
    assert (found["champion"]["run"], found["champion"]["evaluated"]) == (final.name, old.name)
    assert found["before"]["run"] == bare.name and found["changed"]
    assert barcast.predict(workspace=spare, allow_old=True).run == final.name
    assert run("promote", "champion", "-w", spare) == 0 and "already" in capsys.readouterr().out
    assert run("runs", "-w", spare, "--json") == 0
    marked = [one["name"] for one in json.loads(capsys.readouterr().out) if one["champion"]]
    assert run("runs", "-w", spare) == 0
    assert marked == [final.name] and ": monthly" in capsys.readouterr().out


def test_as_of_a_day_that_the_refit_knows_more_than_its_parent_answers(spare, capsys):
    old, final, _ = three(spare)
    assert run("promote", old.name, "-w", spare) == 0
    early = old.info["chosen_until"]
    assert early < final.info["chosen_until"]
    assert answer(spare, capsys, "--asof", early)["run"] == old.name
    assert answer(spare, capsys, "--asof", final.info["chosen_until"])["run"] == final.name


def test_an_old_champion_says_how_its_refit_takes_its_place(spare, capsys, monkeypatch):
    old, final, _ = three(spare)
    monkeypatch.setattr(serving_notes, "OLD_SESSIONS", -1)
    for promoted in (False, True):
        if promoted:
            assert run("promote", final.name, "-w", spare) == 0
        (warning,) = [w for w in answer(spare, capsys)["warnings"] if "refit it" in w]
        assert (f"&& barcast promote {old.name}" in warning) == promoted


# --- who may not -------------------------------------------------------------------------------------------


def damage(kind: str, final: RunFolder) -> None:
    """Break a refit in one way."""
    if kind == "unfinished":
        final.update(status="running", command="barcast train --refit mine")
    elif kind == "no weights":
        final.weights.unlink()
    elif kind == "cut weights":
        final.weights.write_bytes(final.weights.read_bytes()[:200])
    elif kind == "other weights":
        save_arrays(final.weights, {"other": np.zeros(3)})
    elif kind == "not numbers":
        arrays = load_arrays(final.weights)
        save_arrays(final.weights, {**arrays, "weights": arrays["weights"] * np.nan})
    elif kind == "no state":
        (final.path / "state.json").unlink()
    elif kind in ("market", "frequency"):
        final.update(**{kind: "cn" if kind == "market" else "1h"})
    else:
        final.write("state.json", {**final.read("state.json"), "universe": ["X1", "X2", "SYM01"]})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("unfinished", "is not finished\n  -> barcast train --refit mine"),
        ("no weights", "cannot be used"),
        ("cut weights", "cannot read"),
        ("other weights", "cannot be used"),
        ("not numbers", "not all numbers"),
        ("no state", "has no state.json"),
        ("market", "trained on market cn, and the store holds us"),
        ("frequency", "trained on frequency 1h, and the store holds 1d"),
        ("universe", "the store holds 1 of the 3 symbols"),
    ],
)
def test_a_run_that_cannot_serve_is_no_champion(spare, capsys, kind, words):
    _, final, bare = three(spare)
    assert run("promote", bare.name, "-w", spare) == 0
    damage(kind, final)
    assert run("promote", final.name, "-w", spare) == 5
    assert words in capsys.readouterr().err and current(spare) == bare.name


def test_a_run_of_another_workspace_is_no_champion(spare, tmp_path, capsys):
    elsewhere = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(three(spare)[2].path), str(elsewhere)], check=True)
    assert run("promote", elsewhere, "-w", spare) == 5
    assert "is no run of" in capsys.readouterr().err and read_champions(Workspace(spare)) is None


def test_rolling_back_twice_goes_back_two_and_then_refuses(spare, capsys):
    assert run("rollback", "-w", spare) == 5 and "no champion to go back from" in capsys.readouterr().err
    old, final, bare = three(spare)
    assert run("train", "ridge", "-w", spare, "--quiet", "--no-report", "--horizon", "3") == 0
    third = list_runs(Workspace(spare))[-1].name
    for name in (bare.name, old.name, third):
        assert run("promote", name, "-w", spare) == 0
    assert run("rollback", "-w", spare) == 0 and current(spare) == final.name
    assert run("rollback", "-w", spare, "--json") == 0 and current(spare) == bare.name
    assert run("rollback", "-w", spare) == 5 and "no champion before" in capsys.readouterr().err
    assert run("promote", old.name, "-w", spare) == run("promote", third, "-w", spare) == 0
    damage("no weights", final)
    assert run("rollback", "-w", spare) == 5 and current(spare) == third
    assert "cannot go back" in capsys.readouterr().err
    assert run("rollback", "-w", spare, "--to", bare.name) == 0 and current(spare) == bare.name


def test_a_damaged_pointer_and_a_champion_that_is_gone_say_so(spare, capsys):
    _, final, bare = three(spare)
    for name in (bare.name, final.name):
        assert run("promote", name, "-w", spare) == 0
    subprocess.run(["rm", "-r", str(final.path)], check=True)
    assert run("predict", "-w", spare) == 5 and "no longer in" in capsys.readouterr().err
    assert run("rollback", "-w", spare) == 0 and current(spare) == bare.name
    (spare / "champion" / "champion.json").write_text('{"current": {"run": 3}}')
    assert run("predict", "-w", spare) == 5 and "champion.json is damaged" in capsys.readouterr().err


# --- runs as objects ---------------------------------------------------------------------------------------


def windows_of(inputs, life_start, rows, look_back):
    """Gather windows row by row, zeros before the symbol's first bar."""
    found = np.zeros((len(rows), look_back, inputs.shape[1]), np.float32)
    for place, row in enumerate(rows):
        start = max(row - look_back + 1, life_start[row])
        found[place, look_back - (row - start + 1) :] = inputs[start : row + 1]
    return found


def stored_scores(root, run_folder, market, rows):
    """The scores that training wrote for these rows."""
    table = read_predictions(run_folder.predictions)
    keys = pl.DataFrame(
        {
            "symbol": [market.bars.symbols[s] for s in market.bars.symbol_of_row[rows]],
            "time": market.bars.calendar.times[market.bars.session[rows]].astype("datetime64[us]"),
        }
    )
    return keys.join(table, on=["symbol", "time"], how="left", maintain_order="left")["score"].to_numpy()


def loaded_and_dataset(root, found):
    loaded = barcast.load(found.name, workspace=root)
    market = market_of(Workspace(root), found)
    features = run_features(found, found.read("state.json")["feature_set"])
    dataset = build_dataset(market, Workspace(root), features, tabular=not loaded.is_network)
    rows = dataset.rows_to_score("route")[::37]
    names = [market.bars.symbols[s] for s in market.bars.symbol_of_row[rows]]
    return loaded, dataset, rows, names


def test_a_loaded_network_gives_the_scores_that_training_wrote(spare):
    assert run("train", "gru", "-w", spare, *TINY, "--quiet", "--no-report") == 0
    found = list_runs(Workspace(spare))[-1]
    loaded, dataset, rows, names = loaded_and_dataset(spare, found)
    assert not loaded.module.training and loaded.normalisation == "session" and loaded.scaler is None
    assert loaded.look_back_window == 20 and loaded.horizons == (5,)
    assert loaded.features == dataset.features.names and loaded.config.options.hidden_size == 8
    assert loaded.vocabulary == {name: place for place, name in enumerate(dataset.vocabulary, 1)}
    assert loaded.index(["SYM01", "sym01", None, ""]).tolist() == [*[loaded.vocabulary["SYM01"]] * 2, 0, 0]
    assert loaded.index("SYM01").tolist() == [loaded.vocabulary["SYM01"]]
    windows = windows_of(dataset.inputs, dataset.market.bars.life_start, rows, 20)
    stored = stored_scores(spare, found, dataset.market, rows)
    assert len(rows) > 30 and np.isfinite(stored).all()
    assert loaded.predict(windows, names)[:, 0] == pytest.approx(stored, abs=1e-6)
    assert loaded.predict(windows, loaded.index(names))[:, 0] == pytest.approx(stored, abs=1e-6)
    strangers = loaded.predict(windows, [None] * len(rows))[:, 0]
    assert np.abs(strangers - stored).max() > 1e-6  # identity is read
    first = windows[: len("SYM01")]  # a name is no row of letters
    np.testing.assert_array_equal(loaded.predict(first, "SYM01"), loaded.predict(first, ["SYM01"] * 5))
    np.testing.assert_array_equal(loaded.predict(first, None), loaded.predict(first, [0] * 5))
    for inputs, symbols in (
        (windows[..., 1:], names), (windows[:, 0], names), (windows, names[1:]), (first, [0, 1, 2, 3, 41]),
        (first, [-1] * 5), (first, [True] * 5), (first, [0.5] * 5), (first, [1, "SYM01", 1, 1, 1]), (first, 3),
        (first, [[1, 1]] * 5), (first, ()),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            loaded.predict(inputs, symbols)
    with pytest.raises(SymbolError, match="SYM1, did you mean SYM"):
        loaded.predict(first, "SYM1")


def test_a_loaded_tabular_model_of_a_small_universe_has_its_fitted_scaler(tmp_path):
    write_market(tmp_path / "bars", symbols=4, sessions=640)
    assert run("data", "import", tmp_path / "bars", "-w", tmp_path, *DECLARED, "--quiet") == 0
    assert run("train", "ridge", "-w", tmp_path, "--quiet", "--no-report") == 0
    found = list_runs(Workspace(tmp_path))[-1]
    loaded, dataset, rows, _ = loaded_and_dataset(tmp_path, found)
    assert not loaded.is_network and loaded.normalisation == "fitted" and loaded.look_back_window == 1
    panel = room_panel(dataset)
    stored = stored_scores(tmp_path, found, dataset.market, rows)
    assert loaded.predict(loaded.scaler.transform(panel[rows]))[:, 0] == pytest.approx(stored, abs=1e-9)
    moved = replace(loaded.scaler, mean=loaded.scaler.mean + 1)
    assert loaded.predict(moved.transform(panel[rows]))[:, 0] != pytest.approx(stored, abs=1e-9)


def room_panel(dataset):
    """Features before normalisation."""
    from barcast.pipeline.dataset import make_panel

    return make_panel(dataset.market.bars, dataset.features, None, "", cached=False).values


def test_an_unfinished_run_is_not_loaded(spare):
    old, _, _ = three(spare)
    old.update(status="running")
    with pytest.raises(barcast.BarcastError, match="not finished"):
        barcast.load(old.name, workspace=spare)
