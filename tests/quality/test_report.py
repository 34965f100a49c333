"""The report: JSON, counts, and the lines people read."""

import json
import re
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from barcast.core.errors import UsageError
from barcast.quality import (
    KINDS,
    QualityPolicy,
    check_bars,
    finding_lines,
    report_lines,
    table_rows,
)

from .frames import calendar_of, clean_frame, edit, scale


@pytest.fixture(scope="module")
def report():
    frame = edit(clean_frame(), 10, low=0.0, close=np.nan)
    frame = edit(frame, 12, high=-1.0, low=0.0)
    frame = edit(frame, [30, 400], volume=0.0)
    frame = scale(frame, slice(150, 152), 0.1).filter(pl.col("symbol") != "S005")
    return check_bars(frame, calendar_of(clean_frame()), "us")


def test_json_tells_everything(report):
    plain = json.loads(report.to_json())
    assert plain["survivors_only"] is True
    assert plain["counts"] == report.counts
    assert plain["counts"]["zero_volume"] == plain["symbols"]["zero_volume"] == 2
    times = [str(time) for time in report.findings["time"]]
    values = [None if np.isnan(value) else value for value in report.findings["value"]]
    assert plain["findings"]["time"] == times
    assert plain["findings"]["value"] == values
    assert plain["findings"]["kind"] == report.findings["kind"].to_list()


def test_json_with_examples_only_still_counts_everything(report):
    whole, some = json.loads(report.to_json()), json.loads(report.to_json(max_findings=1))
    assert some["counts"] == whole["counts"]
    assert some["symbols"] == whole["symbols"]
    assert some["findings"]["kind"] == list(report.counts)
    assert report.counts["extreme_return"] > 1
    largest = report.of("extreme_return").sort(pl.col("value").abs(), descending=True)
    at = some["findings"]["kind"].index("extreme_return")
    assert some["findings"]["time"][at] == str(largest["time"][0])


def test_json_keeps_times_within_the_day():
    times = pl.datetime_range(datetime(2024, 1, 1), datetime(2024, 1, 2), "1h", time_unit="us", eager=True)
    frame = clean_frame(num_symbols=2, num_sessions=25)[:25].with_columns(time=times, volume=pl.lit(0.0))
    report = check_bars(frame, calendar_of(clean_frame()), "crypto")
    assert "2024-01-01 05:00:00.000000" in json.loads(report.to_json())["findings"]["time"]


def test_findings_are_in_order(report):
    names = list(KINDS)
    ranks = [names.index(kind) for kind in report.findings["kind"]]
    assert ranks == sorted(ranks)
    assert list(report.counts) == sorted(report.counts, key=names.index)
    assert report.findings["value"].is_infinite().sum() == 0


def test_summary_rows(report):
    rows = {row.kind: row for row in report.summary_rows(QualityPolicy({"zero_volume": "mask"}))}
    assert rows["zero_volume"].num_findings == 2
    assert rows["zero_volume"].num_symbols == 2
    assert rows["zero_volume"].policy == "mask"
    assert rows["no_delisted_symbol"].num_symbols == 0
    assert rows["spike"].example.startswith("S000 2020-08-06 .. 2020-08-07: ")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_lines_name_every_kind_with_its_advice(report, lang):
    lines = report_lines(report, QualityPolicy(), lang)
    text = "\n".join(lines)
    for kind in report.counts:
        assert sum(line.startswith(kind) for line in lines) == 1
        assert KINDS[kind].todo.in_language(lang) in text
    assert bool(re.search("[\u4e00-\u9fff]", text)) == (lang == "zh")
    assert "2020-01-02" in lines[0]


def test_offending_rows_of_one_kind(report):
    lines = finding_lines(report, "zero_volume", limit=1)
    assert lines[0].startswith("zero_volume: zero volume (2). nothing was traded")
    assert lines[1] == "S000  2020-02-14"
    assert lines[2] == "... 1"
    assert finding_lines(report, "spike", "zh")[1].startswith("S000  2020-08-06 .. 2020-08-07  ")
    assert len(finding_lines(report, "hole")) == 1
    with pytest.raises(UsageError, match="spikes"):
        finding_lines(report, "spikes")


def test_columns_line_up_in_chinese(report):
    header, *rows = table_rows(report, QualityPolicy(), "zh")
    assert len({len(row) for row in [header, *rows]}) == 1
    lines = [
        line for line in report_lines(report, QualityPolicy(), "zh") if line.split(" ")[0] in report.counts
    ]
    places = {
        _columns(line[: line.index(word)]) for line in lines for word in ("接受", "排除") if word in line
    }
    assert len(places) == 1


def _columns(text):
    return sum(2 if ord(letter) > 0x2E7F else 1 for letter in text)


def test_a_clean_check_is_two_lines():
    frame = clean_frame(num_sessions=200).filter(pl.col("symbol") != "S005")
    report = check_bars(frame, calendar_of(frame), "us")
    assert len(report_lines(report, QualityPolicy())) == 2


def test_every_kind_has_both_languages():
    for kind in KINDS.values():
        for text in (kind.title, kind.meaning, kind.todo):
            assert text.en
            assert re.search("[\u4e00-\u9fff]", text.zh), kind.name
            assert not re.search("[\u4e00-\u9fff]", text.en), kind.name
