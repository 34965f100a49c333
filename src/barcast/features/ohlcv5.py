"""ohlcv5: the bars themselves, for models that find their own features.

The panel holds logarithms. A price level says nothing by itself, so whoever makes windows subtracts each
window's last log close from its four price columns and its mean log volume from the volume column: then 0 is
"now", and a unit is a unit of log return. float32 keeps log prices to 5e-7, a hundredth of a basis point.
"""

from __future__ import annotations

from barcast.features.registry import Feature, FeatureSet, register

_SOURCE = "the bar itself"

OHLCV5 = register(
    FeatureSet(
        name="ohlcv5",
        features=(
            Feature("open", "ln O", 0, _SOURCE, lambda log_open: log_open),
            Feature("high", "ln H", 0, _SOURCE, lambda log_high: log_high),
            Feature("low", "ln L", 0, _SOURCE, lambda log_low: log_low),
            Feature("close", "ln C", 0, _SOURCE, lambda log_close: log_close),
            Feature("volume", "ln(V + 1)", 0, _SOURCE, lambda log_volume: log_volume),
        ),
        description="the bars as logarithms; each window is normalised by its last close and mean volume",
        scale_free=False,
        window_normalised=True,
    )
)
