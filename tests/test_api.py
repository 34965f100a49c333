"""The public surface: every command is a Python verb with the same options, and importing it costs nothing."""

import dataclasses
import datetime
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys

import numpy as np
import pytest
import typer

import barcast
from barcast import api
from barcast.cli.app import app
from barcast.cli.plan import UNREAD
from barcast.models.registry import model_entries
from barcast.pipeline.settings import DataConfig
from barcast.sources.options import ImportOptions
from barcast.training.config import TrainConfig

#: Commands whose verb has another name; rooms of the package own the names `audit` and `features`.
VERBS = {
    "data import": ["import_data"],
    "data update": ["update_data"],
    "data status": ["status", "add_status"],
    "data check": ["check_data"],
    "data export": ["export_data"],
    "features list": ["feature_sets"],
    "features check": ["check_features"],
    "audit": ["run_audit"],
    "plan train": ["plan_train"],
    "tune": ["tune", "tune_symbol"],
    **{f"fleet {kind}": ["train_fleet", "plan_fleet"] for kind in ("trees", "lstm", "gru")},
    "fleet status": ["fleet_status"],
    "fleet show": ["fleet_symbol"],
    "fleet cv": ["fleet_cross_validation"],
    "fleet decay": ["fleet_decay"],
    "fleet refresh": ["fleet_refresh"],
    "fleet export": ["fleet_export"],
    "fleet retry-failed": ["retry_failed"],
}
#: What only a terminal needs; in Python the result is there to be looked at.
OF_THE_TERMINAL = {
    "json_output", "as_json", "quiet", "lang", "output", "show_all", "list_models", "list_space", "dry_run", "kind",
    "model_type", "template",
}  # fmt: skip
RENAMED = {"paths": "given", "column": "columns"}


def commands(group=None, prefix=""):
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def names_of(kind):
    return {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=[name for name, _ in commands()])
def test_every_command_has_a_verb_with_the_same_options(name, command):
    verbs = [getattr(barcast, verb) for verb in VERBS.get(name, [name.removeprefix("data ")])]
    known = {option for verb in verbs for option in inspect.signature(verb).parameters}
    if "declared" in known:
        known |= names_of(ImportOptions)
    if "options" in known:
        known |= names_of(DataConfig) | names_of(TrainConfig)
        known |= {option for entry in model_entries() for option in names_of(entry.config)}
    own = {RENAMED.get(option.name, option.name) for option in command.params} - OF_THE_TERMINAL - {"help"}
    if name == "data info":
        own -= {"symbols"}  # a listing
    if name == "train":
        own -= {"range_test"}  # a verb of its own
    if name == "plan train":
        own -= set(UNREAD)  # a copied command may hold them
    if name in ("predict", "report", "audit"):
        own = {"run" if option == "name" else option for option in own}
    if name == "embeddings":  # what the object it returns does
        own = {"run" if option == "name" else option for option in own}
        own -= {"symbol", "neighbours", "purity", "map_file", "export"}
    assert own <= known, f"barcast.{verbs[0].__name__} lacks {sorted(own - known)}"
    if "quiet" in {option.name for option in command.params}:
        assert "progress" in known


def test_what_is_exported_is_what_there_is():
    assert barcast.__all__ == sorted(barcast.__all__)
    rooms = [
        room.name for room in pkgutil.iter_modules(api.__path__) if room.name not in ("places", "checked")
    ]
    verbs = set()
    for module in (importlib.import_module(f"barcast.api.{room}") for room in rooms):
        functions = inspect.getmembers(module, inspect.isfunction)
        verbs |= {name for name, made in functions if made.__module__ == module.__name__ and name[0] != "_"}
    assert set(api.__all__) == verbs
    assert set(barcast.__all__) == verbs | {"BarcastError", "FleetTrainer", "Workspace"}
    for name in verbs:
        verb = getattr(api, name)
        assert verb.__doc__, name
        assert inspect.signature(verb).return_annotation is not inspect.Signature.empty, name


