import csv
import gzip
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.errors import DataError
from barcast.sources import cells
from barcast.sources.base import num_failures
from barcast.sources.text import parse_text_table
from tests.sources.builders import CN, read

HEAD = "date,open,high,low,close,volume"
GOOD = "2024-01-02,10,11,9,10.5,1000"
LAST = "2024-01-05,10,11,9,10.7,3000"
TOO_MANY = "8 cells where the header has 6; a comma inside a number needs quotes"
TOO_FEW = "4 cells where the header has 6; is the line cut off?"


def written(tmp_path, *lines, name="AAA.csv", end="\n", encoding="utf-8"):
    path = tmp_path / name
    data = end.join([*lines, ""]).encode(encoding)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def told(history):
    return history.failures.select("kind", "line", "symbol", "value", "reason").rows()


def volumes(history):
    return dict(zip(history.rows["time"].dt.day(), history.rows["volume"], strict=True))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "encoding"), [("AAA.csv", "utf-8"), ("AAA.csv", "utf-8-sig"), ("AAA.csv.gz", "utf-16")]
)
def test_rows_that_do_not_fit_are_named_and_left_out(tmp_path, end, name, encoding):
    many, few = "2024-01-03,10.2,11,9,10.5,1,234,567", "2024-01-04,10,11,9"
    path = written(
        tmp_path, "a title", HEAD, GOOD, many, "", few, LAST, name=name, end=end, encoding=encoding
    )
    history = read(path)
    assert volumes(history) == {2: 1000, 5: 3000}
    assert told(history) == [
        ("cells", 4, "AAA", many, TOO_MANY),
        ("cells", 6, "AAA", few, TOO_FEW),
    ]
    assert set(history.failures["file"]) == {str(path)}


def test_unquoted_thousands_in_every_price(tmp_path):
    row = "2024-01-04,1,010,1,015,1,005,1,010,1000"
    history = read(written(tmp_path, HEAD, GOOD, row))
    assert volumes(history) == {2: 1000}
    assert history.failures["reason"].to_list() == [TOO_MANY.replace("8", "10")]


def test_a_symbol_keeps_its_rows_in_chinese_files_too(tmp_path):
    rows = (
        "日期\t开盘\t最高\t最低\t收盘\t成交量",
        "2024/01/02\t1\t2\t1\t2\t100",
        "2024/01/03\t1\t2\t1\t2\t1\t000",
    )
    title, footer = "600519 贵州茅台 日线 前复权", "数据来源:通达信"
    path = written(tmp_path, title, *rows, footer, name="SH#600519.txt", end="\r\n", encoding="gbk")
    history = read(path, CN)
    assert len(history.rows) == 1
    ((kind, line, _, _, reason),) = told(history)
    assert (kind, line, reason) == ("cells", 4, "7 cells where the header has 6")


@pytest.mark.parametrize("tail", [",", ", ", ",,"])
@pytest.mark.parametrize("head", [HEAD, HEAD + ","])
def test_empty_cells_behind_the_last_column_do_no_harm(head, tail):
    lines = [head, GOOD + tail, "2024-01-03,10,11,9,10.6," + tail, LAST]
    table = parse_text_table("\n".join(lines).encode())
    assert table.misfits == ()
    assert table.frame["volume"].to_list() == ["1000", None, "3000"]


@pytest.mark.parametrize(
    "row", [GOOD + ",", GOOD.replace("1000", "1,000"), GOOD.replace("1000", "1,000") + ","]
)
def test_a_header_that_ends_in_a_comma_hides_nothing(row):
    table = parse_text_table("\n".join([HEAD + ",", row, LAST + ","]).encode())
    assert table.frame["volume"].to_list() == (["1000", "3000"] if row == GOOD + "," else [None, "3000"])
    assert [misfit.reason[:32] for misfit in table.misfits] == (
        [] if row == GOOD + "," else ["7 cells where the header has 6; "]
    )


def test_a_comma_at_the_end_of_the_file_does_not_make_up_for_a_short_row():
    lines = [HEAD, "2024-01-03,10,11,9,10.6", LAST + ","]
    assert [misfit.line for misfit in parse_text_table("\n".join(lines).encode()).misfits] == [2]
    lines = [HEAD, ",,,,,,,", "2024-01-03,10,11,9,10.6", LAST]
    assert [misfit.line for misfit in parse_text_table("\n".join(lines).encode()).misfits] == [3]


