import gzip

import pytest

from barcast.core.errors import DataError, UsageError
from barcast.sources.headers import ROLES, basis_word, read_header
from barcast.sources.text import decode, parse_text_table, read_text_table

PLAIN = "日期,开盘,收盘,最高,最低,成交量\n2024-01-02,1,2,3,0.5,100\n"
TDX = (
    "000001 平安银行 日线 前复权\r\n"
    "      日期\t    开盘\t    最高\t    最低\t    收盘\t    成交量\t    成交额\r\n"
    "2024/01/02\t9.39\t9.42\t9.16\t9.19\t53938632\t498695109.00\r\n"
    "2024/01/03\t9.19\t9.22\t9.15\t9.20\t53938632\t498695109.00\r\n"
    "数据来源:通达信\r\n"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16"])
def test_encodings_are_found(encoding):
    table = parse_text_table(PLAIN.encode(encoding))
    assert set(table.header.roles) == {"date", "open", "high", "low", "close", "volume"}
    assert table.frame["收盘"].to_list() == ["2"]


def test_gzip(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(PLAIN.encode("gbk")))
    assert len(read_text_table(path).frame) == 1


def test_bytes_that_are_no_text():
    with pytest.raises(DataError, match="neither UTF-8 nor GB18030"):
        decode(b"\x80\x81\xff\xff")
    with pytest.raises(UsageError, match="unknown encoding"):
        decode(b"a", "klingon")
    with pytest.raises(DataError, match="not ascii"):
        decode("日".encode(), "ascii")


def test_tdx_export_loses_title_and_footer():
    table = parse_text_table(TDX.encode("gbk"))
    assert (table.title, table.footers, table.first_line) == ("000001 平安银行 日线 前复权", 1, 3)
    assert table.frame["日期"].to_list() == ["2024/01/02", "2024/01/03"]
    assert table.header.roles["amount"] == "成交额"
    assert basis_word(table.title) == "adjusted"


@pytest.mark.parametrize("separator", [",", "\t", ";", "|", " ", "   "])
def test_separators(separator):
    text = PLAIN.replace(",", separator)
    assert parse_text_table(text.encode()).frame.height == 1
    assert parse_text_table(text.encode()).header.roles["low"] == "最低"


def test_line_numbers_survive_blank_lines():
    table = parse_text_table(("note\n" + PLAIN + "\n\n2024-01-03,1,2,3,0.5,100\n").encode())
    line = table.first_line + table.frame["日期"].to_list().index("2024-01-03")
    assert (("note\n" + PLAIN + "\n\n2024-01-03,1,2,3,0.5,100\n").splitlines()[line - 1]).startswith(
        "2024-01-03"
    )


def test_quoted_cells_may_hold_commas():
    table = parse_text_table(b'Date,Open,High,Low,Close,Volume\n2024-01-02,1,3,1,2,"1,000"\n')
    assert (table.frame["Volume"].to_list(), table.misfits) == (["1,000"], ())


def test_old_line_ends_and_blanks_before_new_ones():
    plain = parse_text_table(b"Date Open High Low Close\n2024-01-02 1 3 1 2\n").frame.rows()
    assert parse_text_table(b"Date,Open,High,Low,Close\r2024-01-02,1,3,1,2\r").frame.rows() == plain
    assert parse_text_table(b"a\rtitle\nDate,Open,High,Low,Close\r\n2024-01-02,1,3,1,2").frame.rows() == plain
    assert parse_text_table(b"Date Open High Low Close \r\n2024-01-02 1 3 1 2 \r\n").frame.rows() == plain


@pytest.mark.parametrize(("data", "why"), [(b"", "empty"), (b" \n\n", "empty"), (b"hello\nworld\n", "hello")])
def test_files_without_columns(data, why):
    with pytest.raises(DataError, match=why):
        parse_text_table(data)


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        ("Ticker Date Open High Low Close Volume Adj_Close", {"symbol", "date", "adj_close"}),
        ("股票代码 名称 交易日期 开盘价 收盘价 最高价 最低价 成交量(手) 成交额(千元) 涨跌幅 前收盘 复权因子",
         {"symbol", "date", "volume", "amount", "factor"}),
        ("ts_code trade_date open high low close pre_close vol amount", {"symbol", "date", "volume"}),
        ("open_time open high low close volume quote_asset_volume", {"stamp", "amount"}),
        ("date time code open high low close volume", {"date", "clock", "symbol"}),
    ],
)  # fmt: skip
def test_headers_of_well_known_exports(names, roles):
    header = read_header(names.split())
    assert header.has_bars
    assert roles <= set(header.roles)
    assert not {"涨跌幅", "前收盘", "pre_close", "名称"} & set(header.roles.values())


def test_units_and_basis_in_brackets_count_as_said():
    header = read_header(
        ["日期", "开盘(前复权)", "最高", "最低", "收盘（前复权）", "成交量(手)", "成交额(万元)"]
    )
    assert (header.volume_scale, header.amount_scale, header.basis) == (100, 10_000, "adjusted")
    assert read_header(["日期", "收盘价(不复权)", "总手"]).basis == "raw"
    wide = read_header(["ｄａｔｅ", "Ｃｌｏｓｅ（不复权）", "成交量（手）"])
    assert (set(wide.roles), wide.basis, wide.volume_scale) == ({"date", "close", "volume"}, "raw", 100)
    assert read_header(["日期", "收盘", "总手"]).volume_scale == 100
    assert read_header(["date", "close", "volume"]).volume_scale is None


def test_two_columns_for_one_role_are_not_chosen_silently():
    names = ["date", "Open", "open", "high", "low", "close"]
    with pytest.raises(DataError, match="`Open` and `open` both look like open"):
        read_header(names)
    header = read_header(names, ["open=open"])
    assert header.roles["open"] == "open"
    assert header.ignored == ("Open",)


def test_overrides():
    assert read_header(["Tag", "Schluss"], ["Schluss=close", "Tag=date"]).has_bars
    with pytest.raises(UsageError, match="unknown role `price`"):
        read_header(["a"], ["a=price"])
    assert "close" in ROLES
