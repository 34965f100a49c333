"""One market in every shape people have it must give the same rows."""

from dataclasses import replace
from datetime import date, datetime

import pandas as pd
import polars as pl
import pytest

from barcast.core.errors import UsageError
from barcast.sources.files import FileSource
from barcast.sources.frames import FrameSource
from barcast.sources.options import ImportOptions
from tests.sources.builders import CN, US, bars, days, read

CHINESE = {"date": "日期", "open": "开盘", "high": "最高", "low": "最低", "close": "收盘", "volume": "成交量"}
MARKET = {"600519": bars(6, 1500.0), "000001": bars(5, 9.0, date(2024, 1, 3)), "300750": bars(6, 160.0)}


@pytest.fixture
def expected() -> pl.DataFrame:
    parts = [frame.with_columns(symbol=pl.lit(code)) for code, frame in MARKET.items()]
    long = pl.concat(parts).rename({"date": "time"}).sort("symbol", "time")
    endings = {"600519": "600519.SH", "000001": "000001.SZ", "300750": "300750.SZ"}
    return long.select(
        pl.col("symbol").replace_strict(endings), "time", "open", "high", "low", "close", "volume"
    )


def same(history, expected, columns=("symbol", "time", "open", "high", "low", "close", "volume")):
    assert history.failures.is_empty(), history.failures
    assert history.rows.select(columns).equals(expected.select(columns)), history.rows


def long_frame():
    return pl.concat([frame.with_columns(code=pl.lit(code)) for code, frame in MARKET.items()])


def write_text(path, frame, encoding="utf-8", **options):
    path.write_bytes(frame.write_csv(**options).encode(encoding))


def test_long_csv_and_parquet(tmp_path, expected):
    write_text(tmp_path / "a.csv", long_frame())
    long_frame().write_parquet(tmp_path / "b.parquet")
    same(read(tmp_path / "a.csv", CN), expected)
    same(read(tmp_path / "b.parquet", CN), expected)


def test_integer_codes_that_lost_their_zeros(tmp_path, expected):
    long_frame().with_columns(pl.col("code").cast(pl.Int64)).write_parquet(tmp_path / "b.parquet")
    history = read(tmp_path / "b.parquet", CN)
    same(history, expected)
    assert any("1 -> 000001.SZ" in note for note in history.notes)


def test_folder_of_one_file_a_symbol_in_mixed_encodings_and_endings(tmp_path, expected):
    (tmp_path / "sub").mkdir()
    write_text(tmp_path / "600519.csv", MARKET["600519"].rename(CHINESE), "gbk")
    write_text(tmp_path / "sub" / "SZ000001.csv", MARKET["000001"].rename(CHINESE), "utf-8-sig")
    MARKET["300750"].write_parquet(tmp_path / "300750.SZ.parquet")
    (tmp_path / "readme.md").write_text("not data")
    same(read(tmp_path, CN), expected)


def tdx(code, name, frame, word, newline="\r\n"):
    lines = [
        f"{code} {name} 日线 {word}",
        "      日期\t    开盘\t    最高\t    最低\t    收盘\t    成交量\t    成交额",
    ]
    for row in frame.iter_rows(named=True):
        cells = [f"{row['date']:%Y/%m/%d}", *(f"{row[c]:.2f}" for c in ("open", "high", "low", "close")),
                 f"{row['volume']:.0f}", "498695109.00"]  # fmt: skip
        lines.append("\t".join(cells))
    return (newline.join([*lines, "数据来源:通达信"]) + newline).encode("gbk")


def test_tdx_exports_say_their_basis(tmp_path, expected):
    for code, frame in MARKET.items():
        market = "SH" if code.startswith("6") else "SZ"
        (tmp_path / f"{market}#{code}.txt").write_bytes(tdx(code, "名称", frame, "前复权"))
    history = read(tmp_path, replace(CN, basis=None))
    same(history, expected)
    assert set(history.rows["basis"]) == {"adjusted"}
    assert history.rows["amount"].to_list() == [498695109.0] * 17
    assert any("title" in note for note in history.notes)


