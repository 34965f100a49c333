import dataclasses
import multiprocessing
from datetime import datetime

import pytest

from barcast.core.errors import DataError
from barcast.evaluation import sealed

TEST = sealed.SealedTest(
    data_key="data", label_key="label", market="us 1d XNYS", horizons=(5,), delay=1,
    first="2022-01-03", last="2022-12-30",
)  # fmt: skip


def test_openings_are_counted_per_data_and_label(tmp_path):
    seal = sealed.TestSeal(tmp_path / "new" / sealed.FILE_NAME)
    assert seal.count(TEST) == sealed.Openings(0, 0)
    assert not seal.path.exists()  # asking is not looking
    first = seal.open(TEST, "run-a")
    second = seal.open(TEST, "run-b")
    assert seal.count(TEST) == sealed.Openings(2, 0)
    history = sealed.TestSeal(seal.path).history(TEST)
    assert history == (first, second)
    assert [look.run for look in history] == ["run-a", "run-b"]
    assert datetime.fromisoformat(first.time).utcoffset().total_seconds() == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (3, 2)),  # one more session, another --limit, another mask: other rows, the same dates
        ({"first": "2022-12-30", "last": "2023-12-29"}, (3, 2)),  # one shared session
        ({"horizons": (1, 5)}, (3, 2)),
        ({"first": "2023-01-03", "last": "2023-12-29"}, (1, 0)),
        ({"horizons": (20,)}, (1, 0)),
        ({"delay": 0}, (1, 0)),
        ({"market": "cn 1d XSHG"}, (1, 0)),
    ],
)
def test_a_test_opened_on_other_rows_of_the_same_dates_is_no_new_test(tmp_path, change, expected):
    seal = sealed.TestSeal(tmp_path / sealed.FILE_NAME)
    seal.open(TEST, "run-a")
    seal.open(TEST, "run-b")
    newer = dataclasses.replace(TEST, data_key="newer", **change)
    seal.open(newer, "run-a")
    assert seal.count(newer) == sealed.Openings(*expected)
    assert seal.history(newer)[0].run == "run-a"


def test_a_file_that_says_only_when_and_who_still_counts(tmp_path):
    seal = sealed.TestSeal(tmp_path / sealed.FILE_NAME)
    seal.path.write_text('{"data/label": [{"time": "2026-11-22T05:04:01+00:00", "run": "lstm-1@e236b29c"}]}')
    assert seal.count(TEST) == sealed.Openings(1, 0)
    seal.open(TEST, "ridge-2@aa")
    assert [look.run for look in seal.history(TEST)] == ["lstm-1@e236b29c", "ridge-2@aa"]
    assert seal.count(dataclasses.replace(TEST, data_key="newer")) == sealed.Openings(1, 1)


def _look(path, times):
    for _ in range(times):
        sealed.TestSeal(path).open(TEST, "run")


def test_looks_of_many_processes_are_all_counted(tmp_path):
    path = tmp_path / sealed.FILE_NAME
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_look, args=(path, 10)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sealed.TestSeal(path).count(TEST).total == 40


def test_a_failed_write_counts_nothing_and_leaves_the_file_whole(tmp_path, monkeypatch):
    seal = sealed.TestSeal(tmp_path / sealed.FILE_NAME)
    seal.open(TEST, "run")

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sealed, "write_json", full)
    with pytest.raises(Exception, match="no space left"):
        seal.open(TEST, "run")
    assert seal.count(TEST).total == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"data/label": [{"when": 1}]}', '{"data/label": 3}'])
def test_a_damaged_file_is_an_error_never_a_fresh_count(tmp_path, text):
    seal = sealed.TestSeal(tmp_path / sealed.FILE_NAME)
    seal.path.write_text(text)
    with pytest.raises(DataError, match="damaged"):
        seal.count(TEST)
    with pytest.raises(DataError, match="damaged"):
        seal.open(TEST, "run")
    assert seal.path.read_text() == text
