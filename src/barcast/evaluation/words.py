"""Names and numbers as people read them, in English and 简体中文."""

from __future__ import annotations

import math

from barcast.core.texts import Text, counted
from barcast.evaluation.results import CONSTANT, Score

#: Column heads of the scores.
METRIC_NAMES = {
    "mae": Text("MAE", "MAE"),
    "rmse": Text("RMSE", "RMSE"),
    "r2": Text("R² vs zero", "对零 R²"),
    "direction": Text("direction", "方向准确率"),
    "mcc": Text("MCC", "MCC"),
    "up_share": Text("says up", "看涨占比"),
    "auc": Text("AUC", "AUC"),
    "session_auc": Text("session AUC", "截面 AUC"),
    "ic": Text("IC", "IC"),
    "rank_ic": Text("RankIC", "RankIC"),
    "icir": Text("ICIR", "ICIR"),
    "rank_icir": Text("RankICIR", "RankICIR"),
    "log_loss": Text("log loss", "对数损失"),
    "brier": Text("Brier", "Brier"),
    "pinball": Text("pinball", "分位数损失"),
    "quantile_coverage": Text("inside quantiles", "分位区间覆盖"),
}
#: What the rows of every table are called in Chinese; other models go by the name that a user types.
_CHINESE_MODELS = {
    "zero": "零预测",
    "historical_mean": "历史均值",
    "always_up": "永远看涨",
    "reversal": "反转",
    "persistence": "惯性",
    "ridge": "岭回归",
}
#: Segments, with the name that a user types.
SEGMENT_NAMES = {
    "fit": Text("fit", "拟合段（fit）"),
    "stop": Text("stop", "早停段（stop）"),
    "weigh": Text("weigh", "校准段（weigh）"),
    "route": Text("route", "路由段（route）"),
    "test": Text("test", "测试段（test）"),
}
_PERCENT = {"r2": 3, "direction": 2, "up_share": 1, "quantile_coverage": 1}
_DECIMALS = {"mae": 5, "rmse": 5, "pinball": 5, "log_loss": 4, "brier": 4, "icir": 2, "rank_icir": 2}
NOTHING = "–"


def model_name(name: str) -> Text:
    """Return how a row is called; ``ridge [run]`` keeps its run."""
    row, bracket, run = name.partition(" [")
    family, comma, seeds = row.partition(", mean of ")
    chinese = _CHINESE_MODELS.get(family, family)
    if comma:
        chinese += f"（{seeds.split()[0]} 个种子的平均）"
    return Text(name, chinese + bracket + run)


def among_trials(num_trials: int) -> Text:
    """Return what follows a row's name whose options were chosen among trials on `stop`; else nothing."""
    if not num_trials:
        return Text("", "")
    return Text(f"(best of {counted(num_trials, 'trial')})", f"（{num_trials} 次试验中最好）")


def full_name(name: str) -> Text:
    """Return how a row is called within a sentence: in Chinese with the name that a user types."""
    chinese = model_name(name).zh
    return Text(name, name if chinese == name else f"{chinese}（{name}）")


def spaced(chinese: str) -> str:
    """Return a Chinese term for the middle of a sentence: a blank stands before Latin letters only."""
    return f" {chinese}" if chinese[:1].isascii() else chinese


def number(metric: str, value: float, *, sign: bool = False) -> str:
    """Return a score in its usual unit; an en dash where it is undefined."""
    if not math.isfinite(value):
        return NOTHING
    plus = "+" if sign else ""
    if metric in _PERCENT:
        return f"{value:{plus}.{_PERCENT[metric]}%}"
    return f"{value:{plus}.{_DECIMALS.get(metric, 4)}f}"


def with_range(metric: str, score: Score, *, sign: bool = False) -> str:
    """Return ``value [low, high]``, with ``± sd`` over seeds where there are several."""
    value = number(metric, score.value, sign=sign)
    if math.isfinite(score.seed_sd):
        value += f" ± {number(metric, score.seed_sd)}"
    if not math.isfinite(score.low):
        return value
    return f"{value} [{number(metric, score.low, sign=sign)}, {number(metric, score.high, sign=sign)}]"


def cell(metric: str, score: Score | None) -> str:
    """Return a table cell; a forecast that never varies has an en dash for its IC family."""
    if score is None:
        return NOTHING
    mark = " *" if score.flag == CONSTANT and math.isfinite(score.value) else ""
    return number(metric, score.value) + mark


def seconds(value: float | None) -> str:
    """Return a duration."""
    if value is None:
        return NOTHING
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def size(value: int | None) -> str:
    """Return a size in decimal units."""
    if value is None:
        return NOTHING
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= bytes_each:
            return f"{value / bytes_each:.1f} {unit}"
    return f"{value} B"
