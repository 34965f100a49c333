"""What a finished run serves, to which session, and what it keeps of its scores and answers."""

import json
import re
import shlex
import subprocess
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import barcast
from barcast.core.errors import UsageError
from barcast.core.runs import list_runs, open_run
from barcast.core.workspace import Workspace
from barcast.pipeline import predict as room
from barcast.pipeline import serving_notes
from barcast.pipeline.compare import compare_runs, market_of
from barcast.pipeline.naive import NaiveTables
from barcast.pipeline.predict import newest_run
from barcast.pipeline.report import report_data
from barcast.pipeline.unfinished import run_status
from tests.journey.test_journey import DECLARED, TINY, run, write_market

SESSIONS = 640


def make_market(root: Path, changed_after: date | None = None) -> Path:
    """Import random walks whose bars after a day may be others, and train ridge on them."""
    write_market(root / "bars", sessions=SESSIONS)
    if changed_after:
        rng = np.random.default_rng(7)
        for path in (root / "bars").glob("*.csv"):
            bars = pl.read_csv(path, try_parse_dates=True)
            factor = np.where(bars["Date"] > changed_after, rng.lognormal(0, 0.2, len(bars)), 1.0)
            bars.with_columns(pl.col("Open", "High", "Low", "Close") * factor).write_csv(path)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED, "--quiet") == 0
    assert run("train", "ridge", "-w", root, "--quiet", "--no-report") == 0
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_market(tmp_path_factory.mktemp("serving") / "my market")


@pytest.fixture
def spare(place, tmp_path) -> Path:
    subprocess.run(["cp", "-r", str(place), str(tmp_path / "my market")], check=True)
    return tmp_path / "my market"


def ridge(root):
    return next(r for r in list_runs(Workspace(root)) if not r.info.get("final"))


def sessions_of(root):
    return market_of(Workspace(root), ridge(root)).bars.calendar.days.tolist()


def ask(root, capsys, *flags):
    """Exit code, and the answer as JSON or what was said instead."""
    capsys.readouterr()
    code = run("predict", ridge(root).name, "-w", root, "--json", "--quiet", "--allow-old", *flags)
    out, err = capsys.readouterr()
    return code, json.loads(out) if code == 0 else err


@pytest.mark.parametrize("where", ["stop", "weigh", "after"])
def test_bars_after_the_cutoff_change_no_forecast_or_it_is_refused(place, tmp_path, capsys, where):
    """Early stopping, the penalty and the score maps know the labels of `stop` and `weigh`."""
    info, spans = ridge(place).info, ridge(place).read("state.json")["segments"]
    known = date.fromisoformat(info["chosen_until"])
    assert date.fromisoformat(info["taught_until"]) < date.fromisoformat(spans["weigh"][0]) < known
    cut = known if where == "after" else date.fromisoformat(spans[where][1]) - timedelta(days=14)
    other = make_market(tmp_path / "other", changed_after=cut)
    (code, before), (again, after) = (ask(root, capsys, "--asof", cut) for root in (place, other))
    assert code == again == (0 if where == "after" else 5)
    if code:
        assert "chosen and calibrated by labels known until" in before and "seen its own outcome" in before
        assert f"barcast train ridge --asof {before.split('as of ')[1][:10]} --final" in before
    else:
        assert before["forecasts"] == after["forecasts"] and before["chosen_until"] == str(cut)


def test_a_run_that_did_not_write_down_what_chose_it_counts_as_knowing_weigh(spare, capsys):
    found = ridge(spare)
    end = found.read("state.json")["segments"]["weigh"][1]
    found.write("run.json", {k: v for k, v in found.info.items() if k != "chosen_until"})
    day_before = date.fromisoformat(end) - timedelta(days=1)
    assert ask(spare, capsys, "--asof", day_before)[0] == 5
    assert ask(spare, capsys, "--asof", end)[0] == 0


