import multiprocessing
from datetime import datetime

import pytest

from barcast.core.errors import DataError
from barcast.evaluation import sealed


def test_openings_are_counted_per_data_and_label(tmp_path):
    seal = sealed.TestSeal(tmp_path / "new" / sealed.FILE_NAME)
    assert seal.count("data", "label") == 0
    assert not seal.path.exists()  # asking is not looking
    first = seal.open("data", "label", "run-a")
    second = seal.open("data", "label", "run-b")
    assert (first.count, second.count) == (1, 2)
    assert seal.open("data", "other", "run-a").count == 1
    assert seal.open("newer", "label", "run-a").count == 1
    history = sealed.TestSeal(seal.path).history("data", "label")
    assert history == (first, second)
    assert [look.run for look in history] == ["run-a", "run-b"]
    assert datetime.fromisoformat(first.time).utcoffset().total_seconds() == 0


def _look(path, times):
    for _ in range(times):
        sealed.TestSeal(path).open("data", "label", "run")


def test_looks_of_many_processes_are_all_counted(tmp_path):
    path = tmp_path / sealed.FILE_NAME
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_look, args=(path, 10)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sealed.TestSeal(path).count("data", "label") == 40


def test_a_failed_write_counts_nothing_and_leaves_the_file_whole(tmp_path, monkeypatch):
    seal = sealed.TestSeal(tmp_path / sealed.FILE_NAME)
    seal.open("data", "label", "run")

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sealed, "write_json", full)
    with pytest.raises(Exception, match="no space left"):
        seal.open("data", "label", "run")
    assert seal.count("data", "label") == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"data/label": [{"when": 1}]}', '{"data/label": 3}'])
def test_a_damaged_file_is_an_error_never_a_fresh_count(tmp_path, text):
    seal = sealed.TestSeal(tmp_path / sealed.FILE_NAME)
    seal.path.write_text(text)
    with pytest.raises(DataError, match="damaged"):
        seal.count("data", "label")
    with pytest.raises(DataError, match="damaged"):
        seal.open("data", "label", "run")
    assert seal.path.read_text() == text
