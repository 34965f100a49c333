"""Made-up report data that looks like the real thing: one model on a market of thousands."""

import numpy as np

from barcast.core.texts import Text
from barcast.reports.data import (
    Bucket,
    Calibration,
    CalibrationPoint,
    Cell,
    Column,
    Comparison,
    ComparisonRow,
    DataSummary,
    DecileReturns,
    DefectRow,
    Failure,
    HeadlineScore,
    LossCurve,
    LossPoint,
    MonthlyScores,
    MonthPoint,
    Prediction,
    ReportData,
    Segment,
    SymbolScores,
    Verdict,
)

CONSTANT = Text("the forecast never varies", "预测从不变化")
NO_RANK = Text("a constant forecast has no rank", "恒定预测没有排序")


def number_columns() -> tuple[Column, ...]:
    return (
        Column(
            key="rank_ic",
            title=Text("RankIC", "RankIC"),
            format="score",
            better="higher",
            neutral=0.0,
            help=Text(
                "Spearman correlation of score and return, session by session",
                "逐时段的分数与收益的斯皮尔曼相关",
            ),
        ),
        Column(
            key="rank_ic_vs_ridge",
            title=Text("RankIC less ridge", "RankIC 减岭回归"),
            format="score",
            better="higher",
            neutral=0.0,
        ),
        Column(
            key="icir",
            title=Text("ICIR", "ICIR"),
            format="number",
            better="higher",
            neutral=0.0,
            view="order",
        ),
        Column(
            key="r2_zero",
            title=Text("R² against zero", "相对零预测的 R²"),
            format="percent",
            better="higher",
            neutral=0.0,
            view="errors",
        ),
        Column(
            key="direction",
            title=Text("Direction", "方向准确率"),
            format="percent",
            better="higher",
            neutral=0.5,
            view="direction",
        ),
        Column(
            key="mcc",
            title=Text("MCC", "MCC"),
            format="score",
            better="higher",
            neutral=0.0,
            view="direction",
        ),
        Column(
            key="mae", title=Text("MAE", "平均绝对误差"), format="basis_points", better="lower", view="errors"
        ),
        Column(key="coverage", title=Text("Coverage", "覆盖率"), format="percent"),
        Column(
            key="train_seconds",
            title=Text("Training time", "训练时间"),
            format="seconds",
            better="lower",
            view="cost",
        ),
        Column(key="size", title=Text("Size", "大小"), format="bytes", better="lower", view="cost"),
    )


MODELS = (
    (Text("zero", "零预测"), "naive", None, 0.0),
    (Text("historical mean", "历史均值"), "naive", 0.004, 0.1),
    (Text("always up", "总是看涨"), "naive", None, 0.0),
    (Text("reversal", "反转"), "naive", 0.031, 0.0),
    (Text("persistence", "延续"), "naive", -0.031, 0.0),
    (Text("ridge", "岭回归"), "reference", 0.0874, 3.2),
    (Text("lightgbm", "lightgbm"), "model", 0.0902, 41.0),
    (Text("lstm (seed 0)", "lstm（种子 0）"), "model", 0.0931, 164.3),
)


def comparison(title: Text, seed: int, shift: float = 0.0) -> Comparison:
    rng = np.random.default_rng(seed)
    rows = []
    for name, group, skill, seconds in MODELS:
        known = skill is not None
        ic = (skill or 0.0) + shift + rng.normal(0, 0.002)
        width = 0.021

        def interval(value, half):
            return Cell(value=value, low=value - half, high=value + half)

        cells = (
            Cell(value=ic, low=ic - width, high=ic + width, seed_sd=0.0021 if group == "model" else None)
            if known
            else Cell(note=NO_RANK),
            interval(ic - 0.0874 - shift, 0.008) if known else Cell(note=NO_RANK),
            Cell(value=ic / 0.13) if known else Cell(note=NO_RANK),
            interval(ic * 0.06 - 0.0005, 0.0012),
            interval(0.5 + ic * 0.16, 0.006),
            interval(ic * 0.3, 0.011) if known else Cell(value=0.0, note=CONSTANT),
            Cell(value=0.0331 - ic * 0.004),
            Cell(value=0.987 if group == "model" else 1.0),
            Cell(value=seconds),
            Cell(value=seconds * 12345 + 12),
        )
        rows.append(
            ComparisonRow(name=name, group=group, is_this_run=name.en.startswith("lstm"), cells=cells)
        )
    note = Text(
        "3,381 symbols, 80 sessions, 268,114 rows that all models cover.",
        "3,381 个标的，80 个时段，268,114 行为所有模型共有。",
    )
    return Comparison(title=title, columns=number_columns(), rows=tuple(rows), chart_key="rank_ic", note=note)


