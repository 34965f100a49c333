import csv
import gzip
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.core.errors import DataError
from barcast.sources import cells
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


def test_files_without_misfits_are_never_counted_row_by_row(monkeypatch):
    """Speed: only files where columns cannot tell are read line by line."""
    monkeypatch.setattr(cells, "_without_misfits", None)
    for last in (GOOD, "2024-01-03,10,11,9,10.5,", '2024-01-03,10,11,9,10.5,"1,000"'):
        for end in ("\n", "\r\n"):
            assert parse_text_table(end.join([HEAD, GOOD, last, LAST, ""]).encode()).frame.height == 3
    assert parse_text_table(f"{HEAD},\n{GOOD},\n{LAST},\n".encode()).frame.height == 2


_PLAIN = st.sampled_from(["", "1", "a", " "])
_CELL = _PLAIN | st.text(st.sampled_from('a1,. "\n'), max_size=3)
_ROW = st.lists(_PLAIN, min_size=5, max_size=7) | st.lists(_CELL, max_size=8)
_ROWS = st.lists(_ROW, max_size=4)
_QUOTING = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])


@settings(max_examples=400, deadline=None)
@given(rows=_ROWS, quoting=_QUOTING, tail=st.sampled_from(["", ","]), end=st.sampled_from(["\n", "\r\n"]))
def test_every_row_is_judged_as_by_the_csv_module(rows, quoting, tail, end):
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=quoting, lineterminator=end)
    file.write(HEAD + tail + end)
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
    frame, misfits = cells.read_cells(body, ",", [*HEAD.split(","), *[""] * len(tail)], 1)
    assert [misfit.line for misfit in misfits] == lines
    found = [["" if cell is None else cell for cell in row[:6]] for row in frame.rows()]
    assert [row for row in found if any(cell.strip() for cell in row)] == kept
