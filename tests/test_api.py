"""The public surface: every command is a Python verb with the same options, and importing it costs nothing."""

import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest
import typer

import barcast
from barcast import api
from barcast.cli.app import app
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
    verbs = {name for name, value in vars(api).items() if inspect.isfunction(value) and name[0] != "_"}
    verbs = {name for name in verbs if getattr(api, name).__module__ == api.__name__}
    assert set(barcast.__all__) == verbs | {"BarcastError", "Workspace"}
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


def test_training_reads_a_config_file(tmp_path):
    (tmp_path / "c.toml").write_text("[ridge]\npenalty = 3")
    with pytest.raises(barcast.BarcastError, match=r"c\.toml: ridge: unknown key `penalty`"):
        barcast.train("ridge", workspace=tmp_path, config=str(tmp_path / "c.toml"))