def months(first_year: int, last_year: int, last_month: int):
    return [
        f"{year}-{month:02d}"
        for year in range(first_year, last_year + 1)
        for month in range(1, (last_month if year == last_year else 12) + 1)
    ]


MONTHLY_SEGMENTS = (("stop", "2023-04"), ("weigh", "2023-08"), ("route", "2023-12"))


def monthly(name: Text, neutral: float, skill: float, seed: int) -> MonthlyScores:
    rng = np.random.default_rng(seed)
    points = []
    for month in months(2023, 2025, 8):
        segment = next((name for name, last in MONTHLY_SEGMENTS if month <= last), "test")
        mean = neutral + rng.normal(skill, abs(skill) * 0.7)
        half = abs(rng.normal(0.05, 0.01))
        points.append(MonthPoint(month=month, mean=mean, low=mean - half, high=mean + half, segment=segment))
    points[3] = MonthPoint(month=points[3].month, mean=None, segment="stop")
    return MonthlyScores(name=name, points=tuple(points), neutral=neutral)


def deciles(segment: str, num: int, seed: int) -> DecileReturns:
    rng = np.random.default_rng(seed)
    mean = np.linspace(-0.0062, 0.0048, num) + rng.normal(0, 0.0008, num)
    points = tuple(
        Bucket(bucket=i + 1, mean=m, low=m - 0.0021, high=m + 0.0021, num_rows=26811)
        for i, m in enumerate(mean)
    )
    return DecileReturns(segment=segment, points=points)


def calibration(kind: str, segment: str, seed: int) -> Calibration:
    rng = np.random.default_rng(seed)
    forecast = np.linspace(-0.008, 0.0075, 12) if kind == "return" else np.linspace(0.455, 0.548, 12)
    half = 0.0018 if kind == "return" else 0.012
    realised = (forecast - forecast.mean()) * 0.85 + forecast.mean() + rng.normal(0, half / 3, 12)
    points = tuple(
        CalibrationPoint(forecast=f, realised=r, low=r - half, high=r + half, num_rows=22343)
        for f, r in zip(forecast, realised, strict=True)
    )
    return Calibration(kind=kind, segment=segment, points=points)


def loss_curve(name: Text, seed: int) -> LossCurve:
    rng = np.random.default_rng(seed)
    points = []
    for i in range(121):
        step = i * 25
        train = 0.982 + 0.02 * np.exp(-i / 18) - 0.00006 * i + rng.normal(0, 0.0009)
        rate = 1e-3 * min(1, (i + 1) / 8) * (0.5 + 0.5 * np.cos(np.pi * i / 121))
        scored = i % 6 == 0
        points.append(
            LossPoint(
                step=step,
                epoch=step / 430,
                train_loss=train,
                learning_rate=rate,
                stop_loss=0.987 + 0.014 * np.exp(-i / 15) + 0.00002 * i if scored else None,
                stop_score=0.088 * (1 - np.exp(-i / 14)) - 0.00009 * i + rng.normal(0, 0.0015)
                if scored
                else None,
            )
        )
    return LossCurve(name=name, points=tuple(points), best_step=1350)


def symbol_names(count: int) -> list[str]:
    boards = (
        ("600", "SH"),
        ("000", "SZ"),
        ("300", "SZ"),
        ("688", "SH"),
        ("601", "SH"),
        ("002", "SZ"),
        ("603", "SH"),
    )
    return [f"{boards[i % 7][0]}{i // 7:03d}.{boards[i % 7][1]}" for i in range(count)]


def symbol_scores(count: int, seed: int) -> SymbolScores:
    rng = np.random.default_rng(seed)
    columns = (
        Column(key="rows", title=Text("Rows", "样本行数"), format="integer"),
        Column(key="direction", title=Text("Direction", "方向准确率"), format="percent", better="higher"),
        Column(key="auc", title=Text("AUC", "AUC"), format="score", better="higher"),
        Column(key="mae", title=Text("MAE", "平均绝对误差"), format="basis_points", better="lower"),
        Column(
            key="r2_zero", title=Text("R² against zero", "相对零预测的 R²"), format="percent", better="higher"
        ),
        Column(key="mean_y_hat", title=Text("Mean forecast", "平均预测"), format="basis_points"),
    )
    num_rows = rng.integers(3, 82, count).astype(float)
    short = num_rows < 8
    values = [
        num_rows,
        rng.normal(0.51, 0.05, count),
        rng.normal(0.52, 0.06, count),
        np.exp(rng.normal(-3.5, 0.3, count)),
        rng.normal(0.004, 0.01, count),
        rng.normal(0, 0.002, count),
    ]
    for column in values[1:]:
        column[short] = np.nan
    return SymbolScores(
        columns=columns,
        symbols=tuple(symbol_names(count)),
        values=tuple(tuple(v.tolist()) for v in values),
        segment="route",
    )


