"""A search for one symbol's own model: planted gains are found and written, noise suggests nothing."""

import json
import shutil
import tomllib
from types import SimpleNamespace

import numpy as np
import pytest

import barcast
from barcast.cli.tune import _fleet_command
from barcast.core.errors import DataError, RunError, UsageError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.fleet.data import FleetData
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.pipeline.chosen import Tuned
from barcast.pipeline.fleet_lessons import Lessons
from barcast.pipeline.fleet_rows import rows_for_workers
from barcast.pipeline.searched import without_searches
from barcast.pipeline.settings import resolve
from barcast.pipeline.symbol_bench import Gain, SymbolBench
from barcast.pipeline.symbol_file import merge_own
from barcast.pipeline.symbol_space import own_table, symbol_space
from barcast.pipeline.tune_symbol import ready_to_search
from tests.journey.test_journey import DECLARED, run, write_market

SHORT = {"min_rows": 150, "preset": "fast"}
SPACE = "lightgbm.num_leaves = [3, 7]\nforest.max_depth = [2, 5]\n"


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    root = tmp_path_factory.mktemp("tuned")
    write_market(root / "bars", symbols=4, sessions=420)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED) == 0
    (root / "space.toml").write_text(SPACE)
    return root


@pytest.fixture
def place(market, tmp_path):
    for name in ("market", "space.toml"):
        source = market / name
        shutil.copytree(source, tmp_path / name) if source.is_dir() else shutil.copy(source, tmp_path)
    return tmp_path


def search(place, trials=3, **more):
    return barcast.tune_symbol(
        "sym01", workspace=place, trials=trials, space=place / "space.toml", **{**SHORT, **more}
    )


def test_the_same_search_goes_on_and_counts_all_trials(place):
    first = search(place, 2)
    again = search(place, 4)
    assert first.path == again.path and (first.num_trials, again.num_trials) == (2, 4)
    assert [r.options for r in again.trials[:2]] == [r.options for r in first.trials]
    assert again.best.score == max(r.score for r in again.trials) == pytest.approx(again.gain.best)
    told = json.loads((again.path / "tune.json").read_text())
    assert told["num_trials"] == 4 and told["default"] == pytest.approx(again.gain.default)
    assert not (again.path / "rows").exists() and not (again.path / "fleet").exists()


def test_a_trial_is_what_the_fleet_fits_with_these_options(place):
    found = search(place, 2)
    assert found.own["tuned"]["preset"] == "fast"
    own = found.own | {"min_rows": 150}
    fleet = barcast.train_fleet(
        workspace=place, preset="fast", symbol_config={"SYM01": own}, min_rows=150, report=False,
        executor="serial",
    ).run  # fmt: skip
    ready = ready_to_search(
        Workspace(place), "SYM01", "fleet-trees", SHORT, None, place / "space.toml", Progress(False)
    )
    with Ledger.open(fleet.fleet / LEDGER) as ledger:
        model = ledger.model("SYM01").model
    with rows_for_workers(ready.lessons.data, place / "rows") as rows:
        bench = SymbolBench(ready.config, ready.lessons, rows, RunFolder(place / "scratch"))
        outputs = bench._engine.outputs(ready.lessons.data.one(0), model, bench._rows)
    assert bench.score(outputs) == pytest.approx(found.best.score, abs=1e-9)
    assert fleet.info["num_trials"] == 2 and fleet.info["tuned_by"] == found.path.name
    assert "tuned" not in json.dumps(fleet.read("config.json")["options"])


def bench_of(tmp_path, y, inputs, seed=0):
    """A bench of one symbol with 400 rows that teach and 300 of `stop`."""
    segment = np.repeat([0, 1], [400, 300]).astype(np.int8)
    data = FleetData(
        ("A",), np.array([0, 700]), inputs.astype(np.float32), y.astype(np.float32)[:, None],
        np.arange(700, dtype=np.int32), segment, np.zeros(700, np.int64),
    )  # fmt: skip
    columns = tuple(f"x{place}" for place in range(inputs.shape[1]))
    lessons = Lessons(data, columns, "made up", (1,), np.ones(1), (np.ones(700),), False)
    config = resolve(Workspace(tmp_path), "fleet-trees", {"preset": "fast", "seed": seed, "min_rows": 200})
    data.save(tmp_path / "rows")
    return SymbolBench(config, lessons, tmp_path / "rows", RunFolder(tmp_path / "scratch"))


DEEP = {"forest": {"max_depth": 10, "min_samples_leaf": 5, "max_features": 1.0}}


