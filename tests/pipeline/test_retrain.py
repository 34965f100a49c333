"""Retraining: the gate is honest about what was seen, a kill loses nothing, two never overlap, schedules parse."""

import configparser
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

import barcast
from barcast.core.champion import champion_folder, read_champions
from barcast.core.errors import BarcastError, RunError, UsageError
from barcast.core.lock import writer_lock
from barcast.core.predictions import read_predictions
from barcast.core.runs import RunFolder, list_runs, open_run
from barcast.core.workspace import Workspace
from barcast.evaluation.align import align
from barcast.pipeline import champion as pointer
from barcast.pipeline import retrain as room
from barcast.pipeline import workflow
from barcast.pipeline.compare import market_of
from barcast.pipeline.gate import (
    CHALLENGER,
    CHAMPION,
    GatePolicy,
    _rows_of,
    compare_with_champion,
    decide,
    difference,
    fresh_rows,
    health_problems,
)
from barcast.pipeline.predict import Forecasts
from barcast.pipeline.schedule import TEMPLATES, for_cron, for_systemd, schedule
from tests.journey.test_journey import DECLARED, run, write_market
from tests.tracking.fake import tracked_by_default

SESSIONS, NEW = 640, 30


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A workspace whose champion is a refitted ridge, and beside it bars of 30 more sessions."""
    root = tmp_path_factory.mktemp("retrain") / "my ws"
    write_market(root / "more", sessions=SESSIONS + NEW)
    (root / "bars").mkdir()
    for path in (root / "more").glob("*.csv"):
        pl.read_csv(path).head(SESSIONS).write_csv(root / "bars" / path.name)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED, "--quiet") == 0
    assert run("train", "ridge", "-w", root, "--quiet", "--no-report", "--final") == 0
    assert run("promote", list_runs(Workspace(root))[0].name, "-w", root) == 0
    return root


@pytest.fixture(scope="module")
def grown(base) -> Path:
    """The same after an update, nothing retrained yet."""
    root = base.with_name("grown")
    subprocess.run(["cp", "-r", str(base), str(root)], check=True)
    assert run("data", "update", root / "more", "-w", root, "--quiet") == 0
    return root


@pytest.fixture
def spare(grown, tmp_path) -> Path:
    subprocess.run(["cp", "-r", str(grown), str(tmp_path / "ws")], check=True)
    return tmp_path / "ws"


def champion(root) -> str:
    return read_champions(Workspace(root)).current.run


def evaluated(root) -> RunFolder:
    return open_run(Workspace(root), read_champions(Workspace(root)).current.evaluated)


def history(root) -> list[dict]:
    path = room.history_file(Workspace(root))
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def retrain(root, capsys, *flags) -> dict:
    capsys.readouterr()
    assert run("retrain", "-w", root, "--no-report", "--quiet", "--json", *flags) == 0
    return json.loads(capsys.readouterr().out)


# --- the whole road ----------------------------------------------------------------------------------------


def mean_rank_ics(root, challenger: RunFolder, old: RunFolder) -> tuple[float, float, int]:
    """Independent: Spearman by session, by scipy; the champion's scores are those it wrote when it was new.

    Rows that its own segments purged have none and are taken from the gate.
    """
    market = market_of(Workspace(root), challenger)
    made = _rows_of(Workspace(root), old, market, fresh_rows(market, old))
    made = made.select("symbol", "time", pl.col("score").alias("theirs"))
    stored = read_predictions(old.predictions).select("symbol", "time", pl.col("score").alias("stored"))
    shared = made.join(stored, on=["symbol", "time"])
    assert 0.8 * len(made) < len(shared) < len(made)
    assert shared["theirs"].to_numpy() == pytest.approx(shared["stored"].to_numpy(), abs=1e-6)
    own = read_predictions(challenger.predictions).filter(segment="route")
    both = own.join(made, on=["symbol", "time"])
    assert len(both) == len(own) == len(made)
    series = [
        (spearmanr(part["score"], part["y"]).statistic, spearmanr(part["theirs"], part["y"]).statistic)
        for _, part in both.group_by("time")
    ]
    ours, others = np.mean(series, axis=0)
    return float(ours), float(others), len(series)


def test_a_refresh_on_newer_bars_takes_the_champions_place(spare, capsys):
    before, old = champion(spare), evaluated(spare)
    planned = run("retrain", "-w", spare, "--dry-run", "--json")
    plan = json.loads(capsys.readouterr().out)
    assert planned == 0 and plan["new_sessions"] == NEW and len(list_runs(Workspace(spare))) == 2
    found = retrain(spare, capsys, "--promote-if-better")
    assert found["decision"] == "promoted" and champion(spare) == found["serving"] != before
    assert found["champion"]["run"] == before and not found["problems"]
    challenger = open_run(Workspace(spare), found["challenger"])
    (gap,) = found["differences"]
    ours, theirs, num_sessions = mean_rank_ics(spare, challenger, old)
    assert gap["challenger"] == pytest.approx(ours, abs=1e-9)
    assert gap["champion"] == pytest.approx(theirs, abs=1e-6)
    assert gap["num_sessions"] == num_sessions == plan["sessions_to_compare"]
    assert gap["low"] < gap["value"] == pytest.approx(ours - theirs, abs=1e-6) and gap["value"] < gap["high"]
    assert gap["low"] > gap["bound"] == -0.01 and gap["first"] > old.info["chosen_until"]
    assert challenger.info["retrain"] == history(spare)[-1] and history(spare)[-1]["promoted"]
    assert not list(
        spare.glob(f"runs/{found['serving']}/live/*")
    )  # nobody was served the challenger's forecasts yet
    again = retrain(spare, capsys, "--promote-if-better")
    assert again["decision"] == "kept" and "nothing is new" in again["reason"] and len(history(spare)) == 1
    assert read_champions(Workspace(spare)).current.why.startswith("retrained: it is worse by no more")


def test_without_asking_nothing_is_promoted_and_what_was_rolled_back_stays_back(spare, capsys):
    before = champion(spare)
    found = retrain(spare, capsys)
    assert found["decision"] == "would promote" and champion(spare) == before
    assert run("retrain", "-w", spare, "--no-report", "-q") == 0
    assert f"barcast promote {found['serving']}" in capsys.readouterr().out
    assert retrain(spare, capsys, "--promote-if-better")["promoted"] and champion(spare) == found["serving"]
    assert run("rollback", "-w", spare) == 0
    found = retrain(spare, capsys, "--promote-if-better")
    assert found["decision"] == "kept" and "a rollback took it back" in found["reason"]
    assert champion(spare) == before
    assert run("promote", found["challenger"], "-w", spare) == 0 and champion(spare) == found["serving"]


def test_trackers_of_the_settings_file_follow_a_retrain(spare, capsys, monkeypatch):
    (spare / "barcast.toml").write_text('[track]\nadapters = ["mlfow"]\n')
    assert run("retrain", "-w", spare, "--no-report", "-q") == 2
    assert "did you mean `mlflow`" in capsys.readouterr().err and len(list_runs(Workspace(spare))) == 2
    fake = tracked_by_default(spare, monkeypatch)
    found = retrain(spare, capsys)
    assert fake.runs == [found["challenger"]] and fake.told("finish") == [("finished", "")]
    ((_, scores, made),) = fake.told("summarise")
    assert "route/h5/rank_ic" in scores and made["path/refit"].endswith(found["serving"])


def test_a_refit_in_python_refuses_what_its_run_has_decided(base):
    name = evaluated(base).name
    for given in ({"size": "small"}, {"time_budget": 5}, {"epochs": 3}):
        with pytest.raises(UsageError, match=f"`{next(iter(given))}`: a refit keeps the options of its run"):
            barcast.train(workspace=base, refit=name, **given)
    with pytest.raises(UsageError, match="is of ridge, not lstm"):
        barcast.train("lstm", workspace=base, refit=name)
    final = barcast.train(workspace=base, refit=name, report=False).final
    assert final.name == barcast.train("ridge", workspace=base, refit=name, report=False).final.name
    assert final.name == champion(base)


def test_strict_improvement_and_too_few_sessions_keep_the_champion(spare, capsys):
    before = champion(spare)
    strict = retrain(spare, capsys, "--promote-if-better", "--min-gain", "0.05")
    assert strict["decision"] == "kept" and "not better by more than 0.05" in strict["reason"]
    few = retrain(spare, capsys, "--promote-if-better", "--min-sessions", "200")
    assert few["decision"] == "kept" and "200 are needed" in few["reason"] and champion(spare) == before
    lenient = ["--min-sessions", "200", "--when-unclear", "promote"]
    assert retrain(spare, capsys, "--promote-if-better", *lenient)["promoted"]
    assert [one["decision"] for one in history(spare)] == ["kept", "kept", "promoted"]


@pytest.mark.parametrize(
    "flags",
    [["--margin", "0.1", "--min-gain", "0"], ["--margin", "-1"], ["--when-unclear", "maybe"],
     ["--min-sessions", "0"], ["--template", "launchd"]],
)  # fmt: skip
def test_questions_that_make_no_sense_are_refused_before_anything_is_trained(grown, capsys, flags):
    assert run("retrain", "-w", grown, *flags) == 2
    assert len(list_runs(Workspace(grown))) == 2 and capsys.readouterr().err.startswith("error: ")


# --- what the champion had seen ----------------------------------------------------------------------------


def test_only_sessions_that_the_champion_had_not_seen_are_compared(spare, capsys):
    """With its knowledge moved into `route`, the gate loses exactly the sessions up to then."""
    found, space = retrain(spare, capsys), Workspace(spare)
    challenger, old = open_run(space, found["challenger"]), evaluated(spare)
    market = market_of(space, challenger)
    times = read_predictions(challenger.predictions).filter(segment="route")["time"].unique().sort()
    for known, left in ((times[0], len(times) - 1), (times[-6], 5), (times[-1], 0)):
        old.update(chosen_until=str(known.date()))
        (gap,) = compare_with_champion(space, old, challenger, market, GatePolicy())
        assert gap.num_sessions == left and gap.answer == ("passes" if left > 20 else "unclear")
        if left:
            assert gap.first > str(known.date())
    assert "no session" in gap.sentence()
    assert decide([gap], GatePolicy())[0] is False
    assert decide([gap], GatePolicy(when_unclear="promote"))[0] is True


# --- the gate ----------------------------------------------------------------------------------------------


def planted(skill: float, other_skill: float, *, sessions=60, symbols=40, seed=0):
    """Aligned rows of two models whose scores hold so much of the outcome."""
    rng = np.random.default_rng(seed)
    y = rng.normal(0, 0.02, (sessions, symbols))
    noise = rng.normal(0, 0.02, y.shape)  # most of their error is one and the same, as of two trainings
    days = pl.date_range(pl.date(2024, 1, 1), pl.date(2026, 1, 1), eager=True)[:sessions]
    frames = []
    for name, share in ((CHALLENGER, skill), (CHAMPION, other_skill)):
        score = share * y + noise + rng.normal(0, 0.004, y.shape)
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [f"S{s:02d}" for s in range(symbols)] * sessions,
                    "time": pl.Series(np.repeat(days.to_numpy(), symbols)).cast(pl.Datetime("us")),
                    "score": score.ravel(),
                    "y_hat": score.ravel(),
                    "y": y.ravel(),
                }
            ).with_columns(
                run=pl.lit(name), model=pl.lit(name), seed=pl.lit(0), segment=pl.lit("route"),
                horizon=pl.lit(1), delay=pl.lit(1), target=pl.lit("return"), p_up=pl.lit(None, pl.Float64),
                quantiles=pl.lit(None, pl.List(pl.Float64)), tradable=pl.lit(True), route=pl.lit("universal"),
            )
        )  # fmt: skip
    return align(pl.concat(frames), segment="route")


@pytest.mark.parametrize(
    ("skill", "other", "policy", "answer"),
    [
        (0.3, 0.3, {}, "passes"),
        (0.1, 0.3, {}, "fails"),
        (0.3, 0.1, {}, "passes"),
        (0.3, 0.1, {"min_gain": 0.05}, "passes"),
        (0.3, 0.3, {"min_gain": 0.05}, "fails"),
        (0.3, 0.3, {"min_gain": 0.0}, "unclear"),
        (0.3, 0.3, {"min_sessions": 61}, "unclear"),
        (0.1, 0.3, {"margin": 0.5}, "passes"),
    ],
)
def test_planted_differences_are_found(skill, other, policy, answer):
    made = GatePolicy(**policy)
    for metric in ("rank_ic", "r2"):
        if metric == "r2" and ("min_gain" in policy or skill == other):
            continue
        gap = difference(planted(skill, other), metric, made)
        assert gap.answer == answer, gap.sentence()
    assert decide([gap], made)[0] == (answer == "passes")


def test_a_model_is_no_worse_than_itself_and_no_better():
    rows = planted(0.3, 0.3)
    twin = replace(
        rows, forecasts=tuple(replace(f, outputs=rows.forecasts[0].outputs) for f in rows.forecasts)
    )
    same = difference(twin, "rank_ic", GatePolicy(margin=0.0001))
    assert (same.value, same.low, same.high, same.answer) == (0, 0, 0, "passes")
    assert difference(twin, "rank_ic", GatePolicy(min_gain=0.0)).answer == "fails"


def test_a_challenger_worse_by_the_margin_seldom_passes():
    """At a true difference of just -margin the lower end of a 90 % interval lies above it once in 20."""
    gaps = [
        difference(planted(0.28, 0.3, seed=seed), "rank_ic", GatePolicy(margin=0.5)) for seed in range(60)
    ]
    truth = float(np.mean([gap.value for gap in gaps]))
    passed = sum(gap.low > truth for gap in gaps)
    assert truth < -0.005 and passed <= 9


def test_every_horizon_must_pass_and_promoting_the_unclear_needs_a_difference_that_does_not_speak_against():
    good = difference(planted(0.3, 0.3), "rank_ic", GatePolicy())
    bad = replace(good, answer="fails", value=-0.2, low=-0.3, high=-0.1)
    unclear = replace(good, answer="unclear", value=-0.005, low=-0.03, high=0.02)
    against = replace(unclear, value=-0.02)
    lenient = GatePolicy(when_unclear="promote")
    cases = (
        ([good, good], GatePolicy(), True),
        ([good, bad], lenient, False),
        ([good, unclear], GatePolicy(), False),
        ([good, unclear], lenient, True),
        ([unclear, against], lenient, False),
    )
    for gaps, policy, passes in cases:
        assert decide(gaps, policy)[0] is passes
    with pytest.raises(UsageError, match="one question at a time"):
        GatePolicy(margin=0.1, min_gain=0.1)


def test_unhealthy_forecasts_are_named(base):
    sane = barcast.predict(workspace=base, allow_old=True)
    assert health_problems(sane, sane) == []
    assert health_problems(sane, RunError("no")) == []

    def sick(**columns) -> Forecasts:
        return replace(sane, table=sane.table.with_columns(**columns))

    cases = {
        "no numbers": sick(score=pl.lit(float("nan"))),
        "sigma of 0": sick(sigma=pl.lit(0.0)),
        "the same score": sick(score=pl.lit(0.5)),
        "4 times the champion's": sick(sigma=pl.col("sigma") * 4),
        "0.2 times the champion's": sick(sigma=pl.col("sigma") / 5),
        "forecasts 36 symbols, the champion 40": replace(sane, table=sane.table.head(36)),
        "forecasts no symbol": replace(sane, table=sane.table.head(0)),
    }
    for words, forecasts in cases.items():
        (problem,) = health_problems(forecasts, sane)
        assert words in problem
    assert health_problems(RunError("too thin"), sane) == ["it does not predict: too thin"]


def test_an_unhealthy_challenger_is_kept_out(spare, capsys, monkeypatch):
    before = champion(spare)
    monkeypatch.setattr(workflow, "_forecasts", lambda *_, **__: BarcastError("the session is thin"))
    found = retrain(spare, capsys, "--promote-if-better")
    assert found["decision"] == "kept" and "the session is thin" in found["reason"]
    assert found["differences"][0]["answer"] == "passes" and champion(spare) == before


# --- kills and company -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["refit", "promote"])
def test_a_kill_between_two_steps_goes_on_with_the_same_command(spare, capsys, monkeypatch, step):
    before, module = champion(spare), workflow if step == "refit" else room

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, step, killed)
        assert run("retrain", "-w", spare, "--promote-if-better", "--no-report", "-q") == 130
    assert champion(spare) == before and not history(spare)
    trained = {r.name: r.weights.stat().st_mtime_ns for r in list_runs(Workspace(spare))}
    assert len(trained) == (3 if step == "refit" else 4)
    found = retrain(spare, capsys, "--promote-if-better")
    assert found["promoted"] and champion(spare) == found["serving"]
    after = {r.name: r.weights.stat().st_mtime_ns for r in list_runs(Workspace(spare))}
    assert {name: after[name] for name in trained} == trained and len(after) == 4


def test_a_second_retrain_does_nothing_and_says_who_is_at_work(spare, capsys):
    with writer_lock(champion_folder(Workspace(spare)) / "retrain"):
        done = subprocess.run(
            [sys.executable, "-m", "barcast", "retrain", "-w", str(spare), "--promote-if-better"],
            capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 75
    assert "another retrain is at work" in done.stderr and f"process {os.getpid()}" in done.stderr
    assert len(list_runs(Workspace(spare))) == 2 and not history(spare)


def test_a_champion_of_somebody_elses_in_the_meantime_stays(spare, capsys, monkeypatch):
    own = room._judge

    def meanwhile(workspace, *arguments):
        found = own(workspace, *arguments)
        pointer.promote(workspace, read_champions(workspace).current.evaluated)
        other = next(r for r in list_runs(workspace) if r.name == found.challenger)
        pointer.write_champions(
            workspace, read_champions(workspace).followed_by(pointer.Reign.now(other.name, other.name, ""))
        )
        return found

    monkeypatch.setattr(room, "_judge", meanwhile)
    assert run("retrain", "-w", spare, "--promote-if-better", "--no-report", "-q") == 5
    assert "has become champion meanwhile" in capsys.readouterr().err
    assert "final" not in champion(spare) and not history(spare)


def test_without_a_champion_there_is_nothing_to_retrain(spare, capsys):
    shutil.rmtree(spare / "champion")
    for flags in ([], ["--dry-run"]):
        assert run("retrain", "-w", spare, *flags) == 5
        assert "no champion to retrain" in capsys.readouterr().err


@pytest.mark.soak
def test_a_retrain_killed_at_random_moments_ends_like_one_that_was_not(spare, grown, tmp_path, soak_table):
    """SIGKILL, again and again, each a little later; the pointer and the weights are those of a calm run."""
    calm = tmp_path / "calm"
    subprocess.run(["cp", "-r", str(grown), str(calm)], check=True)
    command = [sys.executable, "-m", "barcast", "retrain", "--promote-if-better", "--no-report", "-q", "-w"]
    with soak_table.judging("pipeline", "SIGKILL at 12 random moments of a retrain"):
        subprocess.run([*command, str(calm)], check=True)
        rng = np.random.default_rng(0)
        for patience in np.sort(rng.uniform(0.5, 8.0, 12)):
            process = subprocess.Popen([*command, str(spare)], stdout=subprocess.DEVNULL)
            time.sleep(patience)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert champion(spare) in (champion(calm), champion(grown))
        subprocess.run([*command, str(spare)], check=True)
        weights = [
            {run.name: run.weights.read_bytes() for run in list_runs(Workspace(root))}
            for root in (calm, spare)
        ]
        assert weights[0] == weights[1] and champion(spare) == champion(calm)


# --- schedules ---------------------------------------------------------------------------------------------

HARD = "/srv/my data/100% $HOME \"a\" 'b' \\x"


def unquoted_by_systemd(line: str) -> list[str]:
    """Words of an ExecStart line as systemd reads them, of which all are in quotation marks or plain."""
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]


def test_units_hold_what_they_should(capsys):
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str
    parser.read_string(schedule(Workspace(Path(HARD)), "systemd-service"))
    words = unquoted_by_systemd(parser["Service"]["ExecStart"])
    assert words[-5:] == ["retrain", "--promote-if-better", "--quiet", "-w", HARD]
    assert Path(words[0]).is_file() and parser["Service"]["Type"] == "oneshot"
    assert parser["Service"]["SuccessExitStatus"] == "75"
    parser.read_string(schedule(Workspace(Path(HARD)), "systemd-timer"))
    assert parser["Timer"]["OnCalendar"].startswith("Sun") and parser["Timer"]["Persistent"] == "true"
    with pytest.raises(UsageError, match="line break"):
        schedule(Workspace(Path("/a\nb")), "cron")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path):
    for kind in ("service", "timer"):
        text = schedule(Workspace(Path(HARD)), f"systemd-{kind}")
        (tmp_path / f"barcast-retrain.{kind}").write_text(text)
    verify = ["systemd-analyze", "verify", *map(str, sorted(tmp_path.glob("barcast-retrain.*")))]
    assert (done := subprocess.run(verify, capture_output=True, text=True)).returncode == 0, done.stderr
    assert "barcast-retrain" not in done.stderr  # warnings name the file
    timer = tmp_path / "barcast-retrain.timer"
    timer.write_text(timer.read_text().replace("Sun *", "Someday *"))
    assert "Someday" in subprocess.run(verify, capture_output=True, text=True).stderr  # it does look


def test_the_crontab_line_runs_the_command_in_a_folder_of_any_name(tmp_path):
    """Cron takes the backslash before a percent sign away and hands the rest to a shell."""
    (line,) = [one for one in schedule(Workspace(Path(HARD)), "cron").splitlines() if not one.startswith("#")]
    *when, command = line.split(" ", 5)
    assert when == ["0", "22", "*", "*", "0"]
    assert "%" not in command.replace("\\%", "")
    seen = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command.partition(' >> ')[0]}".replace("\\%", "%")],
        capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    assert seen[-5:] == ["retrain", "--promote-if-better", "--quiet", "-w", HARD]
    assert (for_cron("a b%"), for_systemd('a"%$')) == ("'a b\\%'", '"a\\"%%$$"')


@pytest.mark.parametrize("kind", ["cron", "systemd-service"])
def test_a_schedule_calls_with_the_options_beside_it(tmp_path, capsys, kind):
    typed = ["--min-gain", "0.005", "--when-unclear", "promote", "--min-sessions", "30", "--no-report"]
    assert run("retrain", "--template", kind, "-w", tmp_path, "--json", *typed) == 0
    line = next(one for one in capsys.readouterr().out.splitlines() if " --promote-if-better " in one)
    words = shlex.split(line.partition(" >> ")[0])
    asked = ["retrain", "--promote-if-better", "--quiet", *typed, "--json", "-w", str(tmp_path)]
    assert words[-len(asked) :] == asked


def test_what_a_schedule_would_not_read_is_refused(tmp_path, capsys):
    for typed, said in (
        (["cron", "--dry-run"], "only prints"),
        (["systemd-timer", "--margin", "0.005"], "a timer only says when, and has no use for --margin 0.005"),
        (["cron", "--margin", "2"], "`margin` is 0 or more and below 1"),
    ):
        assert run("retrain", "-w", tmp_path, "--template", *typed) == 2
        assert said in capsys.readouterr().err


def test_templates_are_printed_and_nothing_is_touched(tmp_path, capsys):
    for kind in TEMPLATES:
        capsys.readouterr()
        assert run("retrain", "--template", kind, "-w", tmp_path / "ws") == 0
        text = capsys.readouterr().out
        assert text == schedule(Workspace(tmp_path / "ws"), kind) and text.endswith("\n")
    assert not list(tmp_path.iterdir())
