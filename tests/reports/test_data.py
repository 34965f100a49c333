import json
import math

import pytest

from barcast.core.errors import UsageError
from barcast.core.texts import Text
from barcast.reports.data import Column, Comparison, ComparisonRow, SymbolScores, from_json, to_json
from tests.reports.demo import market_report
from tests.reports.variants import REPORTS, small_report

COLUMN = Column(key="auc", title=Text.same("AUC"), format="score")


@pytest.mark.parametrize("name", REPORTS)
def test_json_carries_everything(name):
    text = to_json(REPORTS[name]())
    again = from_json(text)
    assert to_json(again) == text
    assert again == from_json(to_json(again))


def test_json_without_gaps_gives_an_equal_report():
    report = small_report()
    without_nan = {**vars(report), "symbols": None}
    report = type(report)(**without_nan)
    assert from_json(to_json(report)) == report


def test_nan_and_infinity_become_null():
    report = market_report(60)
    assert any(math.isnan(value) for column in report.symbols.values for value in column)
    again = from_json(to_json(report))
    for before, after in zip(report.symbols.values, again.symbols.values, strict=True):
        assert after == tuple(None if math.isnan(value) else value for value in before)
    json.loads(to_json(report), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_unknown_key_is_refused():
    plain = json.loads(to_json(small_report()))
    plain["modle"] = "lstm"
    with pytest.raises(UsageError, match="did you mean `model`"):
        from_json(json.dumps(plain))


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
