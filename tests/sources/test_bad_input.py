from dataclasses import replace
from datetime import UTC, date, datetime

import polars as pl
import pytest

from barcast.core.errors import DataError, SymbolError, UsageError
from barcast.sources.files import FileSource
from barcast.sources.frames import FrameSource
from barcast.sources.numbers import to_floats, why_no_number
from barcast.sources.options import ImportOptions
from tests.sources.builders import CN, NOW, US, bars, read

GOOD = bars(4)


def test_text_in_a_price_loses_that_row_only(tmp_path):
    lines = GOOD.write_csv().splitlines()
    lines[2] = lines[2].replace(lines[2].split(",")[4], "abc")
    (tmp_path / "A.csv").write_text("\n".join(lines))
    (tmp_path / "B.csv").write_text(GOOD.write_csv())
    history = read(tmp_path)
    assert len(history.rows) == 7
    (row,) = history.failures.to_dicts()
    assert (row["kind"], row["line"], row["symbol"], row["column"], row["value"]) == (
        "value",
        3,
        "A",
        "close",
        "abc",
    )
    assert row["file"].endswith("A.csv")


def test_lines_are_counted_past_titles_and_blank_lines(tmp_path):
    text = "some title\n" + "\n".join([*GOOD.write_csv().splitlines()[:2], "", "2024-01-09,x,1,1,1,5", ""])
    (tmp_path / "A.csv").write_text(text)
    (row,) = read(tmp_path).failures.to_dicts()
    assert text.splitlines()[row["line"] - 1].startswith("2024-01-09,x")


GERMAN = ImportOptions(
    market="other", basis="raw", volume_unit="share",
    columns=("Datum=date", "Auf=open", "Hoch=high", "Tief=low", "Schluss=close", "Menge=volume"),
)  # fmt: skip
GERMAN_HEAD = "Datum;Auf;Hoch;Tief;Schluss;Menge\n"


def test_decimal_commas_are_said_never_taken_for_thousands(tmp_path):
    text = GERMAN_HEAD + "02.01.2024;10,5;11,0;10,1;10,9;1.200\n15.01.2024;1.010,50;1.011,5;9;10;1,2,3\n"
    (tmp_path / "GERM.csv").write_text(text)
    history = read(tmp_path, GERMAN)
    assert history.rows.is_empty()
    row = history.failures.row(0, named=True)
    assert (row["file"], row["line"], row["column"], row["value"]) == (
        str(tmp_path / "GERM.csv"), 2, "open", "10,5",
    )  # fmt: skip
    assert "groups of three digits" in row["reason"] and "--decimal ," in row["reason"]
    history = read(tmp_path, replace(GERMAN, decimal=","))
    assert history.rows.select("open", "high", "low", "close", "volume").rows() == [
        (10.5, 11.0, 10.1, 10.9, 1200.0)
    ]
    (row,) = history.failures.to_dicts()
    assert (row["line"], row["column"], row["value"]) == (3, "volume", "1,2,3")


@pytest.mark.parametrize(
    ("decimal", "cell", "number"),
    [(".", "1,234", 1234), (".", "-1,234,567.8", -1234567.8), (".", "10,500", 10500), (".", "1,234.", 1234),
     (".", "10,5", None), (".", "10,50", None), (".", "1,2,3", None), (".", "12,34,567", None),
     (".", "1234,567", None), (".", ",5", None), (".", "1,234,", None), (".", "0.5,000", None),
     (",", "10,5", 10.5), (",", "1.200", 1200), (",", "-1.234.567,8", -1234567.8), (",", "7", 7),
     (",", "1.5", None), (",", "1,2,3", None), (",", "1.200.5", None), (",", "1,200.5", None),
     (".", "１０.５", 10.5), (".", "１，２３４．５", 1234.5), (",", "１．２００，５", 1200.5), (".", "－３", -3)],
)  # fmt: skip
def test_numbers_with_commas_and_in_full_width(decimal, cell, number):
    plain = pl.Series(["1", cell, None, "--"])
    numbers, wrong = to_floats(plain, decimal)
    assert numbers.to_list() == [1, number, None, None]
    assert wrong.to_list() == [False, number is None, False, False]
    reason = pl.DataFrame({"value": [cell, "x1"]}).select(why_no_number(decimal)).to_series()
    assert reason[1] == "text where a number belongs"
    thousands = "," if decimal == "." else "."
    assert number is not None or ("--decimal" in reason[0]) == (thousands in cell)


