import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barcast.core.errors import SymbolError, UsageError
from barcast.core.symbols import check_collisions, describe_prefixes, read_symbol, read_symbols


@pytest.mark.parametrize(
    ("spelling", "symbol"),
    [
        ("600519", "600519.SH"), ("sh.600519", "600519.SH"), ("SH600519", "600519.SH"),
        ("sh600519", "600519.SH"),
        ("600519.SS", "600519.SH"), ("600519.XSHG", "600519.SH"), ("600519.sh", "600519.SH"),
        ("SH#600519", "600519.SH"), ("000001", "000001.SZ"), ("1", "000001.SZ"), ("1.0", "000001.SZ"),
        ("SH000001", "000001.SH"), ("000001.XSHE", "000001.SZ"),
        ("300750", "300750.SZ"), ("688981", "688981.SH"), ("830799", "830799.BJ"), ("920819", "920819.BJ"),
        ("900901", "900901.SH"), ("200002", "200002.SZ"), ("510300", "510300.SH"), ("159915", "159915.SZ"),
        ("399001", "399001.SZ"), ("113050", "113050.SH"), ("128095", "128095.SZ"), (" 600519 ", "600519.SH"),
    ],
)  # fmt: skip
def test_a_share_spellings(spelling, symbol):
    assert read_symbol(spelling, "cn").symbol == symbol


@pytest.mark.parametrize(
    ("market", "spelling", "symbol"),
    [
        ("us", "aapl", "AAPL"), ("us", "BRK.B", "BRK-B"), ("us", "BRK-B", "BRK-B"), ("us", "BRK/B", "BRK-B"),
        ("us", "aapl.us", "AAPL"), ("us", "^GSPC", "^GSPC"), ("crypto", "BTC/USDT", "BTCUSDT"),
        ("crypto", "btc-usdt", "BTCUSDT"), ("crypto", "BTC_USDT", "BTCUSDT"),
        ("other", "600519", "600519"), ("other", "0700.HK", "0700.HK"), ("us", "600519", "600519"),
    ],
)  # fmt: skip
def test_other_markets(market, spelling, symbol):
    assert read_symbol(spelling, market).symbol == symbol


@pytest.mark.parametrize(
    ("market", "spelling"),
    [
        ("cn", "AAPL"),
        ("cn", "700001"),
        ("cn", "600519.HK"),
        ("cn", ""),
        ("us", ""),
        ("us", "平安"),
        ("us", "A B*"),
    ],
)
def test_unreadable_symbols_are_named(market, spelling):
    with pytest.raises(SymbolError) as caught:
        read_symbol(spelling, market)
    assert f"`{spelling}`" in caught.value.found


def test_full_width_spellings():
    assert read_symbol("６００５１９．ＳＨ", "cn").symbol == "600519.SH"
    assert read_symbol("ａａｐｌ", "us").symbol == "AAPL"


def test_unknown_market():
    with pytest.raises(UsageError, match="unknown market"):
        read_symbol("A", "mars")


def test_canonical_names_read_as_themselves():
    for market, symbols in {"cn": ["600519.SH", "000001.SZ"], "us": ["BRK-B"], "crypto": ["BTCUSDT"]}.items():
        assert [read_symbol(s, market).symbol for s in symbols] == symbols


@given(st.integers(0, 999999))
def test_lost_zeros_do_not_change_the_code(code):
    readings, reasons = read_symbols([str(code), f"{code:06d}"], "cn")
    assert (len(readings) == 0) == (str(code) in reasons)
    assert len({reading.symbol for reading in readings.values()}) <= 1


@given(st.text(string.printable, max_size=12))
def test_any_text_is_read_or_refused(text):
    for market in ("cn", "us", "crypto", "other"):
        readings, reasons = read_symbols([text], market)
        assert (text in readings) != (text in reasons)
        for reading in readings.values():  # what was read reads as itself
            assert read_symbol(reading.symbol, market).symbol == reading.symbol


def test_bare_code_beside_an_index_is_refused():
    readings, _ = read_symbols(["000001", "SH000001", "600519"], "cn")
    with pytest.raises(SymbolError, match=r"000001.*SH000001"):
        check_collisions(readings)


def test_bare_code_is_settled_by_the_store():
    readings, _ = read_symbols(["000001"], "cn")
    with pytest.raises(SymbolError):
        check_collisions(readings, stored=["000001.SH"])
    check_collisions(readings, stored=["000001.SZ", "000001.SH"])
    check_collisions(read_symbols(["000001.SZ", "SH000001"], "cn")[0])


def test_prefixes_are_echoed():
    readings, _ = read_symbols(["600519", "000001", "SZ000002"], "cn")
    lines = describe_prefixes(readings)
    assert len(lines) == 2
    assert "600519 -> 600519.SH" in lines[0]
    assert "1 bare codes" in lines[1]