def test_title_against_the_command_is_refused(tmp_path):
    (tmp_path / "600519.txt").write_bytes(tdx("600519", "贵州茅台", MARKET["600519"], "不复权"))
    history = read(tmp_path, CN)
    assert history.rows.is_empty()
    assert "prices are raw, the command says adjusted" in history.failures["reason"][0]


def test_symbol_from_the_title_when_the_name_has_none(tmp_path):
    (tmp_path / "export.txt").write_bytes(tdx("600519", "贵州茅台", MARKET["600519"], "前复权"))
    assert read(tmp_path, CN).rows["symbol"].unique().to_list() == ["600519.SH"]
    (tmp_path / "export.txt").rename(tmp_path / "000001.txt")
    assert "its title says 600519" in read(tmp_path, CN).failures["reason"][0]


@pytest.mark.parametrize("unit", [1, 10**3, 10**6])
def test_epochs(tmp_path, expected, unit):
    seconds = pl.col("date").cast(pl.Datetime("us")).dt.epoch("s")
    write_text(tmp_path / "a.csv", long_frame().with_columns(timestamp=seconds * unit).drop("date"))
    same(read(tmp_path / "a.csv", CN), expected)


@pytest.mark.parametrize("form", ["%Y%m%d", "%Y/%m/%d", "%Y年%m月%d日", "%Y-%m-%d 00:00:00"])
def test_dates_as_text(tmp_path, expected, form):
    write_text(tmp_path / "a.csv", long_frame().with_columns(pl.col("date").dt.strftime(form)))
    same(read(tmp_path / "a.csv", CN), expected)


def test_one_day_numbers_in_parquet(tmp_path, expected):
    number = pl.col("date").dt.strftime("%Y%m%d").cast(pl.Int64)
    long_frame().with_columns(number).write_parquet(tmp_path / "a.parquet")
    same(read(tmp_path / "a.parquet", CN), expected)


def test_dict_of_polars_and_of_pandas(expected):
    same(read(FrameSource.of(MARKET), CN), expected)
    frames = {code: frame.to_pandas().set_index("date") for code, frame in MARKET.items()}
    for frame in frames.values():
        frame.index = pd.DatetimeIndex(frame.index)
    same(read(FrameSource.of(frames), CN), expected)
    unnamed = {code: frame.rename_axis(None) for code, frame in frames.items()}
    same(read(FrameSource.of(unnamed), CN), expected)


def test_long_frames_from_python(expected):
    same(read(FrameSource.of(long_frame()), CN), expected)
    same(read(FrameSource.of(long_frame().to_pandas().set_index(["code", "date"])), CN), expected)


def test_frames_are_not_changed(expected):
    frame = long_frame().to_pandas()
    before = frame.copy()
    same(read(FrameSource.of(frame), CN), expected)
    pd.testing.assert_frame_equal(frame, before)


def test_volume_in_lots_by_option_and_by_header(tmp_path, expected):
    lots = {code: frame.with_columns(pl.col("volume") / 100) for code, frame in MARKET.items()}
    for code, frame in lots.items():
        write_text(tmp_path / f"{code}.csv", frame.rename(CHINESE | {"volume": "成交量(手)"}), "gbk")
    history = read(tmp_path, replace(CN, volume_unit=None))
    same(history, expected, ("symbol", "time", "close"))
    assert history.rows["volume"].to_list() == pytest.approx(expected["volume"].to_list())
    assert any("成交量(手)" in note for note in history.notes)
    assert "contradicts --volume-unit share" in read(tmp_path, CN).failures["reason"][0]
    assert read(FrameSource.of(lots), replace(CN, volume_unit="lot")).rows[
        "volume"
    ].to_list() == pytest.approx(expected["volume"].to_list())


def test_amount_units(tmp_path):
    frame = MARKET["600519"].with_columns(pl.lit(2.5).alias("成交额(万元)"))
    write_text(tmp_path / "600519.csv", frame)
    assert set(read(tmp_path, CN).rows["amount"]) == {25_000.0}


def test_nothing_is_guessed(tmp_path):
    write_text(tmp_path / "600519.csv", MARKET["600519"])
    with pytest.raises(UsageError, match="--basis raw"):
        read(tmp_path, replace(CN, basis=None))
    with pytest.raises(UsageError, match="--volume-unit"):
        read(tmp_path, replace(CN, volume_unit=None))
    with pytest.raises(UsageError, match="--market"):
        read(tmp_path, ImportOptions())
    assert len(read(tmp_path, replace(US, symbol="A")).rows) == 6  # shares are the only unit there


