"""adv11: the eleven price features of Adv-ALSTM, in fractions and free of splits, and exactly as published.

Feng, Chen, He, Ding, Sun & Chua, "Enhancing Stock Movement Prediction with Adversarial Training", IJCAI
2019. The published files hold percentages, and their ``n_close`` compares closes *as traded*, so that a split
shows as a jump. ``adv11`` uses fractions and adjusted prices throughout; its ``n_close`` therefore equals
``n_adj_close``, and is kept so that both sets have the published eleven columns. No standardisation follows
in the paper.
"""

from __future__ import annotations

from collections.abc import Callable

from barcast.core.arrays import F64
from barcast.features.primitives import lag, mean
from barcast.features.registry import Feature, FeatureSet, register

_SOURCE = "Feng et al. 2019, Adv-ALSTM"


def _over_close(unit: float) -> tuple[Callable[..., F64], ...]:
    return (
        lambda open, close: unit * (open / close - 1),
        lambda high, close: unit * (high / close - 1),
        lambda low, close: unit * (low / close - 1),
    )


def _simple_return(unit: float) -> Callable[..., F64]:
    return lambda close: unit * (close / lag(close, 1) - 1)


def _traded_return(unit: float) -> Callable[..., F64]:
    return lambda close_traded: unit * (close_traded / lag(close_traded, 1) - 1)


def _mean_over_close(n: int, unit: float) -> Callable[..., F64]:
    return lambda close: unit * (mean(close, n) / close - 1)


def _features(unit: float, sign: str, traded: bool) -> tuple[Feature, ...]:
    over_open, over_high, over_low = _over_close(unit)
    close, n_close = ("CT", _traded_return(unit)) if traded else ("C", _simple_return(unit))
    return (
        Feature("c_open", f"{sign}(O / C - 1)", 0, _SOURCE, over_open),
        Feature("c_high", f"{sign}(H / C - 1)", 0, _SOURCE, over_high),
        Feature("c_low", f"{sign}(L / C - 1)", 0, _SOURCE, over_low),
        Feature("n_close", f"{sign}({close} / {close}[-1] - 1)", 1, _SOURCE, n_close),
        Feature("n_adj_close", f"{sign}(C / C[-1] - 1)", 1, _SOURCE, _simple_return(unit)),
        *(
            Feature(f"d{n}", f"{sign}(mean(C, {n}) / C - 1)", n - 1, _SOURCE, _mean_over_close(n, unit))
            for n in (5, 10, 15, 20, 25, 30)
        ),
    )


ADV11 = register(
    FeatureSet(
        name="adv11",
        features=_features(1.0, "", traded=False),
        description="the eleven price features of Adv-ALSTM: fractions, one adjustment factor",
    )
)

ADV11_OFFICIAL = register(
    FeatureSet(
        name="adv11_official",
        features=_features(100.0, "100 ", traded=True),
        description="adv11 as published: percent, n_close of closes as traded (CT)",
    )
)