def test_a_quoted_comma_does_not_make_up_for_a_short_row():
    lines = ["name," + HEAD, '"Doe, Sons",2024-01-03,10,11,9,10.6', "z," + LAST]
    assert [misfit.line for misfit in parse_text_table("\n".join(lines).encode()).misfits] == [2]


def test_empty_cells_and_lines_are_no_misfits(tmp_path):
    """Missing values are cells; lines of blanks and commas only are empty lines."""
    empty = ("", "  ", ",,", ",,,,,,,", "\t")
    history = read(written(tmp_path, HEAD, GOOD, "2024-01-03,10,11,9,10.5,", *empty, LAST))
    assert history.failures.is_empty()
    assert volumes(history) == {2: 1000, 3: None, 5: 3000}


def test_quoted_cells_count_as_one(tmp_path):
    head = "name," + HEAD
    rows = [
        '"Doe, ""J""\nand Sons",' + GOOD.replace("1000", '"1,000"'),
        '"x\ny",2024-01-03,1,2,1',
        "z," + LAST,
    ]
    history = read(written(tmp_path, head, *rows))
    assert volumes(history) == {2: 1000, 5: 3000}
    assert [(row[1], row[3], row[4][:7]) for row in told(history)] == [
        (4, '"x y",2024-01-03,1,2,1', "5 cells")
    ]


def test_lines_after_a_misfit_of_several_lines_keep_their_numbers(tmp_path):
    history = read(
        written(tmp_path, "name," + HEAD, '"x\ny",2024-01-03,1,2,1', "z," + LAST.replace("9", "nine"))
    )
    assert history.failures.select("kind", "line").rows() == [("cells", 2), ("value", 4)]


def test_quotes_that_never_close_name_their_row(tmp_path):
    with pytest.raises(DataError, match=r"not readable as separated columns: the row of line 3: "):
        parse_text_table(f'{HEAD}\n{GOOD}\n2024-01-03,"10,11,9,10,1\n{LAST}\n'.encode())
    written(tmp_path, HEAD, GOOD, '2024-01-03,"10,11,9,10,1', LAST)
    written(tmp_path, HEAD, GOOD, name="BBB.csv")
    history = read(tmp_path)
    assert history.rows["symbol"].to_list() == ["BBB"]
    assert history.failures.select("kind", "line").rows() == [("file", None)]


def test_a_file_of_misfits_only_is_not_called_empty(tmp_path):
    written(tmp_path, HEAD, GOOD + ",1", LAST + ",1")
    written(tmp_path, HEAD, GOOD, name="BBB.csv")
    history = read(tmp_path)
    assert history.rows["symbol"].to_list() == ["BBB"]
    assert history.failures.select("kind", "line").rows() == [("cells", 2), ("cells", 3)]


def test_a_header_that_lacks_prices_is_told_once(tmp_path):
    history = read(written(tmp_path, "date,open,close", GOOD, LAST))
    ((kind, line, *_, reason),) = told(history)
    assert (kind, line, reason[:13]) == ("columns", None, "no column for")


@pytest.mark.parametrize("num", [4, 5, 6, 40])
def test_misfits_beyond_the_listed_ones_are_counted_and_not_held(tmp_path, monkeypatch, num):
    monkeypatch.setattr(cells, "_LISTED", 4)
    bad = GOOD.replace("1000", "1,000")
    path = written(tmp_path, HEAD, GOOD, *[bad] * num, LAST, bad if num == 40 else "")
    history, num = read(path), num + (num == 40)
    listed = min(num, 4 if num > 5 else 5)  # one more row takes the place of its own count
    assert volumes(history) == {2: 1000, 5: 3000}
    rows = history.failures.select("kind", "line", "symbol", "column").rows()
    assert rows[:listed] == [("cells", 3 + i, "AAA", "row") for i in range(listed)]
    assert rows[listed:] == ([("more", 7, "AAA", "rows")] if num > 5 else [])
    assert num_failures(history.failures) == num
    if num > 5:
        rest = f"{num - 4} rows more like these, from this line on"
        assert history.failures.select("value", "reason").row(-1) == (str(num - 4), rest)


