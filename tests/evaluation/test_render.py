import re

import polars as pl
import pytest

from barcast.evaluation.intervals import Bootstrap
from barcast.evaluation.render import grids, to_markdown, to_text
from barcast.evaluation.results import Cost, Score
from barcast.evaluation.sealed import Openings
from barcast.evaluation.words import METRIC_NAMES, cell, number, seconds, size, with_range
from tests.evaluation.panels import compare, market, table, usual


@pytest.fixture(scope="module")
def comparison():
    predictions = usual()
    untradable = (pl.col("symbol") == "S003") & (pl.col("time").dt.day() == 4)
    return compare(
        predictions.with_columns(tradable=~untradable),
        segment="test",
        cross_sectional=True,
        costs={"lstm": Cost(65.4, 2_500_000, 0.25)},
        openings=Openings(1),
        bootstrap=Bootstrap(num_draws=200),
    )


def test_markdown_holds_every_score_of_every_model(comparison):
    text = to_markdown(comparison)
    assert comparison.verdict.en in text
    for row in comparison.all_rows.rows:
        for metric, score in row.scores.items():
            assert cell(metric, score) in text
    assert "lstm ×2" in text
    assert "65 s" in text
    assert "2.5 MB" in text
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 7  # skill, two of scores; the same of tradable rows; costs
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1


def test_chinese_text_is_chinese_throughout(comparison):
    text = to_markdown(comparison, "zh")
    assert comparison.verdict.zh in text
    assert "最好的朴素基准" in text
    assert not re.search(r"\b(the|against|better|rows|sessions|interval)\b", text)


def test_the_zero_row_shows_a_dash_for_rank_ic(comparison):
    skill = grids(comparison)[0]
    zero = next(cells for cells in skill.rows if cells[0].startswith("zero"))
    assert zero[2] == "–"
    assert skill.heads == (
        "model",
        "covers",
        "RankIC",
        "vs ridge",
        "vs reversal (best naive)",
    ) or skill.heads[4].endswith("(best naive)")


def test_text_keeps_to_its_width_and_ends_with_the_verdict(comparison):
    for language in ("en", "zh"):
        text = to_text(comparison, language, width=100)
        assert max(len(line) for line in text.splitlines()) <= 100
    words = " ".join(to_text(comparison, width=100).split())
    assert words.endswith(comparison.verdict.en)
    assert "opened once" in words


def test_a_small_universe_shows_no_ic_columns():
    signal, y = market(60, 4)
    small = compare(table("m", signal, y), segment="test", cross_sectional=False)
    assert len(grids(small)) == 2
    assert "| RankIC" not in to_markdown(small)
    assert "vs ridge" not in to_markdown(small)


def test_a_step_is_a_session_of_daily_bars_and_a_bar_of_others():
    for daily, english, chinese in ((True, "session", "交易日"), (False, "bar", "时点")):
        found = compare(usual(40, 8), segment="test", cross_sectional=False, daily=daily)
        text, zh = to_text(found, "en"), to_text(found, "zh")
        assert f"40 {english}s, 8 symbols" in text and f"{found.horizon} {english}" in text
        assert ("session" in text.replace("session AUC", "")) == daily
        assert f"40 个{chinese}" in zh and ("时点" in zh) != daily
        assert "其 AUC" in zh and "按 对零" not in zh and "其 对零" not in zh


def test_numbers_read_naturally():
    assert number("rank_ic", 0.03456) == "0.0346"
    assert number("r2", 0.00123) == "0.123%"
    assert number("rank_ic", 0.03, sign=True) == "+0.0300"
    assert number("auc", float("nan")) == "–"
    nan = float("nan")
    assert with_range("auc", Score(0.5, nan, nan)) == "0.5000"
    assert with_range("auc", Score(0.5, 0.4, 0.6, 0.01)) == "0.5000 ± 0.0100 [0.4000, 0.6000]"
    assert cell("mcc", Score(0.0, 0.0, 0.0, flag="constant")) == "0.0000 *"
    assert cell("pinball", None) == "–"
    assert [seconds(value) for value in (None, 0.254, 65.4, 900)] == ["–", "0.25 s", "65 s", "15 min"]
    assert [size(value) for value in (None, 12, 4_200, 2_500_000, 3 * 10**9)] == [
        "–", "12 B", "4.2 kB", "2.5 MB", "3.0 GB",
    ]  # fmt: skip


def test_every_score_has_a_name_in_both_languages(comparison):
    shown = {metric for row in comparison.all_rows.rows for metric in row.scores}
    assert shown <= set(METRIC_NAMES)
    assert all(said.en and said.zh for said in METRIC_NAMES.values())
