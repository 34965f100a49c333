import json
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

import barcast
from barcast.cli.app import _run as run
from barcast.cli.data import app
from barcast.core.config import to_plain
from barcast.core.errors import DataError, ResourceError, StoreBusyError, UsageError
from barcast.core.lock import writer_lock
from barcast.core.workspace import Workspace
from barcast.pipeline.data import import_data, import_sample, plan_import, store_info, update_data
from barcast.pipeline.market import load_bars
from barcast.pipeline.settings import DataConfig
from barcast.sources import ImportOptions
from barcast.store import MarketStore
from tests.sources.builders import bars
from tests.store.builders import rows
from tests.store.test_merge import RAW, as_given, assert_same

CN = ImportOptions(market="cn", basis="adjusted", volume_unit="share")


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    for code in ("600519", "000001"):
        bars(20).rename({"date": "日期", "close": "收盘"}).write_csv(tmp_path / "in" / f"{code}.csv")
    return tmp_path / "in"


def test_import_says_what_it_did(tmp_path, folder):
    (folder / "300750.csv").write_text("日期,开盘\n")
    result = import_data(tmp_path, folder, CN)
    assert (result.num_rows, result.num_symbols, result.num_failures, result.num_files) == (40, 2, 1, 3)
    assert (result.version, result.published) == (0, True)
    assert result.failures[0]["file"].endswith("300750.csv")
    assert result.declared["basis"] == "adjusted"
    assert (result.first, result.last) == (date(2024, 1, 2), date(2024, 1, 29))
    json.dumps(to_plain(result))
    assert MarketStore.open(tmp_path / "market").failures().height == 1


def test_an_import_counts_the_rows_that_it_does_not_list(tmp_path, folder):
    bad = "2024-01-02,1,010,1,015,1,005,1,010,1000\n" * 1500
    (folder / "300750.csv").write_text("日期,open,high,low,收盘,volume\n" + bad)
    with pytest.raises(DataError, match=r"nothing could be imported \(1500 failures\)"):
        import_data(tmp_path / "other", folder / "300750.csv", CN)
    result = import_data(tmp_path, folder, CN)
    assert (result.num_rows, result.num_failures) == (40, 1500)
    store = MarketStore.open(tmp_path / "market")
    assert (store.failures().height, store.info().num_failures) == (1001, 1500)
    assert store.info().history[0].note["num_failures"] == 1500
    assert store.failures()["reason"][-1].startswith("500 rows more like these")


def test_the_same_import_twice_does_nothing(tmp_path, folder):
    import_data(Workspace(tmp_path), folder, CN)
    again = import_data(tmp_path, folder, CN)
    assert (again.published, again.version) == (False, 0)
    bars(21).write_csv(folder / "600519.csv")
    with pytest.raises(UsageError, match="barcast data update"):
        import_data(tmp_path, folder, CN)
    replaced = import_data(tmp_path, folder, CN, replace_all=True)
    assert (replaced.version, replaced.num_rows) == (1, 41)
    assert MarketStore.open(tmp_path / "market").frame(version=0).height == 40


def test_a_store_keeps_its_market_and_remembers_what_was_declared(tmp_path, folder):
    import_data(tmp_path, folder, CN)
    with pytest.raises(UsageError, match="this store holds cn"):
        update_data(tmp_path, folder, ImportOptions(market="us", basis="raw"))
    with pytest.raises(UsageError, match="this store holds 1d"):
        import_data(tmp_path, folder, ImportOptions(frequency="1h"), replace_all=True)
    bars(22).write_csv(folder / "600519.csv")
    assert update_data(tmp_path, folder).changes["appended"] == 2
    assert store_info(tmp_path).declared["volume_unit"] == "share"


def test_nothing_readable_is_an_error_that_shows_the_first_reasons(tmp_path):
    (tmp_path / "a.csv").write_text("hello\n")
    with pytest.raises(DataError, match=r"nothing could be imported.*a\.csv"):
        import_data(tmp_path / "w", tmp_path / "a.csv", CN)
    assert not (tmp_path / "w" / "market" / "store.json").exists()


