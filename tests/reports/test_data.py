import json
import math

import pytest

from barcast.core.errors import UsageError
from barcast.core.texts import Text
from barcast.reports.data import Column, Comparison, ComparisonRow, SymbolScores, finite
from barcast.reports.page import embeddable_json, payload
from tests.reports.demo import market_report

COLUMN = Column(key="auc", title=Text.same("AUC"), format="score")


def test_nan_and_infinity_become_null():
    report = market_report(60)
    assert any(math.isnan(value) for column in report.symbols.values for value in column)
    shown = payload(report)["symbols"]["values"]
    for before, after in zip(report.symbols.values, shown, strict=True):
        assert [value is None for value in after] == [math.isnan(value) for value in before]
    assert finite({"a": [math.inf, 1.5, -math.inf]}) == {"a": [None, 1.5, None]}
    json.loads(embeddable_json(payload(report)), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_rows_must_fit_their_columns():
    row = ComparisonRow(name=Text.same("ridge"), cells=())
    with pytest.raises(UsageError, match="`ridge`: 0 values for 1 columns"):
        Comparison(title=Text.same("test"), columns=(COLUMN,), rows=(row,), chart_key="auc")
    with pytest.raises(UsageError, match="no column `ic`"):
        Comparison(title=Text.same("test"), columns=(COLUMN,), rows=(), chart_key="ic")
    with pytest.raises(UsageError, match="`auc`: 1 values for 2 symbols"):
        SymbolScores(columns=(COLUMN,), symbols=("A", "B"), values=((0.5,),))
    with pytest.raises(UsageError, match="0 values for 1 columns"):
        SymbolScores(columns=(COLUMN,), symbols=("A",), values=())
