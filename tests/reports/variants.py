"""Other demo reports: five symbols, nothing to show, and hostile text.

Run ``python -m tests.reports.variants FOLDER`` to write all pages and look at them.
"""

import sys
from pathlib import Path

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
    EmptyReason,
    Failure,
    HeadlineScore,
    LossCurve,
    LossPoint,
    MonthlyScores,
    MonthPoint,
    Prediction,
    ReportData,
    SymbolScores,
    Verdict,
)
from barcast.reports.page import write_report
from tests.reports.demo import (
    MODELS,
    calibration,
    deciles,
    loss_curve,
    market_report,
    monthly,
    predictions,
    symbol_scores,
)


def small_comparison() -> Comparison:
    columns = (
        Column(key="auc", title=Text("AUC", "AUC"), format="score", better="higher", neutral=0.5),
        Column(
            key="r2_zero",
            title=Text("R² against zero", "相对零预测的 R²"),
            format="percent",
            better="higher",
            neutral=0.0,
        ),
        Column(key="rmse", title=Text("RMSE", "均方根误差"), format="basis_points", better="lower"),
    )
    rows = []
    for name, group, skill, _ in MODELS:
        auc = 0.5 + (skill or 0.0) / 9
        cells = (
            Cell(value=auc, low=auc - 0.03, high=auc + 0.03),
            Cell(value=auc * 0.02 - 0.0105),
            Cell(value=0.0212 - auc / 1e3),
        )
        rows.append(
            ComparisonRow(name=name, group=group, is_this_run=name.en.startswith("lstm"), cells=cells)
        )
    return Comparison(
        title=Text("Route, all rows", "路由段，全部样本"), columns=columns, rows=tuple(rows), chart_key="auc"
    )


def small_report() -> ReportData:
    names = ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    base = vars(market_report(60))
    rows = list(predictions(names, 3, "2013-03-01", "2013-03-05"))
    rows[1] = Prediction(
        **{**vars(rows[1]), "note": Text("short history: 196 bars", "历史较短：196 根 K 线")}
    )
    changed = {
        "title": Text("LSTM on five US stocks, next session", "LSTM 预测五只美股的下一时段"),
        "run_id": "lstm-0a17c2f4be90d355",
        "horizon": 1,
        "small_universe": True,
        "test_openings": 1,
        "command": "barcast quickstart",
        "data": DataSummary(
            store_version=1,
            market="us",
            frequency="1d",
            calendar="XNYS",
            basis=("split", "raw"),
            num_symbols=5,
            num_rows=12_500,
            num_sessions=3270,
            first_session="2000-03-01",
            last_session="2013-03-01",
            survivors_only=True,
            source="bokeh-sampledata 2026.1",
        ),
        "verdict": Verdict(
            tone="negative",
            headline=Text(
                "No evidence that this model beats doing nothing.", "没有证据表明该模型强于什么都不做。"
            ),
        ),
        "headline": HeadlineScore(
            name=Text("AUC", "AUC"), value=0.511, low=0.488, high=0.534, segment="test"
        ),
        "comparisons": (small_comparison(),),
        "monthly": (monthly(Text("AUC", "AUC"), 0.5, 0.01, 5),),
        "deciles": (deciles("test", 5, 6),),
        "calibration": (calibration("return", "test", 8),),
        "predictions": tuple(rows),
        "loss": (loss_curve(Text("lstm, seed 0", "lstm，种子 0"), 12),),
        "failures": (),
        "warnings": (),
        "symbols": SymbolScores(
            columns=symbol_scores(5, 1).columns,
            symbols=tuple(names),
            values=symbol_scores(5, 1).values,
            segment="test",
        ),
    }
    return ReportData(**{**base, **changed})


def empty_report() -> ReportData:
    base = vars(small_report())
    gone = (
        "comparisons",
        "monthly",
        "deciles",
        "calibration",
        "predictions",
        "loss",
        "segments",
        "failures",
        "warnings",
    )
    reason = EmptyReason(section="training", reason=Text("ridge is solved in one step", "岭回归一步求解"))
    changed = {"symbols": None, "headline": None, "config": {}, "environment": {}, "empty": (reason,)}
    return ReportData(**{**base, **dict.fromkeys(gone, ()), **changed})


HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">"