def test_dry_run_reads_and_writes_nothing(tmp_path, folder):
    plan = plan_import(tmp_path / "w", folder, CN)
    assert (plan.num_files, plan.looked_at[0]["rows"]) == (2, 20)
    assert plan.looked_at[0]["roles"]["close"] == "收盘"
    assert plan.looked_at[0]["symbols"] == ["000001.SZ"]
    row = plan.looked_at[0]["first_row"]
    assert (row["symbol"], row["open"], row["volume"]) == ("000001.SZ", 9.95, 1000)
    assert (plan.num_looked_at, plan_import(tmp_path / "w", folder, CN, most_files=1).num_looked_at) == (2, 1)
    assert not (tmp_path / "w").exists()


def test_parts_and_one_part_give_the_same(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    frame = rows([f"S{i}" for i in range(7)])
    for (symbol,), own in frame.partition_by("symbol", as_dict=True).items():
        as_given(own).write_csv(tmp_path / "in" / f"{symbol}.csv")
    monkeypatch.setattr("barcast.pipeline.ingest._PART_FILES", 2)
    import_data(tmp_path / "w", tmp_path / "in", RAW)
    assert_same(MarketStore.open(tmp_path / "w" / "market").frame(), frame)


def test_a_changed_file_is_read_again_after_an_interruption(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("barcast.pipeline.ingest._PART_FILES", 1)
    from barcast.pipeline import data

    def full(*_, **__):
        raise ResourceError("no space left")

    with monkeypatch.context() as patch, pytest.raises(ResourceError):
        patch.setattr(data.MarketStore, "publish", full)
        import_data(tmp_path, folder, CN)
    bars(25).write_csv(folder / "600519.csv")
    result = import_data(tmp_path, folder, CN)
    assert (result.num_resumed_files, result.num_rows) == (1, 45)


def test_other_options_do_not_take_up_staged_parts(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("barcast.pipeline.ingest._PART_FILES", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            "barcast.pipeline.ingest.assemble", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt())
        )
        import_data(tmp_path, folder, CN)
    lots = ImportOptions(market="cn", basis="adjusted", volume_unit="lot")
    assert import_data(tmp_path, folder, lots).num_resumed_files == 0
    assert MarketStore.open(tmp_path / "market").frame()["volume"][0] == 100_000


def test_status_reaches_the_bars(tmp_path, folder):
    facts = tmp_path / "status.csv"
    facts.write_text("symbol,kind,start\n1,delisted,2024-01-20\n600519,st,2024-01-05\n")
    import_data(tmp_path, folder, CN, status=facts)
    store = MarketStore.open(tmp_path / "market")
    found = store.bars()
    assert found.calendar.times[found.delisted[0]].item() == date(2024, 1, 22)
    assert found.delisted[1] == -1
    more = pl.DataFrame({"symbol": ["600519"], "kind": ["delisted"], "start": [date(2024, 1, 26)]})
    result = update_data(tmp_path, folder, status=more)  # nothing new but a fact
    assert (result.published, store.status().height) == (True, 3)
    assert store.bars().delisted[1] >= 0
    assert store.bars(version=0).delisted[1] == -1
    assert store.frame().height == 40


def test_a_status_table_alone(tmp_path, folder):
    import_data(tmp_path, folder, CN)
    facts = tmp_path / "status.csv"
    facts.write_text("symbol,kind,start\n1,delisted,2024-01-20\n600519,st,2024-01-05\n300750,st,2024-01-05\n")
    done = json.loads(invoke("status", facts, "--json", "-w", tmp_path).stdout)
    assert (done["version"], done["published"], done["num_facts"]) == (1, True, 3)
    assert done["not_stored"] == ["300750.SZ"]
    store = MarketStore.open(tmp_path / "market")
    assert store.bars().delisted.tolist() == [14, -1]
    assert store.frame().equals(store.frame(version=0))
    assert store.info().history[0].note["verb"] == "status"
    again = invoke("status", facts, "-w", tmp_path)
    assert "nothing new; still version 1" in again.output
    assert "1 symbols have no bar here, e.g. 300750.SZ" in again.output
    assert invoke("status", "-w", tmp_path).output.splitlines()[2] == "300750.SZ,st,2024-01-05,,2024-01-05"
    assert json.loads(invoke("status", "--json", "--version", 0, "-w", tmp_path).stdout) == []
    facts.write_text("symbol,kind,start\n600519,st,2024-01-08\n")  # the other rows were wrong
    assert (
        "version 2: 1 rows given, 1 in the store"
        in invoke("status", facts, "--replace", "-w", tmp_path).output
    )
    assert store.status()["start"].to_list() == [date(2024, 1, 8)]
    assert store.status(1).height == 3
    facts.write_text("symbol,kind,start\n")
    assert barcast.add_status(facts, workspace=tmp_path, replace=True).version == 3
    assert (store.status().height, store.bars().delisted.tolist()) == (0, [-1, -1])
    assert isinstance(invoke("status", "--replace", "-w", tmp_path).exception, UsageError)


def test_a_wrong_status_table_is_refused_before_anything_is_read(tmp_path, folder, monkeypatch):
    import_data(tmp_path, folder, CN)
    (tmp_path / "status.csv").write_text("symbol,kind,start\n1,halted,2024-01-20\n")
    monkeypatch.setattr("barcast.pipeline.data.read_all", None)
    for verb in (import_data, update_data):
        with pytest.raises(DataError, match=r"status\.csv: 1 rows of the status table .* kind `halted`"):
            verb(tmp_path, folder, CN, status=tmp_path / "status.csv")


def test_compaction_says_what_it_freed(tmp_path, folder):
    import_data(tmp_path, folder, CN)
    for count in (21, 22, 23):
        bars(count).write_csv(folder / "600519.csv")
        update_data(tmp_path, folder)
    MarketStore.open(tmp_path / "market").cite(1, "lstm-1")
    done = json.loads(invoke("compact", "--keep-hours", 0, "--json", "-w", tmp_path).stdout)
    assert done["num_files"] > 0
    assert {0, 2} <= set(done["dropped"])
    assert 1 in done["kept"]
    assert store_info(tmp_path).num_rows == 43
    assert done["kept"][-1] == done["version"]
    assert done["made"] == list(range(4, done["version"] + 1))
    said = invoke("compact", "-w", tmp_path).output
    assert "0 versions dropped; readable: 1," in said
    bars(24).write_csv(folder / "600519.csv")
    made = update_data(tmp_path, folder).version + 1
    said = invoke("compact", "--keep-hours", 0, "-w", tmp_path).output
    assert f"new, by the upkeep itself, with the same bars: {made}" in said
    assert invoke("conflicts", "-w", tmp_path).output == "none\n"
    assert isinstance(invoke("compact", "--keep-hours", -1, "-w", tmp_path).exception, UsageError)


def test_conflicts_are_listed_and_what_becomes_of_them_is_said(tmp_path, folder):
    path = folder / "600519.csv"
    path.write_text(path.read_text() + "2024-01-29,12,13,11,12.5,1\n")
    said = ("--market", "cn", "--basis", "adjusted", "--volume-unit", "share", "-w", tmp_path)
    output = " ".join(invoke("import", folder, *said).output.split())
    assert (
        "2 rows disagree about a bar (`barcast data conflicts`): the store keeps the last one given" in output
    )
    assert "training leaves the bar out" in output
    found = json.loads(invoke("conflicts", "--json", "-w", tmp_path).stdout)
    assert [(row["close"], row["kept"], row["line"]) for row in found] == [
        (11.9, False, 21),
        (12.5, True, 22),
    ]
    assert invoke("conflicts", "-w", tmp_path).output.count("600519.SH,2024-01-29") == 2
    market = load_bars(Workspace(tmp_path), DataConfig())
    assert [len(market.bars), market.quality.counts["duplicate_conflict"]] == [39, 1]


def test_a_second_writer_is_told_who_is_at_work(tmp_path, folder):
    import_data(tmp_path, folder, CN)
    with writer_lock(tmp_path / "market"), pytest.raises(StoreBusyError, match="is being written by process"):
        update_data(tmp_path, folder)


@pytest.mark.parametrize(
    ("program", "said"), [("barcast/__main__.py", "`barcast train lstm`"), ("mine.py", "`a Python program`")]
)
def test_a_writer_is_told_as_a_user_would_type_it(tmp_path, monkeypatch, program, said):
    monkeypatch.setattr(sys, "argv", [f"/env/lib/{program}", "train", "lstm"])
    with (
        writer_lock(tmp_path),
        pytest.raises(StoreBusyError, match=re.escape(f"({said})")),
        writer_lock(tmp_path),
    ):
        pass


def test_a_disk_that_fills_up_leaves_the_last_version(tmp_path, folder):
    """A limit on file size stands in for the full disk: the same refusal, in the middle of a write."""
    import_data(tmp_path, folder, CN)
    big = tmp_path / "big.parquet"
    frame = as_given(rows([f"{i:06d}" for i in range(1, 90)], factors=False), factors=False)
    frame.rename({"symbol": "code"}).write_parquet(big)
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from barcast.pipeline.data import update_data\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\n"
        "update_data(sys.argv[1], sys.argv[2])"
    )
    failed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(big)], capture_output=True, text=True, check=False
    )
    assert failed.returncode != 0
    assert "too large" in failed.stderr
    store = MarketStore.open(tmp_path / "market")
    assert (store.version, store.frame().height) == (0, 40)
    assert update_data(tmp_path, big).published


