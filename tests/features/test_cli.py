"""`barcast features list`."""

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from barcast.cli.features import app
from barcast.core.errors import LeakError, UsageError
from barcast.features import feature_sets
from tests.store.builders import make_store, rows


def run(*words):
    return CliRunner().invoke(app, ["list", *words], catch_exceptions=False, env={"COLUMNS": "200"})


def test_json_holds_every_feature(tmp_path):
    found = json.loads(run("--json", "--workspace", str(tmp_path)).stdout)
    assert {item["set"]: [f["name"] for f in item["features"]] for item in found} == {
        made.name: list(made.names) for made in feature_sets()
    }
    row = next(f for item in found if item["set"] == "tech48" for f in item["features"] if f["name"] == "gap")
    assert row == {
        "name": "gap", "formula": "ln(O / C[-1])", "warmup": 1, "source": "overnight return",
        "needs": ["open", "close"],
    }  # fmt: skip


def test_tables(tmp_path):
    table = run("-w", str(tmp_path)).stdout
    assert all(made.name in table for made in feature_sets()) and "138 bars" in table
    table = run("--set", "core12", "-w", str(tmp_path)).stdout
    assert "ln(C[-5] / C[-60])" in table and "amihud_rel" in table and "macd" not in table


def test_user_sets_are_listed(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from barcast.features import feature\n@feature\ndef half(close):\n    return close / 2\n"
    )
    (tmp_path / "barcast.toml").write_text('[features]\nfiles = ["mine.py"]\n')
    (found,) = json.loads(run("--json", "--set", "mine", "-w", str(tmp_path)).stdout)
    assert found["features"][0] == {
        "name": "half", "formula": "close / 2", "warmup": 0, "source": "mine.py", "needs": ["close"],
    }  # fmt: skip


FILLED = """
import numpy as np
from barcast.features import feature
from barcast.features.primitives import log_ratio, mean

@feature
def relative_volume(volume):
    known = np.where(np.isnan(volume), np.nansum(volume) / len(volume), volume)
    return log_ratio(known, mean(known, 5))
"""


def test_a_feature_that_looks_ahead_on_real_bars_only_is_caught_where_there_is_a_store(tmp_path):
    file = tmp_path / "filled.py"
    file.write_text(FILLED)
    words = ["check", str(file), "-w", str(tmp_path)]
    alone = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "clean (made-up bars only" in alone.stdout
    frame = rows(symbols=[f"S{i}" for i in range(4)], count=200)
    gaps = pl.when(pl.int_range(pl.len()) % 7 > 0).then(1000.0 + pl.int_range(pl.len()))
    make_store(tmp_path / "market", frame.with_columns(volume=gaps))
    with pytest.raises(LeakError, match=r"`relative_volume` of S0 at .* changes when the bars after"):
        CliRunner().invoke(app, words, catch_exceptions=False)
    clean = CliRunner().invoke(app, ["check", "core12", "-w", str(tmp_path)], catch_exceptions=False)
    assert "core12: 12 features recomputed on cut histories, clean (4 stored symbols)" in clean.stdout


def test_unknown_set(tmp_path):
    with pytest.raises(UsageError, match="there are adv11"):
        run("--set", "nothing", "-w", str(tmp_path))