def hint(said: str) -> list[str]:
    """The command of a warning, as a shell takes it apart."""
    return shlex.split(said[said.index("barcast train --refit") :].split("   (")[0])[1:]


def test_the_advice_to_refit_does_what_it_says(spare, capsys, monkeypatch):
    """Typed as it stands, also in a folder with a blank, the warning is gone; as of a session too."""
    days, name = sessions_of(spare), ridge(spare).name
    for flags, last in ((["--asof", days[-80]], days[-80]), ([], days[-1])):
        (warning,) = [w for w in ask(spare, capsys, *flags)[1]["warnings"] if "refit it" in w]
        assert run(*hint(warning), "--quiet") == 0
        _, found = ask(spare, capsys, *flags)
        assert found["run"] != name and found["parent"] == name and found["asof"] == str(last)
        assert not [w for w in found["warnings"] if "refit it" in w]
    newest = ask(spare, capsys)[1]["run"]
    refits = {r.name: r.info for r in list_runs(Workspace(spare)) if r.info.get("final")}
    assert len(refits) == 2 and refits[newest]["chosen_until"] == str(days[-1])
    assert run("train", "--refit", name, "-w", spare, "--asof", days[-60], "--quiet", "--no-report") == 0
    assert ask(spare, capsys)[1]["run"] == newest  # made later, but it knows less
    monkeypatch.setattr(serving_notes, "TOO_OLD_SESSIONS", -1)
    capsys.readouterr()
    assert run("predict", name, "-w", spare, "--quiet") == 5
    assert hint(capsys.readouterr().err)[:3] == ["train", "--refit", name]


def test_a_refit_as_of_a_day_before_the_last_border(spare, capsys):
    """Borders by date that the calendar does not reach then are no borders of a refit."""
    spans, days = ridge(spare).read("state.json")["segments"], sessions_of(spare)
    borders = [spans[name][1] for name in ("fit", "stop", "weigh", "route")] + [str(days[-1])]
    before = set(list_runs(Workspace(spare)))
    assert run("train", "ridge", "-w", spare, "--segments", ",".join(borders), "--no-report", "--quiet") == 0
    (evaluated,) = set(list_runs(Workspace(spare))) - before
    early = str(days[-60])
    assert (
        run("train", "--refit", evaluated.name, "-w", spare, "--asof", early, "--quiet", "--no-report") == 0
    )
    capsys.readouterr()
    assert run("predict", evaluated.name, "-w", spare, "--asof", early, "--json", "--quiet") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parent"] == evaluated.name and found["asof"] == early
    assert run("audit", found["run"], "-w", spare, "--quiet") == 0


