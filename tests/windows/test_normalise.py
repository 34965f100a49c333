"""Normalisation against plain numpy, and what it must not see."""

from pathlib import Path

import numpy as np
import pytest

from barcast.core.errors import CoverageError
from barcast.windows.normalise import FittedScaler, check_coverage, session_normalise
from tests.conftest import make_bars


def features_of(bars, seed=0, missing=0.05):
    rng = np.random.default_rng(seed)
    values = rng.normal(3, 2, (len(bars), 5)).astype(np.float32)
    values[rng.random(values.shape) < missing] = np.nan
    values[:, 4] = 7.0
    return values


def slow_session_normalise(values, session, universe):
    out = np.zeros((len(values), values.shape[1] + 1))
    for row in range(len(values)):
        peers = values[(session == session[row]) & universe].astype(np.float64)
        for f in range(values.shape[1]):
            column = peers[:, f][np.isfinite(peers[:, f])]
            value = values[row, f]
            if np.isfinite(value) and len(column) > 1 and column.std(ddof=1) > 1e-9:
                out[row, f] = np.clip((value - column.mean()) / column.std(ddof=1), -5, 5)
        out[row, -1] = np.isfinite(values[row]).mean()
    return out


def test_session_statistics_equal_plain_numpy():
    bars = make_bars((40, 40, 30, 20, 10, 40, 40))
    values = features_of(bars)
    universe = bars.symbol_of_row != 2
    got = session_normalise(values, bars.session, len(bars.calendar), universe)
    np.testing.assert_allclose(got, slow_session_normalise(values, bars.session, universe), atol=2e-5)


def test_a_symbol_outside_the_universe_changes_nobody():
    bars = make_bars((40, 40, 30, 20))
    values = features_of(bars)
    outsider = bars.symbol_of_row == 1
    before = session_normalise(values, bars.session, len(bars.calendar), ~outsider)
    values[outsider] *= 100
    after = session_normalise(values, bars.session, len(bars.calendar), ~outsider)
    np.testing.assert_array_equal(before[~outsider], after[~outsider])


def test_history_cut_at_t_gives_the_same_values():
    bars = make_bars((60, 60, 50, 45, 30))
    values = features_of(bars)
    everyone = np.ones(len(bars), bool)
    full = session_normalise(values, bars.session, len(bars.calendar), everyone)
    for cut in (10, 35, 58):
        keep = bars.session <= cut
        part = session_normalise(values[keep], bars.session[keep], cut + 1, everyone[keep])
        np.testing.assert_array_equal(part, full[keep])


def test_fitted_scaler_uses_the_given_rows_only():
    bars = make_bars((100, 80))
    values = features_of(bars)
    rows = bars.session < 60
    scaler = FittedScaler.fit(values, rows)
    changed = values.copy()
    changed[~rows] = 1e6
    again = FittedScaler.fit(changed, rows)
    np.testing.assert_array_equal(scaler.mean, again.mean)
    np.testing.assert_allclose(scaler.mean, np.nanmean(values[rows].astype(float), axis=0))
    np.testing.assert_allclose(scaler.std[:4], np.nanstd(values[rows].astype(float), axis=0, ddof=1)[:4])
    assert scaler.std[4] == 1
    out = scaler.transform(values)
    assert out.shape == (len(bars), 6)
    assert np.isfinite(out).all()
    assert np.abs(out).max() <= 5


def test_missing_inputs_are_zero_and_validity_says_so():
    values = np.full((4, 3), np.nan, np.float32)
    values[1] = 1.0
    out = session_normalise(values, np.zeros(4, np.int32), 1, np.ones(4, bool))
    assert (out[:, :3] == 0).all()
    assert out[:, 3].tolist() == [0, 1, 0, 0]


def test_a_thin_session_is_refused():
    session = np.array([0] * 10 + [1] * 7, np.int32)
    everyone = np.ones(17, bool)
    with pytest.raises(CoverageError, match="only 7 of the universe"):
        check_coverage(session, everyone, 1)
    check_coverage(np.array([0] * 10 + [1] * 8, np.int32), np.ones(18, bool), 1)


@pytest.mark.parametrize("before_it", [0, 1, 10])
def test_a_thin_session_is_refused_whatever_the_one_before_it_held(before_it):
    counts = [10] * 20 + [before_it, 1]
    session = np.repeat(np.arange(22), counts).astype(np.int32)
    with pytest.raises(CoverageError, match=r"only 1 of the universe's symbols .* usually 10"):
        check_coverage(session, np.ones(len(session), bool), 21)


def test_rounding_noise_is_no_spread():
    values = np.full((50, 1), 7.1, np.float32)
    values[::2] = np.nextafter(np.float32(7.1), np.float32(8))
    scaler = FittedScaler.fit(values, np.ones(50, bool))
    assert scaler.std.tolist() == [1]
    assert np.abs(scaler.transform(values)[:, 0]).max() < 1e-5


def test_a_mapped_panel_is_let_go_of_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr("barcast.windows.normalise.BLOCK_ROWS", 3000)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20_000, 24)).astype(np.float32)
    (tmp_path / "panel").write_bytes(b"x" * 64 + values.tobytes())
    mapped = np.memmap(tmp_path / "panel", np.float32, "r", offset=64, shape=values.shape).view(np.ndarray)
    session, everyone = np.arange(20_000, dtype=np.int32) % 50, np.ones(20_000, bool)

    def resident():
        lines = Path("/proc/self/smaps").read_text().splitlines()
        place = next(i for i, line in enumerate(lines) if str(tmp_path) in line)
        return next(int(line.split()[1]) * 1024 for line in lines[place:] if line.startswith("Rss:"))

    assert mapped.sum() and resident() > 0.9 * values.nbytes
    found = session_normalise(mapped, session, 50, everyone)
    assert resident() < 0.05 * values.nbytes
    assert np.array_equal(found, session_normalise(values, session, 50, everyone))
    assert np.array_equal(mapped, values)