def test_a_planted_gain_is_beyond_noise_and_luck_is_not(tmp_path):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(700, 6))
    y = np.sign(inputs[:, 0] * inputs[:, 1]) + 0.3 * rng.normal(size=700)
    bench = bench_of(tmp_path / "planted", y, inputs)
    gain = bench.against(bench.outputs({}), bench.outputs(DEEP), 30)
    assert gain.is_real and gain.gain > 0.1
    assert gain.best == pytest.approx(bench.score(bench.outputs(DEEP)))
    real = 0
    for draw in range(8):
        rng = np.random.default_rng(100 + draw)
        bench = bench_of(tmp_path / str(draw), rng.normal(size=700), rng.normal(size=(700, 6)))
        default = bench.outputs({})
        tried = [bench.outputs({"forest": {"max_depth": depth}}) for depth in (1, 2, 3, 8)]
        best = max(tried, key=bench.score)
        real += bench.against(default, best, len(tried)).is_real
    assert real <= 1


def test_noise_grows_with_the_number_of_trials_and_the_reach_of_labels(tmp_path):
    rng = np.random.default_rng(5)
    bench = bench_of(tmp_path, rng.normal(size=700), rng.normal(size=(700, 4)))
    default, best = bench.outputs({}), bench.outputs({"forest": {"max_depth": 2}})
    one, many = (bench.against(default, best, num) for num in (1, 100))
    assert many.noise > 1.3 * one.noise and many.gain == one.gain
    assert not Gain(0.0, 0.1, np.inf, 0.0, 1, np.inf).is_real


