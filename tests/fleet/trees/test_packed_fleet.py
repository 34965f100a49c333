import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from barcast.core.errors import DataError, UsageError
from barcast.fleet.trees.packed import unpack
from barcast.fleet.trees.packed_fleet import FleetEntry, map_fleet, open_fleet, write_fleet
from barcast.fleet.trees.predict import predict_members
from tests.fleet.trees.builders import fleet, models

WEIGHTS = np.array([[0.5, 0.3, 0.1], [0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three symbols of two horizons: their rows, entries and file."""
    data = fleet(num_horizons=2)
    entries = [
        FleetEntry(f"S{s}", model, WEIGHTS, np.array([0.01 * s, -1.0]))
        for s, model in enumerate(models(data))
    ]
    path = tmp_path_factory.mktemp("fleet") / "models.bin"
    write_fleet(path, "abc", entries)
    return data, entries, path


def test_one_row_a_symbol_and_any_rows(made):
    data, entries, path = made
    found = map_fleet(path)
    assert (found.symbols, found.digest, found.num_inputs) == (("S0", "S1", "S2"), "abc", 6)
    rows = np.stack([data.one(s).inputs[-1] for s in range(3)])
    expected = np.stack(
        [predict_members(unpack(e.model), row[None])[0] for e, row in zip(entries, rows, strict=True)]
    )
    np.testing.assert_array_equal(found.members(rows), expected)
    constant = np.stack([e.constant for e in entries])
    np.testing.assert_allclose(found.scores(rows), (expected * WEIGHTS).sum(axis=-1) + constant)
    which = np.array([2, 0, 0, 2])
    np.testing.assert_array_equal(found.members(rows[which], which), expected[which])
    np.testing.assert_array_equal(found.scores(rows[which], which), found.scores(rows)[which])


def test_a_row_without_values_costs_only_its_own_symbol(made):
    data, _, path = made
    rows = data.inputs[:3].copy()
    rows[1, 2] = np.nan
    assert np.isnan(map_fleet(path).scores(rows)).tolist() == [[False] * 2, [True] * 2, [False] * 2]


def test_made_anew_when_the_digest_differs_or_the_file_is_damaged(made, tmp_path):
    _, entries, _ = made
    path = tmp_path / "models.bin"
    asked = []

    def all_entries():
        asked.append(1)
        return iter(entries)

    for digest, times in (("one", 1), ("one", 1), ("two", 2), ("two", 2)):
        assert open_fleet(path, digest, all_entries).digest == digest
        assert len(asked) == times
    whole = path.read_bytes()
    for damaged in (whole[:50], whole[:-1], b"x" + whole[1:], whole[:-5] + b"\0" + whole[-4:], b""):
        path.write_bytes(damaged)
        before = len(asked)
        open_fleet(path, "two", all_entries)
        assert len(asked) == before + 1 and path.read_bytes() == whole


def test_damage_inside_an_ensemble_names_its_symbol(made, tmp_path):
    _, entries, _ = made
    path = tmp_path / "models.bin"
    write_fleet(path, "abc", entries)
    content = bytearray(path.read_bytes())
    found = map_fleet(path)
    start = 4 * int(found.directory[1, 0, 7])
    content[start : start + 4] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(DataError, match="ensemble of S1 is damaged"):
        map_fleet(path).members(np.zeros((3, 6), np.float32))


def test_entries_that_do_not_fit_are_refused_and_leave_the_old_file(made, tmp_path):
    _, entries, _ = made
    path = tmp_path / "models.bin"
    write_fleet(path, "old", entries)
    single = models(fleet(lengths=(260,)), members=("forest",))[0]
    ones = np.ones((1, 3))
    wrong = {
        "without a single": [],
        "weights of shape": [dataclasses.replace(entries[0], weights=ones)],
        "S0: weights .* that are there": [FleetEntry("S0", single, ones, np.zeros(1))],
        "S9 has 1 horizons": [entries[0], FleetEntry("S9", single, ones * [1, 0, 0], np.zeros(1))],
        "ensemble of S0 is damaged": [dataclasses.replace(entries[0], model=entries[0].model[:-4])],
    }
    for message, given in wrong.items():
        with pytest.raises(DataError, match=message):
            write_fleet(path, "new", given)
    with pytest.raises(UsageError, match="65 characters"):
        write_fleet(path, "x" * 65, entries)
    assert map_fleet(path).digest == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["models.bin"]


def test_rows_that_do_not_fit_are_refused(made):
    found = map_fleet(made[2])
    for rows, which in (((2, 6), None), ((1, 6), [3]), ((1, 6), [-1]), ((2, 6), [0]), ((3, 5), None)):
        with pytest.raises(DataError):
            found.scores(np.zeros(rows, np.float32), None if which is None else np.array(which))


def test_serves_without_the_libraries_that_trained(made):
    code = f"""
import sys
import numpy as np
from pathlib import Path
from barcast.fleet.trees.packed_fleet import map_fleet
print(map_fleet(Path({str(made[2])!r})).scores(np.zeros((3, 6), np.float32)).tolist())
heavy = {{"lightgbm", "xgboost", "polars", "torch", "pandas", "scipy", "barcast.features"}} & set(sys.modules)
assert not heavy, heavy
import numba
assert numba.njit(lambda a, b: np.dot(a, b))(np.ones(3), np.ones(3)) == 3.0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = map_fleet(made[2]).scores(np.zeros((3, 6), np.float32)).tolist()
    assert done.stdout.strip() == str(expected)
