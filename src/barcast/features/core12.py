"""core12: twelve features of tech48, one for each question, for small models and fleets of thousands.

How it moved over a day, a week, a month and the quarter before (``ret_1 ret_5 ret_20 mom_60_5``); how much of
that happened while the market was closed (``gap``); how far it stands from its quarter's extremes (``up_60
dd_60``); how much it swings and whether that changes (``vol_60 vol_ratio``); whether it is traded more than
usual, moves more per money traded than usual, and whether volume comes with gains or losses (``relvol_20
amihud_rel corr_rv_20``).

The choice was made on training years only (A-shares to 2022, US large caps to 2018): no two of the twelve
have a pooled rank correlation above 0.7 (the highest is 0.66, ``ret_20`` with ``dd_60``), and the best linear
combination of their ranks keeps 84 % and 81 % of the correlation with the next five sessions' return that all
forty-eight reach.
"""

from __future__ import annotations

from barcast.features.registry import register
from barcast.features.tech48 import TECH48

CORE12 = register(
    TECH48.subset(
        "core12",
        (
            "ret_1", "ret_5", "ret_20", "mom_60_5", "gap", "up_60", "dd_60", "vol_60", "vol_ratio",
            "relvol_20", "amihud_rel", "corr_rv_20",
        ),
        "twelve features of tech48, one for each question, for small models and fleets",
    )
)  # fmt: skip
