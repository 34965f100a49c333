"""`barcast data check`: policies by flag, the rows of one kind, findings in a file."""

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from barcast.cli.app import app
from barcast.core.errors import QualityError, UsageError
from tests.store.builders import make_store, rows


@pytest.fixture
def place(tmp_path):
    frame = rows(count=300)
    silent = pl.int_range(pl.len()).is_in([5, 9, 400])
    make_store(tmp_path / "market", frame.with_columns(volume=pl.when(silent).then(0.0).otherwise("volume")))
    (tmp_path / "barcast.toml").write_text('[quality]\nzero_volume = "mask"\nhole = "refuse"\n')
    return tmp_path


def check(place, *more):
    return CliRunner().invoke(app, ["data", "check", "-w", str(place), *more], catch_exceptions=False)


def line_of(text, kind):
    return next(line for line in text.splitlines() if line.startswith(kind))


def test_flags_win_over_the_file(place):
    assert " mask " in line_of(check(place).stdout, "zero_volume")
    assert " accept " in line_of(check(place, "--policy", "zero_volume=accept").stdout, "zero_volume")
    with pytest.raises(QualityError, match="zero_volume: 3 found"):
        check(place, "--policy", "zero_volume = refuse")
    with pytest.raises(UsageError, match="KIND=CHOICE"):
        check(place, "--policy", "zero_volume")


def test_the_rows_of_one_kind(place):
    lines = check(place, "--kind", "zero_volume").stdout.splitlines()
    assert lines[0].startswith("zero_volume: zero volume (3).")
    assert [line.split()[0] for line in lines[1:]] == ["A", "A", "B"]
    with pytest.raises(UsageError, match="unknown kind of defect `zero`"):
        check(place, "--kind", "zero")


@pytest.mark.parametrize(("name", "read"), [("all.csv", pl.read_csv), ("all.parquet", pl.read_parquet)])
def test_every_finding_in_a_file(place, name, read):
    counts = json.loads(check(place, "--json", "--output", str(place / name)).stdout)["counts"]
    assert dict(read(place / name).group_by("kind").len().iter_rows()) == counts