@pytest.mark.parametrize("nothing", ["", "-", "--", "N/A", "nan", "NULL", "停牌"])
def test_words_for_nothing_are_missing_values(tmp_path, nothing):
    text = GOOD.write_csv() + f"2024-01-09,1,2,0.5,1.5,{nothing}\n"
    (tmp_path / "A.csv").write_text(text, encoding="utf-8")
    history = read(tmp_path)
    assert history.failures.is_empty()
    assert history.rows["volume"].null_count() == 1


def test_rows_without_any_price_are_left_out_and_counted(tmp_path):
    (tmp_path / "A.csv").write_text(GOOD.write_csv() + "2024-01-09,,,,,0\n2024-01-10,--,--,--,--,0\n")
    history = read(tmp_path)
    assert (len(history.rows), history.num_without_prices) == (4, 2)
    assert any("2 rows without any price" in note for note in history.notes)


def test_zero_and_infinite_prices_are_kept_for_the_quality_check():
    frame = GOOD.with_columns(close=pl.Series([0.0, float("inf"), -1.0, 5.0]))
    assert read(FrameSource.of({"A": frame})).rows["close"].to_list() == [0, float("inf"), -1, 5]


def test_files_that_cannot_be_used_do_not_stop_the_others(tmp_path):
    (tmp_path / "A.csv").write_text(GOOD.write_csv())
    (tmp_path / "EMPTY.csv").write_bytes(b"")
    (tmp_path / "HEADER.csv").write_text(GOOD.head(0).write_csv())
    (tmp_path / "NOPRICE.csv").write_text(GOOD.drop("open", "close").write_csv())
    (tmp_path / "BYTES.csv").write_bytes(b"\x80\x81\xff\xff")
    (tmp_path / "FAKE.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "GZ.csv.gz").write_bytes(b"not gzip")
    history = read(tmp_path)
    assert history.rows["symbol"].unique().to_list() == ["A"]
    reasons = {
        row["file"].rsplit("/", 1)[1]: (row["kind"], row["reason"]) for row in history.failures.to_dicts()
    }
    assert set(reasons) == {
        "EMPTY.csv",
        "HEADER.csv",
        "NOPRICE.csv",
        "BYTES.csv",
        "FAKE.parquet",
        "GZ.csv.gz",
    }
    assert reasons["HEADER.csv"][0] == "empty"
    assert "open, close" in reasons["NOPRICE.csv"][1]
    assert "date, high, low, volume" in reasons["NOPRICE.csv"][1]


def test_one_row_is_enough(tmp_path):
    (tmp_path / "A.csv").write_text(GOOD.head(1).write_csv())
    assert len(read(tmp_path).rows) == 1


def test_empty_folder_and_missing_path(tmp_path):
    with pytest.raises(DataError, match="no file to read"):
        FileSource((tmp_path,)).units()
    with pytest.raises(DataError, match="does not exist"):
        FileSource((tmp_path / "nowhere",)).units()


def test_unreadable_dates_and_symbols_are_listed():
    frame = GOOD.with_columns(
        pl.col("date").cast(pl.String), code=pl.Series(["600519", "777777", None, "600519"])
    )
    frame = frame.with_columns(date=pl.Series(["2024-01-02", "2024-01-03", "2024-01-04", "soon"]))
    history = read(FrameSource.of(frame), CN)
    assert len(history.rows) == 1
    found = {row["kind"]: row for row in history.failures.to_dicts()}
    assert found["time"]["value"] == "soon"
    reasons = history.failures.filter(pl.col("kind") == "symbol")["reason"].to_list()
    assert sorted(reasons)[0].startswith("`777777`: no exchange")
    assert "empty" in sorted(reasons)[1]


def test_bars_of_the_future_are_refused():
    frame = GOOD.with_columns(
        date=pl.Series([date(2024, 5, 29), date(2024, 5, 30), date(2024, 6, 3), date(2030, 1, 2)])
    )
    history = read(FrameSource.of({"A": frame}))
    assert history.rows["time"].to_list() == [date(2024, 5, 29), date(2024, 5, 30)]
    assert history.failures["value"].to_list() == ["2024-06-03", "2030-01-02"]


@pytest.mark.parametrize(
    ("options", "hour", "kept"),
    [(US, 19, 3), (US, 20, 4), (CN, 6, 3), (CN, 8, 4), (ImportOptions(market="crypto"), 23, 3)],
)
def test_todays_bar_counts_from_the_close_on(options, hour, kept):
    """New York closes at 20:00 UTC in summer, Shanghai at 07:00; a coin's day never ends early."""
    frame = GOOD.with_columns(date=pl.Series([date(2024, 5, d) for d in (28, 29, 30, 31)]))
    now = (
        datetime(2024, 5, 31, hour, 30, tzinfo=UTC)
        if kept == 3
        else datetime(2024, 5, 31, hour, 1, tzinfo=UTC)
    )
    symbol = "600519" if options is CN else "A"
    history = read(FrameSource.of({symbol: frame}), options, now)
    assert (len(history.rows), history.num_unfinished) == (kept, 4 - kept)
    assert any("not ended yet" in note for note in history.notes) == (kept == 3)


def test_unfinished_last_bar_of_intraday_data():
    hours = pl.datetime_range(datetime(2024, 6, 1, 9), datetime(2024, 6, 1, 13), "1h", eager=True)
    frame = bars(5).drop("date").with_columns(timestamp=hours)
    options = ImportOptions(market="crypto", frequency="1h", tz="UTC", stamp="start")
    history = read(FrameSource.of({"BTCUSDT": frame}), options, NOW.replace(minute=30))  # 12:30
    assert history.rows["time"].to_list() == hours.to_list()[:3]
    assert history.num_unfinished == 1  # the bar of 12:00
    assert history.failures["kind"].to_list() == ["future"]  # the bar of 13:00


def test_identical_repeats_are_counted(tmp_path):
    (tmp_path / "A.csv").write_text(pl.concat([GOOD, GOOD.head(2)]).write_csv())
    history = read(tmp_path)
    assert (len(history.rows), history.num_repeated, len(history.conflicts)) == (4, 2, 0)


def test_conflicting_repeats_keep_the_last_and_record_both(tmp_path):
    other = GOOD.head(1).with_columns(pl.col("close") + 0.1)
    (tmp_path / "A.csv").write_text(pl.concat([GOOD, other, GOOD[1:2]]).write_csv())
    history = read(tmp_path)
    assert (len(history.rows), history.num_repeated) == (4, 1)
    assert history.rows["close"][0] == other["close"][0]
    assert history.conflicts.select("symbol", "line", "close", "kept").rows() == [
        ("A", 2, GOOD["close"][0], False), ("A", 6, other["close"][0], True)
    ]  # fmt: skip
    assert history.conflicts["file"][0].endswith("A.csv")


def test_two_spellings_of_one_symbol_with_other_data_are_refused(tmp_path):
    (tmp_path / "600519.csv").write_text(GOOD.write_csv())
    (tmp_path / "SH600519.csv").write_text(GOOD.write_csv())
    assert len(read(tmp_path, CN).rows) == 4  # the same data twice is no harm
    (tmp_path / "SH600519.csv").write_text(GOOD.with_columns(pl.col("close") * 2).write_csv())
    with pytest.raises(SymbolError, match=r"600519.*SH600519.*both mean 600519\.SH"):
        read(tmp_path, CN)


def test_a_stock_and_an_index_under_one_code_are_refused(tmp_path):
    (tmp_path / "000001.csv").write_text(GOOD.write_csv())
    (tmp_path / "SH000001.csv").write_text(GOOD.write_csv())
    with pytest.raises(SymbolError, match="two securities"):
        read(tmp_path, CN)


@pytest.mark.parametrize(
    ("options", "asked", "settled"),
    [
        (ImportOptions(market="cn"), ["--basis", "--volume-unit"], ["--tz", "--frequency"]),
        (ImportOptions(market="cn", basis="raw"), ["--volume-unit"], ["--basis"]),
        (ImportOptions(market="us"), ["--basis"], ["--volume-unit"]),
        (ImportOptions(market="cn", frequency="5m"), ["--basis", "--volume-unit", "--tz ", "--stamp"], []),
        (ImportOptions(market="us", frequency="5m"), ["--basis", "--tz ", "--stamp"], ["--volume-unit"]),
    ],
)
def test_everything_that_is_not_known_is_asked_at_once(tmp_path, options, asked, settled):
    (tmp_path / "600519.csv").write_text(GOOD.write_csv())
    with pytest.raises(UsageError) as caught:
        read(tmp_path, options)
    assert "600519.csv" in caught.value.found
    assert all(flag in caught.value.todo for flag in asked)
    assert not any(flag in caught.value.todo for flag in settled)
    assert caught.value.todo.count("add ") == 1


@pytest.mark.parametrize(("step", "name"), [(60, "1m"), (300, "5m"), (3600, "1h"), (14400, "4h")])
@pytest.mark.parametrize("unit", [1, 1000])
def test_intraday_bars_without_a_frequency_are_told_the_flag(step, name, unit):
    first = int(datetime(2024, 1, 2, tzinfo=UTC).timestamp())
    stamps = [(first + step * n) * unit for n in range(60) if n != 7]  # with a hole
    frame = bars(59).drop("date").with_columns(timestamp=pl.Series(stamps))
    with pytest.raises(UsageError) as caught:
        read(FrameSource.of({"BTCUSDT": frame}), ImportOptions(market="crypto"))
    assert f"--frequency {name} --tz UTC --stamp start|end" in caught.value.todo
    local = frame.with_columns(pl.from_epoch("timestamp", "s" if unit == 1 else "ms").dt.to_string())
    with pytest.raises(UsageError, match=f"--basis .*, --frequency {name} --tz ZONE"):
        read(FrameSource.of({"AAPL": local}), ImportOptions(market="us"))


def test_one_symbol_for_several_files_is_refused(tmp_path):
    for name in "AB":
        (tmp_path / f"{name}.csv").write_text(GOOD.write_csv())
    with pytest.raises(UsageError, match="--symbol"):
        read(tmp_path, replace(US, symbol="X"))


def test_a_file_that_names_no_symbol(tmp_path):
    (tmp_path / "行情.csv").write_text(GOOD.write_csv())
    (row,) = read(tmp_path, CN).failures.to_dicts()
    assert (row["kind"], "--symbol" in row["reason"]) == ("symbol", True)
    assert "`行情.csv` names none of market cn" in row["reason"]
    assert "another market needs another --workspace" in row["reason"]
    assert len(read(tmp_path, replace(CN, symbol="600519")).rows) == 4


@pytest.mark.parametrize(
    "wrong",
    [{"market": "mars"}, {"frequency": "7m"}, {"basis": "qfq"}, {"stamp": "middle"}, {"tz": "Mars/Olympus"},
     {"calendar": "XXXX"}, {"volume_unit": "kg"}, {"date_order": "ydm"}, {"decimal": ";"}, {"columns": ("a",)}],
)  # fmt: skip
def test_unknown_options_name_the_choices(wrong):
    with pytest.raises(UsageError) as caught:
        ImportOptions(**wrong)
    assert caught.value.todo


def test_options_against_the_store():
    kept = ImportOptions(market="cn", basis="raw", volume_unit="lot").resolved().declared()
    assert ImportOptions().resolved(kept).volume_unit == "lot"
    kept |= {"decimal": ","}
    assert ImportOptions().resolved(kept).decimal == ","
    assert ImportOptions(decimal=".").resolved(kept).decimal == "."
    with pytest.raises(UsageError, match="this store holds cn"):
        ImportOptions(market="us").resolved(kept)
    with pytest.raises(UsageError, match="no lots"):
        ImportOptions(market="us", volume_unit="lot").resolved()