def test_no_permission(tmp_path, folder, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ResourceError, match="no permission"):
        import_data(tmp_path / "w", folder, CN)


def test_the_sample_is_imported_once(tmp_path):
    result = import_sample(Workspace(tmp_path))
    assert (result.num_rows, result.num_symbols) == (12154, 5)
    assert not import_sample(Workspace(tmp_path)).published
    found = MarketStore.open(tmp_path / "market").bars()
    assert found.symbols == ("AAPL", "FB", "GOOG", "IBM", "MSFT")
    assert len(found) == 12154  # every row lies on the exchange's calendar


def test_late_bars_and_their_reasons_reach_the_result(tmp_path, folder):
    now = datetime(2024, 1, 29, 6, tzinfo=UTC)  # before the close in Shanghai
    result = import_data(tmp_path, folder, CN, now=now)
    assert (result.num_unfinished, result.last) == (2, date(2024, 1, 26))


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_commands(tmp_path, folder):
    said = ("--market", "cn", "--basis", "adjusted", "--volume-unit", "share", "--workspace", tmp_path)
    dry = invoke("import", folder, *said, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "nothing was imported" in dry.output
    assert "looked into" not in dry.output
    assert "first row: symbol 000001.SZ, time 2024-01-02, open 9.95, high 10.2, low 9.8" in dry.output
    done = invoke("import", folder, *said, "--json")
    assert json.loads(done.stdout)["num_rows"] == 40
    assert "000001 -> 000001.SZ" in done.stdout
    (folder / "600519.csv").write_text(bars(23).write_csv().replace("10.0,", "ten,"))
    updated = invoke("update", folder, "--workspace", tmp_path)
    assert updated.exit_code == 0, updated.output
    assert "appended 3" in updated.output
    assert "close `ten`" in invoke("failures", "--workspace", tmp_path).output
    info = json.loads(invoke("info", "--json", "--workspace", tmp_path).stdout)
    assert (info["version"], info["num_symbols"], info["history"][0]["note"]["verb"]) == (1, 2, "update")
    assert "adjusted (2 symbols)" in invoke("info", "--workspace", tmp_path).output
    assert invoke("info", "--symbols", "--workspace", tmp_path).output.split() == ["000001.SZ", "600519.SH"]
    out = tmp_path / "out.csv"
    assert (
        invoke("export", out, "--format", "csv", "--from", "2024-01-20", "--workspace", tmp_path).exit_code
        == 0
    )
    assert pl.read_csv(out, try_parse_dates=True)["time"].min() == date(2024, 1, 22)
    assert isinstance(invoke("export", out, "--workspace", tmp_path).exception, UsageError)
    chosen = invoke("export", out, "--force", "--symbols", "600519，1", "--workspace", tmp_path)
    assert "of 2 symbols" in chosen.output
    assert out.read_text().startswith("symbol,time,")
    assert isinstance(invoke("export", out, "--from", "soon", "--workspace", tmp_path).exception, UsageError)


def test_a_job_at_night_notices_that_nothing_could_be_added(tmp_path, folder, capsys):
    import_data(tmp_path, folder, CN)
    late = bars(25).tail(2)  # no session in common with adjusted prices
    for code in ("600519", "000001"):
        late.write_csv(folder / f"{code}.csv")
    assert run(["data", "update", str(folder), "-w", str(tmp_path), "--json"], debug=False) == 3
    out, error = capsys.readouterr()
    assert (json.loads(out)["changes"]["refused_symbols"], json.loads(out)["published"]) == (2, False)
    assert "nothing could be added: 2 failures" in error and "barcast data failures" in error
    assert run(["data", "update", str(folder), "-w", str(tmp_path)], debug=False) == 3
    assert "nothing could be added; the store stays at version 0" in capsys.readouterr().out
    bars(25).write_csv(folder / "600519.csv")
    assert run(["data", "update", str(folder), "-w", str(tmp_path)], debug=False) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "1 symbols were refused and stay as they were: barcast data failures"
    assert run(["data", "update", str(folder), "-w", str(tmp_path)], debug=False) == 0  # one is up to date


def test_the_result_is_printed_alone_on_stdout(tmp_path, folder):
    done = invoke(
        "import", folder, "--market", "cn", "--basis", "raw", "--volume-unit", "lot", "-w", tmp_path
    )
    assert "version 0: 40 bars of 2 symbols" in done.stdout
    assert "taken for granted: market cn" in done.stdout
    assert "reading 2 files" in done.stderr


@pytest.mark.realdata
def test_real_markets_come_in_whole(tmp_path, real_data):
    kdd = import_data(tmp_path / "kdd", real_data / "kdd17.parquet", ImportOptions(market="us", basis="raw"))
    assert (kdd.num_rows, kdd.num_symbols, kdd.num_failures) == (125_900, 50, 0)
    rows_of = MarketStore.open(tmp_path / "kdd" / "market").frame()
    step = (pl.col("split_factor") / pl.col("split_factor").shift(1).over("symbol")).round(3)
    splits = rows_of.with_columns(step=step).filter((pl.col("step") - 1).abs() > 0.01)
    assert splits.filter(pl.col("symbol") == "AAPL").select("time", "step").rows() == [
        (date(2014, 6, 9), 7.0)
    ]
    assert {"BRK-B", "CMCSA", "D", "DUK", "GOOGL", "KO", "MA", "MO", "RIO", "VALE"} <= set(splits["symbol"])
    hourly = ImportOptions(market="crypto", frequency="1h", tz="UTC", stamp="start")
    coins = import_data(tmp_path / "coins", real_data / "crypto_1h.parquet", hourly)
    assert (coins.num_rows, coins.num_symbols) == (149_942, 2)
    assert len(MarketStore.open(tmp_path / "coins" / "market").bars()) == 149_942