def test_a_file_of_misfits_only_is_bounded(tmp_path):
    path = written(tmp_path, HEAD, *["2024-01-03,1,010,1,015,1,005,1,010,1000"] * 20_000)
    written(tmp_path, HEAD, GOOD, name="BBB.csv")
    table = parse_text_table(path.read_bytes())
    assert (len(table.misfits), table.frame.height) == (1001, 20_000)
    assert table.misfits[-1] == cells.Misfit(
        1002, "", "19,000 rows more like these, from this line on", 19_000
    )
    history = read(tmp_path)
    assert history.rows["symbol"].to_list() == ["BBB"]
    assert (len(history.failures), num_failures(history.failures)) == (1001, 20_000)


STRAY = '"Acme" Holdings,2024-01-04,10,11,9,10.5,500'


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_that_enclose_no_cell_cost_their_row_only(tmp_path, end):
    head, good, last = "name," + HEAD, '5" or 6",' + GOOD, '"z ""Z"", Sons",' + LAST
    short, broken, odd = (
        "b,2024-01-03,10",
        '"x\ny" z,2024-01-08,1,2,1,2,1',
        '5" pipe,' + GOOD.replace("1000", "7"),
    )
    for lines in ([STRAY], [odd], [odd, odd], [broken], [short, STRAY, broken, odd, last, STRAY]):
        history = read(written(tmp_path, head, good, *lines, last, end=end))
        assert volumes(history) == {2: 1000, 5: 3000}
        assert len(history.failures) == len([line for line in lines if line != last])
    what = "quotes that do not enclose a whole cell"
    assert [(row[1], row[4].split(";")[0]) for row in told(history)] == [
        (3, "3 cells where the header has 7"),
        (4, what),
        (5, what + " in lines 5 to 6"),
        (7, what),
        (9, what),
    ]
    with pytest.raises(DataError, match=r"the row of line 5: "):  # here nothing says where rows end
        parse_text_table(end.join([head, good, short, STRAY, '"x' + GOOD, last.replace('"', "")]).encode())
    for lines in ([good, last], [good, short, last], []):
        with pytest.raises(DataError, match=r"the row of line 1: "):
            parse_text_table(end.join([HEAD + ',"name', *lines]).encode())
    for lines in ([good, last], [good, short, last]):
        table = parse_text_table(end.join(['"na"me,' + HEAD, *lines]).encode())
        assert table.frame["volume"].drop_nulls().to_list() == ["1000", "3000"]


@pytest.mark.parametrize("head", [HEAD, '"' + HEAD.replace(",", '","') + '"'])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_without_misfits_are_never_counted_row_by_row(monkeypatch, head, end):
    """Speed: only files where columns cannot tell are read line by line."""
    monkeypatch.setattr(cells, "_without_misfits", None)
    missing = "2024-01-03,10,11,9,10.5,"
    quoted = parse_text_table(end.join([head, '"",,,,,', "", '"2024-01-03",10,11,9,"10.5",', LAST]).encode())
    assert quoted.frame["close"].to_list() == [None, None, "10.5", "10.7"]
    for last in (GOOD, missing, '2024-01-03,10,11,9,10.5,"1,000"'):
        assert parse_text_table(end.join([head, GOOD, last, LAST, ""]).encode()).frame.height == 3
    assert parse_text_table(end.join([head + ",", GOOD + ",", LAST + ",", ""]).encode()).frame.height == 2
    for lines in (["", missing], ["", "", missing, "", GOOD], [GOOD, "", "", "", missing]):
        table = parse_text_table(end.join([head, *lines, LAST]).encode())
        assert table.frame["volume"].to_list()[-1] == "3000"
        assert (table.frame.height, table.misfits) == (len(lines) + 1, ())


def test_empty_lines_do_not_make_up_for_short_rows():
    short = "2024-01-03,10,11,9,10.5"
    for lines in (["", short], [",", short], [short, "", "", ",,,,"], ["", short + ",", "", short, GOOD]):
        table = parse_text_table("\n".join([HEAD, *lines, LAST]).encode())
        assert [misfit.line for misfit in table.misfits] == [lines.index(short) + 2]
        assert table.frame.height == len(lines) + 1


