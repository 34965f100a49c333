"""The columns a feature may ask for by the names of its arguments: the bars', and what many make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from barcast.core.arrays import F64
from barcast.features.primitives import change, lag

#: Columns of the bars: adjusted prices, split-adjusted volume, turnover, the close as traded.
BAR_COLUMNS = ("open", "high", "low", "close", "volume", "amount", "close_traded")


def log_volume(volume: F64) -> F64:
    """``ln(V + 1)``."""
    return np.log(volume + 1)


def true_range(high: F64, low: F64, close: F64) -> F64:
    """``max(H - L, |H - C[-1]|, |L - C[-1]|)``; NaN in the first row."""
    before = lag(close, 1)
    return np.maximum(high - low, np.maximum(np.abs(high - before), np.abs(low - before)))


#: Shared columns made of bar columns or of one another.
SHARED: Mapping[str, Callable[..., F64]] = MappingProxyType({
    "log_open": lambda open: np.log(open),
    "log_high": lambda high: np.log(high),
    "log_low": lambda low: np.log(low),
    "log_close": lambda close: np.log(close),
    "log_volume": log_volume,
    "log_return": lambda log_close: change(log_close, 1),
    "typical_price": lambda high, low, close: (high + low + close) / 3,
    "true_range": true_range,
})  # fmt: skip