def test_choices_of_columns_read_fit_rows_alone(tmp_path):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(700, 12))
    y = inputs[:, 7] + 0.5 * inputs[:, 2] + 0.1 * rng.normal(size=700)
    bench = bench_of(tmp_path / "a", y, inputs)
    data = bench.lessons.data.one(0)
    chosen = symbol_space(bench.config, data, bench.lessons.columns, set(), None).plain()["features"]
    assert len(chosen) == 3 and {"x2", "x7"} <= set(chosen[2]) and chosen[0] == list(bench.lessons.columns)
    later = y.copy()
    later[400:] = inputs[400:, 0]
    inputs[400:, 1:] = 0.0
    other = bench_of(tmp_path / "b", later, inputs)
    assert (
        symbol_space(other.config, other.lessons.data.one(0), other.lessons.columns, set(), None).plain()[
            "features"
        ]
        == chosen
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [("xgboost.max_dept = [2, 3]", "cannot be tuned"), ("hidden_size = [8, 16]", "cannot be tuned"),
     ("forest.max_depth = [0, 3]", "at least 1"), ('features = [["ret_1"], ["nothing"]]', "not in"),
     ("forest.max_depth = 3", "expected choices"), ("", "nothing is left")],
)  # fmt: skip
def test_a_space_that_no_fit_could_read_is_refused(place, text, said):
    (place / "space.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        search(place)


def test_what_cannot_be_searched_is_refused(place):
    for model, said in (("lstm", "is none"), ("fleet-trees", "no model of its own")):
        with pytest.raises((UsageError, DataError), match=said):
            barcast.tune_symbol(
                "SYM01", model, workspace=place, **({"min_rows": 5000} if model != "lstm" else {})
            )
    assert run("tune", "--write", place / "own.toml", "-w", place) == 2
    assert run("tune", "--symbol", "SYM01", "--parallel", "2", "-w", place) == 2


# --- the file ----------------------------------------------------------------------------------------------


OTHERS = """# by hand
["SYM02"]   # a comment
min_rows = 300

["SYM02".forest]
num_trees = 20

# about the third
[SYM03]
features = [
  "ret_1",
]
"""
TUNED = {"model": "fleet-trees", "run": "search-x", "trials": 7, "until": "2023-01-05"}


def own(depth):
    return {"features": ["ret_1"], "xgboost": {"max_depth": depth}, "tuned": TUNED}


def test_a_symbol_is_put_beside_the_others_and_replaced_only_where_a_search_wrote_it(place):
    path, where = place / "own.toml", Workspace(place)
    path.write_text(OTHERS)
    merge_own(where, path, "SYM01", own(3))
    assert path.read_text().startswith(OTHERS)
    assert tomllib.loads(path.read_text()) == {**tomllib.loads(OTHERS), "SYM01": own(3)}
    merge_own(where, path, "SYM00", own(5))
    path.write_text(path.read_text() + "\n# the last word\n[extra_unknown]\nx = 1\n")
    merge_own(where, path, "SYM01", own(4))
    found = tomllib.loads(path.read_text())
    assert (found["SYM01"], found["SYM00"]) == (own(4), own(5)) and found["extra_unknown"] == {"x": 1}
    assert path.read_text().startswith(OTHERS) and "# the last word" in path.read_text()
    before = path.read_text()
    with pytest.raises(UsageError, match="no search wrote"):
        merge_own(where, path, "SYM02", own(4))
    assert path.read_text() == before


def test_the_lock_is_beside_the_file_and_tells_of_itself_alone(place, tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "not here")

    path = tmp_path / "options" / "own.toml"
    merge_own(Workspace(place), path, "SYM01", own(4))
    assert sorted(each.name for each in path.parent.iterdir()) == ["own.toml", "own.toml.lock"]
    monkeypatch.setattr("barcast.pipeline.symbol_file.write_text", refused)
    with pytest.raises(PermissionError, match="not here"):  # no word of locking
        merge_own(Workspace(place), path, "SYM01", own(5))


def test_lines_that_cannot_be_told_apart_are_left_alone(place):
    path = place / "own.toml"
    text = 'SYM01 = { min_rows = 200, tuned = { model = "fleet-trees", run = "a", trials = 2 } }\n'
    path.write_text(text)
    with pytest.raises(UsageError, match="cannot be told"):
        merge_own(Workspace(place), path, "SYM01", own(4))
    assert path.read_text() == text


def test_the_searches_of_symbols_travel_as_one():
    kept, tuned = without_searches(
        {"A": own(3), "B": {**own(2), "tuned": {**TUNED, "run": "search-y", "trials": 5, "until": "2023-02-01"}}, "C": {"min_rows": 9}},
        "fleet-trees", "fast", Tuned(model="fleet-trees", run="tune-z", trials=10, until="2022-01-01"),
    )  # fmt: skip
    assert kept == {"A": {k: v for k, v in own(3).items() if k != "tuned"}, "B": {k: v for k, v in own(2).items() if k != "tuned"},
                    "C": {"min_rows": 9}}  # fmt: skip
    assert (tuned.trials, tuned.until, tuned.run) == (22, "2023-02-01", "tune-z, search-x, search-y")
    with pytest.raises(UsageError, match="chose the options of A for fleet-trees"):
        without_searches({"A": own(3)}, "fleet-gru", "64", None)
    around = {"A": {**own(3), "tuned": {**TUNED, "preset": "fast"}}}
    assert without_searches(around, "fleet-trees", "fast", None)[1].run == "search-x"
    with pytest.raises(UsageError, match="around the preset fast, not standard"):
        without_searches(around, "fleet-trees", "standard", None)


def test_the_next_command_fits_what_was_searched(place):
    flags = {"preset": "fast", "features": "core12", "segments": ["2023-01", "2023-03"], "horizons": (1, 5),
             "epochs": None, "size": None}  # fmt: skip
    done = SimpleNamespace(model="fleet-trees", written="")
    command = _fleet_command(Workspace(place), done, flags, place / "c.toml")
    for words in ("barcast fleet trees ", " --preset fast", " --features core12", " --segments 2023-01,2023-03",
                  " --horizon 1,5", " --symbol-config FILE", "/c.toml", " -w "):  # fmt: skip
        assert words in command
    assert "--epochs" not in command and "--size" not in command


def test_a_search_that_knows_what_is_to_judge_is_refused(place):
    table = {"SYM01": {**own(3), "tuned": {**TUNED, "until": "2099-01-01"}}}
    with pytest.raises(RunError, match="chose these options by labels known until"):
        barcast.train_fleet(workspace=place, symbol_config=table, report=False, **SHORT)


def test_a_network_through_the_command_line(place, capsys):
    (place / "space.toml").write_text("hidden_size = [4, 8]\nlr = { low = 0.003, high = 0.03, log = true }\n")
    (place / "c.toml").write_text(
        "[fleet-lstm]\nlook_back_window = 10\nstretch_length = 20\nepochs = 2\nmin_rows = 150\n"
    )
    asked = ["tune", "fleet-lstm", "--symbol", "sym02", "-w", place, "--config", place / "c.toml", "--quiet",
             "--batch-size", "80"]  # fmt: skip
    assert run(*asked, "--list-space") == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert {"hidden_size", "lr", "features"} <= set(printed) and "batch_size" not in printed
    assert run(*asked, "--space", place / "space.toml", "--trials", "2", "--write", place / "own.toml") == 0
    printed = capsys.readouterr().out
    assert "best of 2 trials on its own `stop`" in printed
    assert ("nothing is suggested" in printed) is not (place / "own.toml").exists()


def test_dotted_names_become_tables():
    assert own_table({"a": 1, "b.c": 2, "b.d": 3}) == {"a": 1, "b": {"c": 2, "d": 3}}