def test_raw_close_beside_the_close_says_adjusted():
    frame = MARKET["600519"].with_columns(close_raw=pl.col("close") * 2)
    history = read(FrameSource.of({"600519": frame}), replace(CN, basis=None))
    assert set(history.rows["basis"]) == {"adjusted"}
    assert history.rows["close_raw"].to_list() == (frame["close"] * 2).to_list()


def test_unused_columns_are_named_once(tmp_path):
    for code, frame in MARKET.items():
        write_text(
            tmp_path / f"{code}.csv", frame.with_columns(pl.lit(1).alias("涨跌幅"), pl.lit("x").alias("名称"))
        )
    notes = [note for note in read(tmp_path, CN).notes if "not used" in note]
    assert notes == ["columns not used: 涨跌幅, 名称"]


def test_column_overrides(tmp_path, expected):
    write_text(
        tmp_path / "a.csv", long_frame().rename({"code": "Wertpapier", "close": "Schluss", "date": "Tag"})
    )
    options = replace(CN, columns=("Wertpapier=symbol", "Schluss=close", "Tag=date"))
    same(read(tmp_path / "a.csv", options), expected)


def test_coin_files_named_by_interval(tmp_path):
    hours = pl.datetime_range(datetime(2024, 1, 1), datetime(2024, 1, 1, 5), "1h", eager=True)
    frame = bars(6).drop("date").with_columns(timestamp=hours.dt.epoch("ms"))
    for name in ("BTC_USDT.csv", "ETHUSDT-1h-2024-01.csv"):
        write_text(tmp_path / name, frame)
    options = ImportOptions(market="crypto", frequency="1h", tz="UTC", stamp="start")
    rows = read(tmp_path, options).rows
    assert rows["symbol"].unique(maintain_order=True).to_list() == ["BTCUSDT", "ETHUSDT"]
    assert rows["time"].head(6).to_list() == hours.to_list()
    assert set(rows["basis"]) == {"raw"}


def test_intraday_end_stamps_in_exchange_time(tmp_path):
    frame = bars(4).with_columns(
        pl.lit(days(1)[0]).alias("date"), time=pl.Series(["0935", "0940", "0945", "1500"])
    )
    write_text(tmp_path / "SH#600519.csv", frame)
    options = replace(CN, frequency="5m", tz="Asia/Shanghai", stamp="end")
    assert read(tmp_path, options).rows["time"].to_list() == [
        datetime(2024, 1, 2, 1, 30), datetime(2024, 1, 2, 1, 35), datetime(2024, 1, 2, 1, 40),
        datetime(2024, 1, 2, 6, 55),
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"--tz .* --stamp"):
        read(tmp_path, replace(CN, frequency="5m"))


def test_many_files_give_the_same_as_one(tmp_path, expected):
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    write_text(tmp_path / "one" / "a.csv", long_frame())
    for code, frame in MARKET.items():
        for start in range(0, 6, 2):  # pieces of history in several files
            write_text(tmp_path / "many" / f"{code}_{start}.csv", frame[start : start + 2])
    same(read(tmp_path / "many", CN), expected)
    same(read(tmp_path / "one", CN), expected)


def test_several_paths(tmp_path, expected):
    for code, frame in MARKET.items():
        write_text(tmp_path / f"{code}.csv", frame)
    source = FileSource(tuple(tmp_path / f"{code}.csv" for code in MARKET))
    same(read(source, CN), expected)


def test_float32_is_read_as_the_decimal_it_prints(tmp_path):
    frame = bars(6, 9.19).with_columns(pl.col("open", "high", "low", "close").cast(pl.Float32))
    frame.write_parquet(tmp_path / "600519.parquet")
    rows = read(tmp_path, CN).rows
    assert rows["close"].to_list() == bars(6, 9.19)["close"].to_list()
    tiny = frame.with_columns(pl.lit(0.0000123, pl.Float32).alias("close"))
    assert read(FrameSource.of({"600519": tiny}), CN).rows["close"][0] == float(tiny["close"][0])