def predictions(
    names: list[str], seed: int, as_of="2025-08-22", target="2025-09-01"
) -> tuple[Prediction, ...]:
    rng = np.random.default_rng(seed)
    y_hat = rng.normal(0.0004, 0.0042, len(names))
    rank = (-y_hat).argsort().argsort() + 1
    rows = [
        Prediction(
            symbol=name,
            as_of=as_of,
            for_session=target,
            y_hat=y,
            sigma=abs(rng.normal(0.034, 0.008)),
            p_up=0.5 + y * 9,
            score=y * 140,
            rank=int(r),
        )
        for name, y, r in zip(names, y_hat.tolist(), rank, strict=True)
    ]
    if len(rows) > 100:
        why = Text("no bar for 34 sessions", "已有 34 个时段没有 K 线")
        rows[11] = Prediction(symbol=rows[11].symbol, as_of="2025-07-04", for_session=target, note=why)
        for i in range(40, len(rows), 97):
            short = Text("short history: 24 bars, 36 padded", "历史较短：24 根 K 线，补齐 36 根")
            rows[i] = Prediction(**{**vars(rows[i]), "note": short})
    return tuple(rows)


def defects() -> tuple[DefectRow, ...]:
    rows = (
        (
            "moved_anchor",
            "Stitched or moved anchor",
            "拼接或移动的复权锚点",
            7,
            7,
            "mask",
            "002271.SZ 2025-08-25: −7.2 % that never happened",
            "002271.SZ 2025-08-25：虚假的 −7.2%",
        ),
        (
            "jump",
            "Split-like jump without a factor",
            "疑似拆股但缺少复权因子",
            218,
            204,
            "mask",
            "301211.SZ 2025-08-25: −30.6 %",
            "301211.SZ 2025-08-25：−30.6%",
        ),
        (
            "hole",
            "Hole of more than 20 sessions",
            "超过 20 个时段的缺口",
            16,
            16,
            "accept",
            "000670.SZ: 590 sessions to 2022-08-22",
            "000670.SZ：590 个交易日，至 2022-08-22",
        ),
        ("duplicate", "Two bars on one day, other prices", "同日两根 K 线且价格不同", 0, 0, "refuse", "", ""),
        (
            "survivors",
            "No delisted symbol in the panel",
            "面板中没有退市标的",
            0,
            3425,
            "accept",
            "3,425 of 3,425 symbols reach the last sessions",
            "3,425 个标的全部延续到最后",
        ),
    )
    return tuple(
        DefectRow(
            kind=kind,
            title=Text(en, zh),
            num_rows=n,
            num_symbols=s,
            policy=policy,
            example=Text(example, example_zh) if example else None,
        )
        for kind, en, zh, n, s, policy, example, example_zh in rows
    )


def market_segments() -> tuple[Segment, ...]:
    rows = (
        ("fit", "2019-01-02", "2022-12-30", 972, 2_391_204, 0),
        ("stop", "2023-01-03", "2023-04-28", 80, 248_113, 18_402),
        ("weigh", "2023-05-04", "2023-08-31", 84, 270_410, 18_733),
        ("route", "2023-09-01", "2023-12-29", 80, 268_114, 19_012),
        ("test", "2024-01-02", "2025-08-22", 397, 1_330_771, 19_240),
    )
    return tuple(
        Segment(
            name=name,
            first_session=first,
            last_session=last,
            num_sessions=n,
            num_labelled=rows_,
            num_purged=purged,
            is_sealed=name == "test",
        )
        for name, first, last, n, rows_, purged in rows
    )


