"""Made-up pages of a fleet and of a routed run, of any size."""

from dataclasses import replace

import numpy as np

from barcast.core.texts import Text
from barcast.reports.data import Column, Failure, ReportData
from barcast.reports.fleet import (
    Detail,
    Fleet,
    Learning,
    MemberErrors,
    MemberWeights,
    Routing,
    shown_in_detail,
)
from tests.reports.demo import market_report

MEMBERS = ("forest", "xgboost", "lightgbm", "zero", "pooled mean")


def names(num: int) -> list[str]:
    return [f"{600000 + s}.SH" for s in range(num)]


def digits(values, num=4) -> list[float]:
    return [float(f"{value:.{num}g}") for value in values]


def detail(symbol: str, times: int, rng: np.random.Generator, kind: str) -> Detail:
    curves = {
        "forecast": tuple(digits(rng.normal(0, 20, times), 3)),
        "outcome": tuple(digits(rng.normal(0, 300, times), 3)),
    }  # fmt: skip
    if kind == "networks":
        losses = tuple(digits(1 + np.exp(-np.arange(12) / 4)))
        return Detail(symbol=symbol, **curves, learning=Learning(
            train_loss=losses, stop_score=tuple(digits(0.01 - rng.random(12) / 100)), best_epoch=7,
        ))  # fmt: skip
    rmse, r2 = {"stop": 0.98, "weigh": 1.01}, {"stop": 0.0123, "weigh": -0.004}
    errors = tuple(
        MemberErrors(name=name, trees=31, most=150, stops=name != "forest", rmse=rmse, r2=r2)
        for name in MEMBERS[:3]
    )  # fmt: skip
    return Detail(symbol=symbol, **curves, errors=errors)


def fleet(num: int = 120, num_sessions: int = 85, kind: str = "trees") -> Fleet:
    rng = np.random.default_rng(3)
    skill = digits(rng.normal(0.002, 0.02, num))
    weights = rng.dirichlet(np.ones(5) * 9, num)
    members = MEMBERS if kind == "trees" else ()
    columns = {
        "symbol": names(num), "preset": ["fast" if s % 3 else "standard" for s in range(num)],
        "skill": skill, "low": digits(np.array(skill) - 0.03, 3), "high": digits(np.array(skill) + 0.03, 3),
        "judged": [num_sessions] * num,
        "seconds": digits(rng.gamma(4, 0.01, num), 3), "bytes": rng.integers(9_000, 40_000, num).tolist(),
        "memory": [581_000_000] * num, "rows": rng.integers(500, 900, num).tolist(),
    }  # fmt: skip
    own = {f"trees {name}": rng.integers(10, 150, num).tolist() for name in MEMBERS[:3]}
    own |= {f"weight {k}": digits(weights[:, k], 3) for k in range(5)}
    columns |= own if members else {"epoch": rng.integers(1, 30, num).tolist()}
    found = [
        MemberWeights(
            name=Text.same(name), num_symbols=num, mean=float(weights[:, k].mean()),
            quantiles=tuple(np.quantile(weights[:, k], (0.05, 0.25, 0.5, 0.75, 0.95)).tolist()), market=0.2,
            leads=0.2, log_score=0.001 * k,
        )
        for k, name in enumerate(members)
    ]  # fmt: skip
    shown = shown_in_detail(skill, num_sessions)
    return Fleet(
        kind=kind, run="fleet-demo", seconds=sum(columns["seconds"]), ledger_bytes=21_000 * num,
        counts={"done": num, "failed": 2, "left_out": 9, "pending": 0, "running": 0}, segment="route",
        num_sessions=num_sessions,
        has_size=True, symbols=columns, members=tuple(found), strength=0.12 if members else None,
        skill=Column(key="skill", title=Text("R² vs zero", "对零 R²"), format="percent", neutral=0.0),
        times=tuple(np.datetime_as_string(np.datetime64("2023-09-01") + np.arange(num_sessions)).tolist()),
        details=tuple(detail(columns["symbol"][i], num_sessions, rng, kind) for i in shown),
    )  # fmt: skip


def routing(num: int = 120) -> Routing:
    rng = np.random.default_rng(4)
    gain, expected = rng.normal(0, 0.05, num), rng.normal(-0.001, 0.01, num)
    own = expected > 0.015
    why = ["better" if mine else "worse" if e <= 0 else "luck" for mine, e in zip(own, expected, strict=True)]
    columns = {
        "symbol": names(num), "server": ["dedicated" if mine else "universal" for mine in own],
        "gain": digits(gain), "low": digits(gain - 0.06), "high": digits(gain + 0.06),
        "expected": digits(expected), "probability": digits(1 / (1 + np.exp(-expected * 200))), "rows": [85] * num, "blocks": [7] * num,
        "why": why, "detail": [None] * num,
    }  # fmt: skip
    for name in ("gain", "low", "high", "expected", "probability"):
        columns[name][0] = None
    columns["why"][0], columns["server"][0] = "none", "universal"
    columns["detail"][0] = Text("too short: 3", "过短：3")
    return Routing(universal="lstm-1", fleet="fleet-1", policy="evidence", symbols=columns)


def failures(num: int) -> tuple[Failure, ...]:
    return tuple(
        Failure(
            symbol=f"{300000 + s}.SZ", stage=Text("left out", "未纳入"), fallback=Text("universal", "通用模型"),
            error=Text(f"too short: {s} of 500 training rows", f"历史过短：训练样本 {s} 行，至少需要 500 行"),
        )
        for s in range(num)
    )  # fmt: skip


def fleet_report(num: int = 120, kind: str = "trees", num_failures: int = 11) -> ReportData:
    return replace(market_report(num), fleet=fleet(num, kind=kind), failures=failures(num_failures), loss=())


def routed_report(num: int = 120) -> ReportData:
    return replace(market_report(num), routing=routing(num), loss=())