def test_rows_that_fit_the_header_are_split_once(monkeypatch):
    """Speed: a longer header is tried only where a row has more cells than the header."""
    calls, split = [], cells._split
    monkeypatch.setattr(cells, "_split", lambda *args, **how: calls.append(how) or split(*args, **how))
    for lines, num in (([GOOD], 1), (["2024-01-03,10,11,9,10.5,", LAST], 1), (["2024-01-03,10", LAST], 2)):
        calls.clear()
        parse_text_table("\n".join([HEAD, *lines]).encode())
        assert len(calls) == num, lines


def test_a_text_is_encoded_block_by_block(monkeypatch):
    monkeypatch.setattr(cells, "_BLOCK", 7)
    for row in ("", GOOD + ",1"):
        text = "\n".join([HEAD + ",名称", GOOD + ",中国平安😀", row, LAST + ",贵州茅台"])
        for tail in ("", ","):
            frame, misfits = cells.read_cells(
                text.replace("安😀", "安😀" + tail), ",", [*HEAD.split(","), "名称"]
            )
            assert frame["名称"].drop_nulls().to_list() == (
                ["中国平安😀", "1", "贵州茅台"] if row else ["中国平安😀", "贵州茅台"]
            )
            assert misfits == ()


_PLAIN = st.sampled_from(["", "1", "a", " "])
_CELL = _PLAIN | st.text(st.sampled_from('a1,. "\n'), max_size=3)
_ROW = st.lists(_PLAIN, min_size=5, max_size=7) | st.lists(_CELL, max_size=8)
_FULL = st.lists(_PLAIN, min_size=6, max_size=6) | st.just([])  # as ordinary files have them
_ROWS = st.lists(_ROW, max_size=4) | st.lists(_FULL, max_size=6)
_QUOTING = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
_HEADS = st.sampled_from([HEAD, '"' + HEAD.replace(",", '","') + '"'])


@settings(max_examples=600, deadline=None)
@given(
    rows=_ROWS,
    head=_HEADS,
    quoting=_QUOTING,
    tail=st.sampled_from(["", ","]),
    end=st.sampled_from(["\n", "\r\n"]),
    block=st.sampled_from([3, 1 << 22]),
)
def test_every_row_is_judged_as_by_the_csv_module(rows, head, quoting, tail, end, block):
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=quoting, lineterminator=end)
    file.write(head + tail + end)
    for row in rows:
        writer.writerow(row)
    body = file.getvalue() + LAST
    lines, kept, reader = [], [], csv.reader(io.StringIO(body, newline=""))
    next(reader)
    line = reader.line_num + 1
    for row in reader:
        padded = [*row, *[""] * 6]
        if any(cell.strip() for cell in row):
            if len(row) < 6 or any(cell.strip() for cell in row[6:]):
                lines.append(line)
            else:
                kept.append(padded[:6])
        line = reader.line_num + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_BLOCK", block)
        frame, misfits = cells.read_cells(body, ",", [*HEAD.split(","), *[""] * len(tail)], 1)
    assert [misfit.line for misfit in misfits] == lines
    found = [["" if cell is None else cell for cell in row[:6]] for row in frame.rows()]
    assert [row for row in found if any(cell.strip() for cell in row)] == kept


_ASTRAY = st.sampled_from(['"a" b,1,2,3,4,5', 'x"y,1,2,3,4,5', '"",1,"2"",3",4 "x",""5', '1,"a\nb"c,2,3,4,5'])


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(_ROW | _FULL | _ASTRAY, max_size=5), end=st.sampled_from(["\n", "\r\n"]))
def test_quotes_astray_take_no_other_row_with_them(rows, end):
    body, kept, bad = HEAD + end, [], []
    for row in rows:
        if isinstance(row, str):
            piece = row.replace("\n", end) + end
        else:
            file = io.StringIO(newline="")
            csv.writer(file, lineterminator=end).writerow(row)
            piece = file.getvalue()
        filled = any(cell.strip() for cell in row)
        if isinstance(row, str) or (filled and (len(row) < 6 or any(cell.strip() for cell in row[6:]))):
            bad.append(body.count("\n") + 1)
        elif filled:
            kept.append(row[:6])
        body += piece
    frame, misfits = cells.read_cells(body + LAST, ",", HEAD.split(","))
    assert [misfit.line for misfit in misfits] == bad
    found = [["" if cell is None else cell for cell in row] for row in frame.rows()]
    assert [row for row in found if any(cell.strip() for cell in row)] == [*kept, LAST.split(",")]