CONFIG = {
    "model": {"name": "lstm", "hidden": 64, "layers": 2, "dropout": 0.1, "symbol_embedding": 8},
    "features": {"set": "tech48", "files": []},
    "label": {"horizon": 5, "delay": 1, "kind": "return", "target": "session_rank"},
    "windows": {"look_back": 60, "stretch": 120},
    "training": {
        "optimizer": "adamw",
        "learning_rate": 0.001,
        "weight_decay": 0.01,
        "clip": 1.0,
        "warm_up_steps": 200,
        "seed": 0,
        "batch_labels": 32768,
        "max_seconds": None,
    },
    "segments": {
        "fit": "2022-12-31",
        "stop": "2023-04-30",
        "weigh": "2023-08-31",
        "route": "2023-12-31",
        "test": "2025-08-22",
    },
}
ENVIRONMENT = {
    "python": "3.11.2",
    "barcast": "0.1.0",
    "torch": "2.13.0",
    "cores": 2,
    "platform": "Linux-6.1 x86_64",
}


def market_report(count: int = 500) -> ReportData:
    names = symbol_names(count)
    return ReportData(
        title=Text("LSTM on China A-shares, 5 sessions ahead", "LSTM 预测中国 A 股未来 5 个时段"),
        run_id="lstm-3f9c2a71d04be865",
        model="lstm",
        created="2025-09-05T18:21:07+08:00",
        version="0.1.0",
        command="barcast train lstm --workspace ~/markets/cn --horizon 5 --features tech48 --seed 0",
        horizon=5,
        delay=1,
        small_universe=False,
        test_openings=0,
        interval_note=Text(
            "Brackets are 95 % intervals from 2,000 draws of blocks of 20 sessions.",
            "方括号为 95% 区间，由 20 个时段为一块重抽 2,000 次得到。",
        ),
        data=DataSummary(
            store_version=3,
            market="cn",
            frequency="1d",
            calendar="XSHG",
            basis=("adjusted",),
            num_symbols=count,
            num_rows=4_810_723,
            num_sessions=1621,
            first_session="2019-01-02",
            last_session="2025-09-04",
            survivors_only=True,
            source="cn_a_share.parquet",
            digest="b3f1c09a77d2e4515c8be20a6f9d1c44",
            defects=defects(),
        ),
        verdict=Verdict(
            tone="neutral",
            headline=Text(
                "Better than every naive row, but not clearly better than ridge.",
                "明显优于所有朴素基准，但尚不能断定优于岭回归。",
            ),
            details=(
                Text(
                    "RankIC 0.0931 on route; zero lies far outside the interval.",
                    "路由段 RankIC 为 0.0931，区间远离零。",
                ),
                Text(
                    "The lead over ridge is 0.006 [−0.002, 0.014]: it may be chance.",
                    "领先岭回归 0.006 [−0.002, 0.014]：可能出于偶然。",
                ),
                Text(
                    "Without rows that could not be traded, RankIC falls to 0.0885.",
                    "剔除不可交易样本后，RankIC 降至 0.0885。",
                ),
            ),
        ),
        headline=HeadlineScore(
            name=Text("RankIC", "RankIC"),
            value=0.0931,
            low=0.0721,
            high=0.1141,
            segment="route",
            note=Text("ridge 0.0874", "岭回归 0.0874"),
        ),
        comparisons=(
            comparison(Text("Route, all rows", "路由段，全部样本"), 1),
            comparison(Text("Route, tradable rows", "路由段，可交易样本"), 2, -0.005),
            comparison(Text("Weigh, all rows", "校准段，全部样本"), 3, 0.003),
        ),
        monthly=(monthly(Text("RankIC", "RankIC"), 0.0, 0.08, 4), monthly(Text("AUC", "AUC"), 0.5, 0.03, 5)),
        deciles=(deciles("route", 10, 6), deciles("weigh", 10, 7)),
        calibration=(calibration("return", "route", 8), calibration("probability", "route", 9)),
        predictions=predictions(names, 10),
        symbols=symbol_scores(count, 11),
        loss=tuple(loss_curve(Text(f"lstm, seed {i}", f"lstm，种子 {i}"), 12 + i) for i in range(2)),
        segments=market_segments(),
        failures=tuple(
            Failure(
                symbol=name,
                stage=Text("windows", "窗口"),
                error=Text("only 14 bars, 20 are needed", "仅有 14 根 K 线，至少需要 20 根"),
                fallback=Text("no forecast", "不作预测"),
            )
            for name in names[5:90:17]
        ),
        warnings=(
            Text(
                "3 symbols moved by more than 21 % in their first week.", "3 个标的在上市首周涨跌超过 21%。"
            ),
        ),
        config=CONFIG,
        environment=ENVIRONMENT,
    )
