"""A first import owns only what it made itself."""

import shutil

import pytest

from barcast.core.errors import DataError, ResourceError, StoreError, SymbolError, UsageError
from barcast.pipeline.data import export_data, import_data
from barcast.sources import ImportOptions
from barcast.store import MarketStore
from tests.sources.builders import bars

CN = ImportOptions(market="cn", basis="adjusted", volume_unit="share")


def write_input(folder):
    folder.mkdir(parents=True)
    for code in ("600519", "000001"):
        bars(20).rename({"date": "日期", "close": "收盘"}).write_csv(folder / f"{code}.csv")
    return folder


@pytest.mark.parametrize("name", ["bars", "status", "conflicts", "failures", "staging"])
def test_files_where_the_store_would_go_are_neither_read_nor_removed(tmp_path, name):
    folder = write_input(tmp_path / "market" / name)
    with pytest.raises(StoreError, match=f"other files are: .*{name}"):
        import_data(tmp_path, folder, CN)
    assert sorted(p.name for p in folder.iterdir()) == ["000001.csv", "600519.csv"]
    assert not (tmp_path / "market" / "importing.json").exists()


def test_csv_files_in_the_market_folder_itself_can_be_imported(tmp_path):
    folder = write_input(tmp_path / "market")
    assert import_data(tmp_path, folder, CN).num_rows == 40
    assert (folder / "600519.csv").exists()


def test_a_store_that_lost_its_description_is_kept(tmp_path):
    given = write_input(tmp_path / "in")
    import_data(tmp_path, given, CN)
    description = tmp_path / "market" / "store.json"
    text = description.read_text()
    description.unlink()
    for again in (lambda: import_data(tmp_path, given, CN), lambda: MarketStore.open(tmp_path / "market")):
        with pytest.raises(StoreError, match=r"store\.json is gone"):
            again()
    description.write_text(text)
    assert MarketStore.open(tmp_path / "market").frame().height == 40


def test_a_first_import_that_failed_leaves_what_came_later(tmp_path, monkeypatch):
    given = write_input(tmp_path / "in")
    (tmp_path / "empty.csv").write_text("hello\n")
    with pytest.raises(DataError):
        import_data(tmp_path, tmp_path / "empty.csv", CN)
    theirs = tmp_path / "market" / "bars" / "mine.csv"
    theirs.parent.mkdir()
    theirs.write_text("kept")

    def killed(*_, **__):
        raise ResourceError("no space left")

    with monkeypatch.context() as patch, pytest.raises(ResourceError):
        patch.setattr(
            "barcast.store.meta.StoreMeta.write", killed
        )  # after the version, before the description
        import_data(tmp_path, given, CN)
    assert (tmp_path / "market" / "bars" / "_delta_log").is_dir()
    assert import_data(tmp_path, given, CN).version == 0
    assert theirs.read_text() == "kept"
    assert not (tmp_path / "market" / "importing.json").exists()


def test_a_mark_that_outlived_the_import_is_worth_nothing(tmp_path):
    given = write_input(tmp_path / "in")
    import_data(tmp_path, given, CN)
    mark, description = (tmp_path / "market" / name for name in ("importing.json", "store.json"))
    mark.write_text("{}")
    import_data(tmp_path, given, CN)
    assert not mark.exists()
    description.unlink()
    with pytest.raises(StoreError, match="is gone"):
        import_data(tmp_path, given, CN)


def test_an_export_replaces_no_folder(tmp_path, monkeypatch):
    import_data(tmp_path, write_input(tmp_path / "in"), CN)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    monkeypatch.chdir(mine)
    for target in (mine, "."):
        with pytest.raises(UsageError, match="no empty folder"):
            export_data(tmp_path, type(mine)(target), per_symbol=True)
        with pytest.raises(UsageError, match="is a folder"):
            export_data(tmp_path, type(mine)(target))
    assert (mine / "thesis.txt").read_text() == "years of work"
    shutil.rmtree(mine)
    mine.mkdir()
    done = export_data(tmp_path, mine, per_symbol=True, form="csv", symbols=["sh600519", "1"])
    assert done.num_symbols == 2
    assert sorted(p.name for p in mine.iterdir()) == ["000001.SZ.csv", "600519.SH.csv"]
    with pytest.raises(SymbolError, match=r"600518.*did you mean 600519\.SH"):
        export_data(tmp_path, tmp_path / "x.csv", form="csv", symbols=["600518"])


def test_a_name_the_table_cannot_write_to_is_refused_before_anything_is_written(tmp_path):
    from barcast.pipeline.data import import_data
    from barcast.sources.options import ImportOptions

    (tmp_path / "AAPL.csv").write_text("Date,Open,High,Low,Close,Volume\n2024-01-31,1,1,1,1,5\n")
    with pytest.raises(StoreError, match="a store cannot live in"):
        import_data(tmp_path / "b[r]", [tmp_path / "AAPL.csv"], ImportOptions(market="us", basis="raw"))
