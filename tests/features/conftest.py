"""Series that have broken rolling code before."""

from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import make_bars


def _with_prices(bars, close, rng):
    spread = np.abs(rng.normal(0, 0.004, len(close)))
    open_ = close * np.exp(rng.normal(0, 0.004, len(close)))
    high, low = np.maximum(open_, close) * (1 + spread), np.minimum(open_, close) * (1 - spread)
    return replace(bars, open=open_, high=high, low=low, close=close, close_traded=close * 1.3)


def _flat():
    """Still throughout; still in the middle only; a still close within bars that have a range."""
    bars = make_bars((200, 200, 200), seed=3)
    close = bars.close.copy()
    close[:200] = 0.1
    close[260:350] = 17.77
    open_, high, low = bars.open.copy(), bars.high.copy(), bars.low.copy()
    for part in (slice(0, 200), slice(260, 350)):
        open_[part] = high[part] = low[part] = close[part]
    close[400:600] = 31.4
    open_[400:600], high[400:600], low[400:600] = 31.4, 31.5, 31.3
    return replace(bars, open=open_, high=high, low=low, close=close)


def _no_volume():
    """Years, weeks and single days without volume, and constant volume."""
    bars = make_bars((220, 220, 220), seed=4)
    volume = bars.volume.copy()
    volume[:220] = 0
    volume[300:330] = 0
    volume[350:420:7] = 0
    volume[440:660] = 12345
    return replace(bars, volume=volume)


def _missing_volume():
    bars = make_bars((220, 160), seed=5)
    volume = bars.volume.copy()
    volume[100] = volume[150:155] = np.nan
    volume[220:380] = np.nan
    return replace(bars, volume=volume)


def _extremes():
    """Prices of a hundred millionth and a hundred million; one falls by twelve orders in a day."""
    rng = np.random.default_rng(6)
    bars = make_bars((180, 180, 300), seed=6)
    walk = np.exp(np.cumsum(rng.normal(0, 0.03, len(bars))))
    scale = np.repeat([1e-8, 1e8, 1e6, 1e-6], [180, 180, 120, 180])
    return _with_prices(bars, walk * scale, rng)


def _jumps():
    """Prices on a coarse grid: ties, equal neighbours, bars that grow equally up and down; steps like splits."""
    rng = np.random.default_rng(7)
    bars = make_bars((240, 240), seed=7)
    close = 5 + np.cumsum(rng.choice([-0.125, 0, 0, 0, 0.125], len(bars))) % 3
    close[300:] *= 10
    half = np.where(np.arange(len(bars)) % 9 == 0, 0.375, 0.125)
    return replace(bars, open=close, high=close + half, low=close - half, close=close, close_traded=close)


SERIES = {
    "random walks": lambda: make_bars((200, 140, 61, 21, 6, 5), seed=1),
    "holes": lambda: make_bars((330, 250), seed=2, holes=((0, 150, 180), (0, 300, 321), (1, 200, 219))),
    "flat": _flat,
    "no volume": _no_volume,
    "missing volume": _missing_volume,
    "extremes": _extremes,
    "jumps": _jumps,
    "five bars": lambda: make_bars((5,), num_sessions=30),
    "one bar": lambda: make_bars((1, 1), num_sessions=30),
}


@pytest.fixture(params=SERIES)
def series(request):
    return SERIES[request.param]()