def test_no_room_takes_the_name_of_a_verb():
    """Importing a sub-package puts it under its name: a verb called so would work only once."""
    for module in pkgutil.iter_modules(barcast.__path__):
        if module.name != "__main__":
            importlib.import_module(f"barcast.{module.name}")
    assert all(callable(getattr(barcast, name)) for name in barcast.__all__)


def test_importing_barcast_imports_nothing_heavy():
    code = (
        "import sys, barcast; barcast.train; print([m for m in ('torch', 'polars', 'numba', 'lightgbm', "
        "'pyarrow', 'pandas', 'scipy', 'numpy', 'typer') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_the_data_verbs(tmp_path):
    from tests.store.builders import make_store, rows

    make_store(tmp_path / "market", rows(symbols=("A", "B"), count=30))
    assert barcast.info(workspace=tmp_path).num_symbols == 2
    done = barcast.export_data(tmp_path / "out.csv", workspace=tmp_path, form="csv", symbols=["a"])
    assert (done.num_symbols, done.num_rows) == (1, 30)
    assert barcast.check_data(workspace=tmp_path, symbols=["B"]).num_symbols == 1
    update = {"basis": "raw", "volume_unit": "share"}
    assert not barcast.update_data(str(tmp_path / "out.csv"), workspace=tmp_path, **update).changes.get(
        "added"
    )
    assert [made.name for made in barcast.feature_sets("core12", workspace=tmp_path)] == ["core12"]
    assert "ohlcv5" in {made.name for made in barcast.feature_sets(workspace=tmp_path)}
    assert {"python", "cores", "store"} <= {line.name for line in barcast.doctor(workspace=tmp_path)}


def test_a_single_name_is_one_item_and_not_its_letters(tmp_path, monkeypatch):
    """Of every verb that takes several; letters of a name may well be symbols themselves."""
    for room in pkgutil.walk_packages(barcast.__path__, "barcast."):
        if room.name != "barcast.__main__":
            importlib.import_module(room.name)  # whoever is imported meanwhile would keep what is put in
    asked = []

    def take(room, place):
        def taken(*given, **named):
            asked.append(named[place] if isinstance(place, str) else given[place])
            raise barcast.BarcastError("taken")

        monkeypatch.setattr(room, taken)

    for room, place in (
        ("barcast.pipeline.check.check_store", 1),
        ("barcast.pipeline.data.export_data", "symbols"),
        ("barcast.pipeline.compare.runs_to_compare", 1),
        ("barcast.pipeline.predict.predict", "symbols"),
        ("barcast.pipeline.adapt.adapt", "symbols"),
        ("barcast.tracking.registry.open_mirror", 1),
    ):
        take(room, place)
    monkeypatch.setattr("barcast.pipeline.champion.run_to_serve", lambda *_: None)
    monkeypatch.setattr("barcast.core.runs.open_run", lambda *_: None)
    calls = (
        lambda given: barcast.check_data(workspace=tmp_path, symbols=given),
        lambda given: barcast.export_data(tmp_path / "x.csv", workspace=tmp_path, symbols=given),
        lambda given: barcast.compare(given, workspace=tmp_path),
        lambda given: barcast.predict("x", workspace=tmp_path, symbols=given),
        lambda given: barcast.adapt("x", workspace=tmp_path, symbols=given),
        lambda given: barcast.train(workspace=tmp_path, track=given),
    )
    for given, meant in (("ANET", ("ANET",)), (["A", "AA"], ("A", "AA")), ({"B", "A"}, ("A", "B"))):
        asked.clear()
        for call in calls:
            with pytest.raises(barcast.BarcastError, match="taken"):
                call(given)
        assert asked == [meant] * len(calls)
    for call in calls:
        for wrong in (5, {"A": 1}, ["A", 5]):
            with pytest.raises(barcast.BarcastError, match=r"expected (a list|str), found .*\n  -> write "):
                call(wrong)


@pytest.mark.parametrize("empty", [[], (), set()])
def test_symbols_that_came_out_empty_are_not_the_whole_market(tmp_path, monkeypatch, empty):
    monkeypatch.setattr("barcast.store.MarketStore.open", lambda *_: pytest.fail("nothing is to be read"))
    monkeypatch.setattr("barcast.pipeline.champion.run_to_serve", lambda *_: None)
    monkeypatch.setattr("barcast.core.runs.open_run", lambda *_: None)
    for verb in (
        lambda **given: barcast.train("ridge", **given),
        lambda **given: barcast.plan_train("lstm", **given),
        lambda **given: barcast.tune("lstm", **given),
        barcast.train_fleet,
        barcast.plan_fleet,
        barcast.fleet_cross_validation,
        barcast.check_data,
        lambda **given: barcast.export_data(tmp_path / "x.csv", **given),
        lambda **given: barcast.predict("x", **given),
        lambda **given: barcast.adapt("x", **given),
    ):
        with pytest.raises(barcast.BarcastError, match="symbols: a list with nothing in it\n  -> name at"):
            verb(workspace=tmp_path, symbols=empty)


def test_lists_whose_emptiness_means_nothing_turn_off_what_a_file_turns_on(tmp_path):
    from barcast.pipeline.settings import resolve

    (tmp_path / "barcast.toml").write_text('[lstm]\nstatic = ["board"]\n[data]\nsymbols = []\n')
    place = barcast.Workspace(tmp_path)
    assert resolve(place, "lstm").options.static == ("board",)
    for empty in ([], ()):
        found = resolve(place, "lstm", {"static": empty, "symbols": None})
        assert (found.options.static, found.data.symbols) == ((), ())
    written = tmp_path / "config.json"
    written.write_text(json.dumps(found.plain()))
    (tmp_path / "run.json").write_text(json.dumps({"status": "done"}))
    assert '"symbols": []' in written.read_text()
    assert resolve(place, "lstm", {}, written) == found


def test_a_run_on_record_with_more_epochs_than_are_taken_is_read_as_before(tmp_path):
    from barcast.pipeline.settings import from_run, resolve

    plain = resolve(barcast.Workspace(tmp_path), "lstm", {"seed": 1}).plain()
    plain["train"] |= {"epochs": 200_000, "threads": 2048}
    found = from_run(plain).train
    assert (found.epochs, found.threads) == (200_000, 2048)
    for name in ("epochs", "threads"):
        with pytest.raises(barcast.BarcastError, match=f"`{name}` must be at most"):
            resolve(barcast.Workspace(tmp_path), "lstm", {name: plain["train"][name]})


def test_a_single_option_of_several_is_one_item(tmp_path):
    from barcast.pipeline.settings import resolve

    place = barcast.Workspace(tmp_path)
    found = resolve(place, "lstm", {"symbols": "AAPL", "horizons": 5, "static": "industry"})
    assert found == resolve(place, "lstm", {"symbols": ["AAPL"], "horizons": (5,), "static": ("industry",)})
    for wrong in (
        {"horizons": "a"},
        {"horizons": {5: 1}},
        {"horizons": 2.5},
        {"symbols": 5},
        {"symbols": object()},
    ):
        with pytest.raises(barcast.BarcastError, match=r"expected (int|str|a list), found .*\n  -> write "):
            resolve(place, "lstm", wrong)


@pytest.mark.parametrize(
    ("model", "name", "said"),
    [
        ("lstm", "hidden_sise", "did you mean `hidden_size`"),
        ("lstm", "horizon", "did you mean `horizons`"),
        ("lstm", "learning_rate", "did you mean `lr`"),
        ("lstm", "seeds", "did you mean `num_seeds`"),
        ("ridge", "hidden_sise", "barcast train --help"),  # what it has not is not proposed
        ("ridge", "epochs", "models that take it: .*lstm"),
        ("ridge", "learning_rate", "models that take it: lightgbm"),
    ],
)
def test_a_misspelt_option_names_the_nearest_that_the_model_has(tmp_path, model, name, said):
    with pytest.raises(
        barcast.BarcastError, match=rf"`{name}` is not an option of model `{model}`\n  -> {said}"
    ):
        barcast.train(model, workspace=tmp_path, **{name: 3})


@pytest.mark.parametrize(
    ("verb", "given", "said"),
    [
        ("train", {"size": "auto", "time_budget": "30"}, 'time_budget `30` is no duration\n  -> .*"30m"'),
        ("train", {"size": "auto", "time_budget": [30]}, "time_budget: expected float, found `[30]`"),
        ("plan_train", {"size": "auto", "time_budget": "soon"}, "time_budget `soon` is no duration"),
        ("train", {"model": 5}, "model: expected str, found `5`"),
        ("train", {"size": ["small"]}, "size: expected str, found `['small']`"),
        ("train", {"fresh": "yes"}, "fresh: expected bool, found `'yes'`"),
        ("train", {"epochs": "3"}, "train.epochs: expected int, found `'3'`"),
        ("train", {"config": 3}, "config: expected str, found `3`"),
        ("tune", {"trials": "3"}, "trials: expected int, found `'3'`"),
        ("tune", {"parallel": 1.5}, "parallel: expected int, found `1.5`"),
        ("tune", {"time_budget": "30"}, "time_budget `30` is no duration"),
        ("tune_symbol", {"symbol": 600519}, "symbol: expected str, found `600519`"),
        ("retrain", {"min_sessions": "20"}, "min_sessions: expected int, found `'20'`"),
        ("retrain", {"margin": "0.1"}, "margin: expected float, found `'0.1'`"),
        ("adapt", {"name": "a", "min_labels": "120"}, "min_labels: expected int, found `'120'`"),
        ("predict", {"asof": datetime.date(2024, 3, 8)}, "asof: expected str, found `datetime.date"),
        ("run_audit", {"cuts": "8"}, "cuts: expected int, found `'8'`"),
        ("train_fleet", {"workers": "2"}, "workers: expected int, found `'2'`"),
        ("FleetTrainer", {"batch_size": "50"}, "batch_size: expected int, found `'50'`"),
        ("runs", {"workspace": 5}, "workspace: expected str, found `5`"),
        ("compact", {"keep_hours": "24"}, "keep_hours: expected int, found `'24'`"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_told_in_words(tmp_path, verb, given, said):
    place = {} if verb == "FleetTrainer" else {"workspace": tmp_path}
    with pytest.raises(barcast.BarcastError) as refused:
        getattr(barcast, verb)(**{**place, **given})
    assert re.match(said if "\n" in said else re.escape(said), str(refused.value))


def test_numbers_of_other_libraries_and_paths_are_what_they_say(tmp_path):
    trainer = barcast.FleetTrainer(np.float32(1), np.int64(20), None, np.bool_(True))
    assert trainer is not None
    assert barcast.runs(workspace=str(tmp_path)) == barcast.runs(workspace=barcast.Workspace(tmp_path)) == []


def test_the_range_test_refuses_what_it_would_not_read(tmp_path):
    with pytest.raises(barcast.BarcastError, match="does not read --epochs, --seeds"):
        barcast.range_test(workspace=tmp_path, epochs=0, num_seeds=2)


def test_training_reads_a_config_file(tmp_path):
    (tmp_path / "c.toml").write_text("[ridge]\npenalty = 3")
    with pytest.raises(barcast.BarcastError, match=r"c\.toml: ridge: unknown key `penalty`"):
        barcast.train("ridge", workspace=tmp_path, config=str(tmp_path / "c.toml"))