def test_a_refit_keeps_the_options_of_its_run_and_never_knows_less_than_it(spare, capsys):
    name = ridge(spare).name
    early = sessions_of(spare)[SESSIONS // 2]
    for flags, code, words in (
        (["--horizon", "1"], 2, "horizons`: a refit keeps the options of its run"),
        (["--asof", early], 5, "seen its own outcome"),
    ):
        assert run("train", "--refit", name, "-w", spare, *flags, "--quiet") == code
        assert words in capsys.readouterr().err
    assert run("train", "--refit", name, "-w", spare, "--quiet", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    final = open_run(Workspace(spare), found["final"])
    assert found["run"] == name and Path(found["report"]).is_file()
    assert final.read("config.json") == ridge(spare).read("config.json")
    assert final.info["chosen_until"] == final.info["taught_until"] > ridge(spare).info["chosen_until"]


def test_a_later_comparison_keeps_the_scores_of_other_segments(spare, capsys):
    name = ridge(spare).name

    def kept():
        return [one["segment"] for one in ridge(spare).read("comparison.json")]

    compare = ["compare", name, "-w", spare, "--quiet", "--json"]
    assert run(*compare, "--open-test") == 0 and kept() == ["route", "test"]
    assert run(*compare, "--segments", "weigh") == 0 and kept() == ["weigh", "route", "test"]
    capsys.readouterr()
    assert run(*compare, "--segments", "route,test,route") == 0
    assert [one["segment"] for one in json.loads(capsys.readouterr().out)] == ["route", "test"]
    assert run("train", "ridge", "-w", spare, "--fresh", "--quiet", "--no-report") == 0
    assert "weigh" not in kept()


def test_naive_rows_of_other_labels_are_other_rows(spare):
    space = Workspace(spare)
    market = market_of(space, ridge(spare))
    doubled = replace(market, labels=replace(market.labels, y=2 * market.labels.y))
    moved = replace(market, labels=replace(market.labels, tradable=~market.labels.tradable))
    before, after, flipped = (
        pl.concat(NaiveTables(space, one, room.Progress(False)).of("route", 5))
        for one in (market, doubled, moved)
    )
    assert after["y"].drop_nulls().to_numpy() == pytest.approx(2 * before["y"].drop_nulls().to_numpy())
    assert (flipped["tradable"] != before["tradable"]).all()


def test_a_mistake_in_the_table_of_the_reference_is_said_before_anything_is_trained(spare, capsys):
    (spare / "barcast.toml").write_text("[ridge]\npenalty = 3\n")
    before = list_runs(Workspace(spare))
    assert run("train", "lstm", "-w", spare, "--epochs", "1", "--quiet") == 2
    assert "ridge: unknown key `penalty`" in capsys.readouterr().err
    assert list_runs(Workspace(spare)) == before


def test_a_cutoff_beyond_the_data_is_said_and_does_not_hide_old_bars(spare, capsys, monkeypatch):
    last = sessions_of(spare)[-1]
    monkeypatch.setattr(serving_notes, "_today", lambda: last + timedelta(days=30))

    def said(day):
        return " ".join(ask(spare, capsys, "--asof", day)[1]["warnings"])

    beyond = said("2030-01-01")
    assert f"as of 2030-01-01: the last stored session up to then is {last}" in beyond
    assert f"the newest bar is of {last}, about" in beyond and f"before {last + timedelta(days=30)}" in beyond
    assert "newest bar" not in said(last) and "the last stored session" not in said(last)
    near = last + timedelta(days=1)
    assert "the last stored session" in said(near) and "newest bar" not in said(near)
    assert run("train", "ridge", "-w", spare, "--no-report", "--final") == 0
    assert f"the newest bar is of {last}" in capsys.readouterr().out
    assert run("train", "ridge", "-w", spare, "--no-report", "--asof", last) == 0
    assert "newest bar" not in capsys.readouterr().out


def test_another_answer_to_the_same_session_is_kept_beside_the_first(spare, tmp_path, capsys):
    answers = ridge(spare).path / "live"
    assert ask(spare, capsys)[0] == 0 and ask(spare, capsys)[0] == 0
    (first,) = answers.glob("*")
    bits = first.read_bytes()
    write_market(tmp_path / "new", symbols=1, sessions=SESSIONS, names=["NEWCO"], seed=9)
    assert run("data", "update", tmp_path / "new", "-w", spare, "--quiet") == 0
    assert ask(spare, capsys)[0] == 0 and ask(spare, capsys)[0] == 0
    assert sorted(path.name for path in answers.iterdir()) == [f"{first.stem}.2.parquet", first.name]
    assert first.read_bytes() == bits
    assert len(pl.read_parquet(answers / f"{first.stem}.2.parquet")) == len(pl.read_parquet(first)) + 1


def test_the_page_says_which_horizon_and_segment_it_shows(spare):
    assert run("train", "ridge", "-w", spare, "--horizon", "5,1", "--quiet") == 0
    space = Workspace(spare)
    found = next(r for r in list_runs(space) if (r.path / "report.html").is_file())
    page = (found.path / "report.html").read_text(encoding="utf-8")
    assert page.count("Shown for horizon 1 only") == 10  # five places, each with its English twice
    assert "此处只展示预测期 1；其他预测期（5）" in page
    market = market_of(space, found)
    run("compare", ridge(spare).name, "-w", spare, "--quiet", "--open-test")  # a look by another run
    for flags, sealed in (({"segments": ("weigh",)}, True), ({"open_test": True}, False)):
        compared = compare_runs(space, [found], market=market, **flags)
        data = report_data(found, compared, market, room.RunError("not asked"))
        assert [segment.is_sealed for segment in data.segments] == [False] * 4 + [sealed]
        assert data.horizon == 1 and data.headline.segment == compared.comparisons[-1].segment
        noted = [c.note is not None and "in-sample" in c.note.en for c in data.comparisons]
        assert all(noted) == any(noted) == sealed


def test_a_training_that_fails_says_why_and_a_mended_one_goes_on(spare, capsys, monkeypatch):
    def no_memory(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    flags = ("train", "lstm", "-w", spare, "--epochs", "1", "--quiet", "--no-report")
    with monkeypatch.context() as patch:
        patch.setattr("barcast.training.predict.gather_windows", no_memory)
        assert run(*flags) == 6
    assert "not enough memory to predict windows of 60 bars" in capsys.readouterr().err
    (failed,) = [found for found in list_runs(Workspace(spare)) if found.info["model"] == "lstm"]
    assert run_status(failed) == "failed"
    assert run("runs", "-w", spare) == 0
    assert f"{failed.name} failed: not enough memory" in capsys.readouterr().out
    assert run(*flags) == 0
    assert run_status(open_run(Workspace(spare), failed.name)) == "done"


def test_runs_of_another_market_are_refused_before_any_work(spare, capsys):
    own, place = ridge(spare), Workspace(spare)
    foreign = own.path.with_name("ridge-foreign")
    subprocess.run(["cp", "-r", str(own.path), str(foreign)], check=True)
    open_run(place, foreign.name).update(market="cn", created="2999-01-01", data_key="theirs")
    before = sorted(path for path in spare.rglob("*") if "cache" not in path.parts)
    for verb in (
        ["doctor"],
        ["predict", "--allow-old"],
        ["train", "--refit"],
        ["report"],
        ["audit"],
        ["compare"],
    ):
        assert run(*verb, foreign.name, "-w", spare, "--quiet") == 5, verb
        said = capsys.readouterr().err
        assert "was trained on market cn, and the store holds us" in said and "barcast runs" in said, verb
    assert sorted(path for path in spare.rglob("*") if "cache" not in path.parts) == before
    assert run("compare", "-w", spare) == 0
    assert "left out: `ridge-foreign` was trained on market cn" in capsys.readouterr().err
    assert newest_run(place, None) == own


def test_a_run_whose_rows_the_store_has_no_more_is_not_judged_by_others(spare, capsys):
    ridge(spare).update(data_key="other rows")
    for verb in ("doctor", "report"):
        assert run(verb, ridge(spare).name, "-w", spare, "--quiet") == 5
        assert "the store has changed since" in capsys.readouterr().err


def test_memory_that_no_history_fits_into_is_refused_before_there_is_a_run(spare, capsys):
    flags = ("train", "lstm", *TINY, "-w", spare, "--quiet", "--no-report", "--panel-memory-gib")
    assert run(*flags, "0.000001") == 6
    said = capsys.readouterr().err
    assert not list((spare / "runs").glob("lstm-*")), "a run that fails of what it was asked"
    enough = re.search(r"--panel-memory-gib ([\d.e-]+) or more", said).group(1)
    assert run(*flags, enough) == 0


def test_a_look_back_longer_than_any_history_is_refused(spare, capsys):
    assert run("train", "lstm", "-w", spare, "--look-back-window", "5000", "--quiet") == 2
    assert "no symbol has more than 640 bars" in capsys.readouterr().err


def test_a_run_of_chosen_symbols_forecasts_those_unless_others_are_asked_for(spare, capsys):
    assert run("train", "ridge", "-w", spare, "--symbols", "SYM03,SYM01", "--quiet", "--no-report") == 0
    assert run("train", "ridge", "-w", spare, "--limit", "3", "--quiet", "--no-report") == 0
    runs = {tuple(r.read("state.json")["universe"]): r.name for r in list_runs(Workspace(spare))}
    for universe in (("SYM01", "SYM03"), ("SYM00", "SYM01", "SYM02")):
        for flags, wanted in (([], universe), (["--symbols", "SYM07"], ("SYM07",))):
            ask_it = ["predict", runs[universe], "-w", spare, "--quiet", "--json", "--allow-old", *flags]
            capsys.readouterr()
            assert run(*ask_it) == 0
            found = json.loads(capsys.readouterr().out)
            assert sorted(row["symbol"] for row in found["forecasts"]) == list(wanted)
    assert run("predict", ridge(spare).name, "-w", spare, "--symbols", " ,") == 2
    assert "a list with nothing in it" in capsys.readouterr().err


def test_train_prints_no_forecast_that_predict_refuses(spare, capsys):
    name = ridge(spare).name
    assert run("train", "ridge", "-w", spare) == 0
    said = capsys.readouterr().out
    assert "Forecasts as of" not in said and "no forecasts: " in said
    assert f"was taught by labels known until {ridge(spare).info['taught_until']}" in said
    assert hint(said)[:3] == ["train", "--refit", name]
    assert run("predict", name, "-w", spare, "--quiet") == 5
    assert run("train", "lstm", "--refit", name, "-w", spare, "--quiet") == 2
    assert f"`{name}` is of ridge, not lstm" in capsys.readouterr().err
    assert run("train", "--refit", name, "-w", spare) == 0
    assert "Forecasts as of" in capsys.readouterr().out


def test_a_comparison_is_shown_where_nothing_can_be_written(spare, capsys, monkeypatch):
    from barcast.core.errors import ResourceError
    from barcast.core.runs import RunFolder

    def refuse(*_):
        raise ResourceError("no permission while writing", "choose another --workspace")

    known = [path for path in (spare / "cache" / "naive").glob("*.parquet") if path.unlink() is None]
    before = (ridge(spare).path / "comparison.json").read_bytes()
    monkeypatch.setattr("barcast.pipeline.naive.write_predictions", refuse)
    monkeypatch.setattr(RunFolder, "write", refuse)
    capsys.readouterr()
    assert known and run("compare", ridge(spare).name, "-w", spare) == 0
    out, err = capsys.readouterr()
    assert "Segment route" in out and (ridge(spare).path / "comparison.json").read_bytes() == before
    assert err.count("not kept, the cache of naive rows: no permission") == 1 and "comparison.json" in err


def test_rules_that_cannot_be_kept_are_computed_once_all_the_same(spare, monkeypatch):
    from barcast.core.errors import ResourceError
    from barcast.pipeline import naive

    def refuse(*_):
        raise ResourceError("no permission while writing", "choose another --workspace")

    computed, honest = [], naive.naive_rows
    monkeypatch.setattr(naive, "write_predictions", refuse)
    monkeypatch.setattr(naive, "naive_rows", lambda *all: computed.append(all[2]) or honest(*all))
    for path in (spare / "cache" / "naive").glob("*.parquet"):
        path.unlink()
    space = Workspace(spare)
    tables = NaiveTables(space, market_of(space, ridge(spare)), room.Progress(False))
    for segment in ("route", "weigh", "route"):
        assert {name for table in tables.of(segment, 5) for name in table["segment"]} == {segment}
    assert len(computed) == len(set(computed)) == len(tables.rules)


def test_a_single_symbol_is_not_its_letters_and_missing_inputs_are_zeros(place):
    found, name = ridge(place), market_of(Workspace(place), ridge(place)).bars.symbols[0]
    answer = barcast.predict(found.name, workspace=place, symbols=name, allow_old=True)
    assert set(answer.table["symbol"]) == {name}
    loaded = barcast.load(found.name, workspace=place)
    inputs = np.zeros((3, len(loaded.features) + 1))
    assert np.isfinite(loaded.predict(inputs)).all()
    for broken in (np.nan, np.inf, 1e300):
        inputs[1, 2] = broken
        with pytest.raises(
            UsageError, match=r"1 of .* inputs are NaN or infinite\n  -> missing values must be 0"
        ):
            loaded.predict(inputs)


def test_a_comparison_without_predictions_names_what_makes_them_again(spare, capsys):
    ridge(spare).predictions.unlink()
    assert run("compare", ridge(spare).name, "-w", spare) == 5
    assert "the predictions of `ridge-" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["weights", "predictions"])
def test_a_report_of_a_run_without_its_files_names_what_makes_them_again(spare, capsys, what):
    folder = ridge(spare)
    getattr(folder, what).unlink()
    assert run("report", folder.name, "-w", spare, "--quiet") == 5
    said = capsys.readouterr().err
    assert f"the {what} of `{folder.name}` cannot be used: no file" in said and "--fresh" in said


def test_a_comparison_where_files_may_not_be_touched_says_nothing_of_it(spare, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    assert run("compare", ridge(spare).name, "-w", spare) == 0
    capsys.readouterr()
    monkeypatch.setattr("os.utime", refuse)
    assert run("compare", ridge(spare).name, "-w", spare) == 0
    assert "last used" not in capsys.readouterr().err


def test_a_cutoff_before_the_first_bar_and_dates_in_a_table(spare, tmp_path, capsys):
    first = sessions_of(spare)[0]
    assert run("predict", ridge(spare).name, "-w", spare, "--asof", "1999-01-04", "--quiet") == 3
    assert f"the first stored session is {first}" in capsys.readouterr().err
    assert ask(spare, capsys, "--output", tmp_path / "out.csv")[0] == 0
    assert pl.read_csv(tmp_path / "out.csv")["time"].unique().to_list() == [str(sessions_of(spare)[-1])]
    folder = ridge(spare).path
    assert (folder / "weights.safetensors").stat().st_mode == (folder / "run.json").stat().st_mode


def test_the_page_of_forecasts_without_size_says_so_and_shows_every_horizon(spare, capsys):
    assert run("train", "ridge", "-w", spare, "--horizon", "5,1", "--final", "--quiet") == 0
    space = Workspace(spare)
    found = next(
        r for r in list_runs(space) if r.info["model"] == "ridge" and (r.path / "report.html").is_file()
    )
    market = market_of(space, found)
    compared = compare_runs(space, [found], market=market)
    forecasts = room.predict(space, found)
    data = report_data(found, compared, market, forecasts)
    assert (
        data.verdict.headline.en.startswith("Horizon 1: ridge")
        and "; Horizon 5: " in data.verdict.headline.en
    )
    assert "；预测期 5：" in data.verdict.headline.zh and len(data.verdict.details) == 2
    assert data.horizons == (1, 5) and "horizon 5: " in data.headline.note.en
    assert data.calibration and room.NO_SIZE not in data.warnings
    flat = replace(forecasts, table=forecasts.table.with_columns(y_hat=pl.lit(0.0)))
    rows = tuple(
        replace(part, forecasts=tuple(
            replace(one, outputs=replace(one.outputs, y_hat=np.zeros(len(part)))) for one in part.forecasts
        ))
        for part in compared.rows
    )  # fmt: skip
    data = report_data(found, replace(compared, rows=rows), market, flat)
    assert room.NO_SIZE in data.warnings and not data.calibration
    assert [one.section for one in data.empty if one.reason == room.NO_SIZE] == ["calibration"]