def hostile_report() -> ReportData:
    base = vars(small_report())
    bad = Text(f"en {HOSTILE}", f"zh {HOSTILE}")
    rows = [
        Prediction(symbol=HOSTILE, as_of=HOSTILE, for_session="2013-03-05", y_hat=0.01, rank=1, note=bad),
        Prediction(
            symbol='=HYPERLINK("x")', as_of="2013-03-01", for_session="2013-03-05", y_hat=-0.01, rank=2
        ),
    ]
    changed = {
        "title": bad,
        "run_id": HOSTILE,
        "model": HOSTILE,
        "command": HOSTILE,
        "predictions": tuple(rows),
        "verdict": Verdict(tone="positive", headline=bad, details=(bad,)),
        "warnings": (bad,),
        "symbols": SymbolScores(columns=base["symbols"].columns[:1], symbols=(HOSTILE,), values=((1.0,),)),
        "failures": (Failure(symbol=HOSTILE, stage=bad, error=bad, fallback=bad),),
        "config": {HOSTILE: {"<!--<script>": HOSTILE}},
        "loss": (LossCurve(name=bad, points=base["loss"][0].points),),
    }
    return ReportData(**{**base, **changed})


def thin_report() -> ReportData:
    """One of everything, equal forecasts, no intervals; but thirteen years of months."""
    base = vars(small_report())
    months = [f"{year}-{month:02d}" for year in range(2011, 2024) for month in range(1, 13)]
    long = tuple(
        MonthPoint(month=month, mean=0.01 * (i % 7 - 3), segment="test") for i, month in enumerate(months)
    )
    only = ComparisonRow(
        name=Text.same("ridge"), cells=(Cell(value=0.0),), group="reference", is_this_run=True
    )
    column = Column(key="r2", title=Text("R²", "R²"), format="percent", neutral=0.0)
    changed = {
        "comparisons": (
            Comparison(title=Text("Test", "测试"), columns=(column,), rows=(only,), chart_key="r2"),
        ),
        "monthly": (MonthlyScores(name=Text.same("RankIC"), points=long),),
        "deciles": (DecileReturns(segment="test", points=(Bucket(bucket=1, mean=0.0),)),),
        "calibration": (
            Calibration(
                kind="return", segment="test", points=(CalibrationPoint(forecast=0.0, realised=0.0),)
            ),
        ),
        "predictions": tuple(
            Prediction(symbol=f"S{i}", as_of="2013-03-01", for_session="2013-03-05", y_hat=0.0)
            for i in range(40)
        ),
        "loss": (LossCurve(name=Text.same("lstm"), points=(LossPoint(step=0, epoch=0.0, train_loss=1.0),)),),
        "segments": base["segments"][:1],
    }
    return ReportData(**{**base, **changed})


def ties_report() -> ReportData:
    """Scores that look equal as printed, and a column in which all of them do."""
    columns = (
        Column(key="rank_ic", title=Text.same("RankIC"), format="score", better="higher"),
        Column(key="mae", title=Text.same("MAE"), format="basis_points", better="lower"),
    )
    rows = tuple(
        ComparisonRow(
            name=Text(name, f"模型{name}"), typed=name, cells=(Cell(value=value), Cell(value=error))
        )
        for name, value, error in (("a", 0.05121, 0.031), ("b", 0.05119, 0.0310001), ("c", -0.01, 0.031))
    )
    one = Comparison(title=Text("route", "路由段"), columns=columns, rows=rows, chart_key="rank_ic")
    return ReportData(**{**vars(small_report()), "comparisons": (one,)})


def unsized_report() -> ReportData:
    """Every forecast is zero: only the order of the scores says something."""
    base = vars(market_report(60))
    flat = [
        Prediction(**{**vars(row), "y_hat": None if row.y_hat is None else 0.0, "p_up": 0.5})
        for row in base["predictions"]
    ]
    reason = EmptyReason(section="calibration", reason=Text("no size", "没有幅度"))
    return ReportData(
        **{**base, "predictions": tuple(flat), "calibration": (), "empty": (reason,), "horizons": (1, 5)}
    )


REPORTS = {
    "unsized": unsized_report,
    "market": market_report,
    "small": small_report,
    "empty": empty_report,
    "hostile": hostile_report,
    "thin": thin_report,
    "ties": ties_report,
}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for key, make in REPORTS.items():
        write_report(folder / f"{key}.html", make() if key != "market" else make(3425))
