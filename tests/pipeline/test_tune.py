"""A search looks at `stop` alone, survives kills, and its number of trials goes wherever its scores go."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
from dataclasses import replace

import numpy as np
import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.errors import RunError, UsageError
from barcast.core.workspace import Workspace
from barcast.evaluation.render import to_text
from barcast.models.registry import model_entries
from barcast.pipeline.market import load_market
from barcast.pipeline.search import Search
from barcast.pipeline.searched import check_search_knows_nothing_later
from barcast.pipeline.settings import resolve
from barcast.pipeline.trials import Bench, Worker, with_options
from barcast.pipeline.tune import plan_search
from barcast.training.config import lr_for
from barcast.tuning.study import MAX_ATTEMPTS, open_study

#: A network that trains in a third of a second.
TINY = {
    "features": "core12", "epochs": 2, "batch_size": 512, "look_back_window": 20, "hidden_size": 8,
    "num_layers": 1, "stock_embedding_dim": 2, "amp": "off", "threads": 1, "evaluations_per_epoch": 2,
}  # fmt: skip
SPACE = "lr = { low = 1e-4, high = 1e-1, log = true }\ndropout = { low = 0.0, high = 0.5 }\n"


@pytest.fixture
def place(stored_market, tmp_path):
    """A workspace of one's own with the market, and a space."""
    shutil.copytree(stored_market / "market", tmp_path / "market")
    (tmp_path / "space.toml").write_text(SPACE)
    return tmp_path


def search(place, model="mlp", trials=4, **more):
    return barcast.tune(model, workspace=place, space=place / "space.toml", trials=trials, **{**TINY, **more})


def outcomes(done):
    return [(r.state, r.score, r.options) for r in done.trials if r.is_tried]


# --- what varies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [e.name for e in model_entries() if e.kind in ("network", "tabular")])
def test_every_model_has_a_space_that_can_be_written_and_read_again(model, tmp_path):
    place = Workspace(tmp_path)
    config, space = plan_search(place, model)
    (tmp_path / "space.toml").write_text(space.to_toml())
    assert plan_search(place, model, space_file=tmp_path / "space.toml") == (config, space)
    assert not {each.name for each in space.parameters} & {"seed", "device", "threads", "horizons"}


def test_what_is_given_is_fixed_and_a_file_says_where_to_start(tmp_path):
    (tmp_path / "c.toml").write_text("[train]\nlr = 0.002\n")
    config, space = plan_search(Workspace(tmp_path), "lstm", {"dropout": 0.2}, tmp_path / "c.toml")
    assert "dropout" not in space.plain() and "lr" in space.plain()
    assert (config.options.dropout, config.train.lr) == (0.2, 0.002)
    sized = plan_search(Workspace(tmp_path), "lstm", {"size": "small"})[1].plain()
    assert not {"hidden_size", "num_layers"} & set(sized) and "dropout" in sized


@pytest.mark.parametrize(
    ("text", "found", "todo"),
    [
        ("hiden_size = [8, 16]", "`hiden_size` cannot be tuned", "did you mean `hidden_size`?"),
        ("horizons = [[1], [5]]", "`horizons` cannot be tuned", "it changes what is asked"),
        ("seed = [1, 2]", "`seed` cannot be tuned", "by what luck"),
        ("device = ['cpu', 'cuda']", "`device` cannot be tuned", "not how well"),
        ("lr = 0.1", "lr: expected choices or a range, found `0.1`", "lr = [A, B]"),
        ("lr = [0.1]", "lr: one choice is no choice", "give it as an option"),
        ("lr = [0.1, 0.1]", "lr: a choice stands there twice", "once"),
        ("lr = { low = 0.1 }", "lr: a range without `high`", "low = A"),
        ("lr = { low = 0.1, high = 1, logg = true }", "lr: unknown key `logg`", "did you mean `log`?"),
        ("lr = { low = 0.1, high = 0.01 }", "lr: expected low < high", "found"),
        ("lr = { low = 0, high = 0.01, log = true }", "lr: expected low < high", "found"),
        ("hidden_size = { low = 1.5, high = 9 }", "hidden_size: the option takes whole numbers", ""),
        ("hidden_size = ['a', 'b']", "hidden_size: expected int, found `'a'`", "whole number"),
        ("optimizer = { low = 1, high = 2 }", "optimizer: a range is for numbers", "list the choices"),
        ("dropout = [0.1, 1.5]", "`dropout` must be in [0, 1), got 1.5", ""),
        ("hidden_size = [0, 8]", "`hidden_size` must be at least 1, got 0", ""),
        ("features = ['core12', 'tech49']", "`tech49`", "tech48"),
        ("", "nothing is left to vary", "--space"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_with_the_remedy(tmp_path, text, found, todo):
    (tmp_path / "space.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        plan_search(Workspace(tmp_path), "lstm", space_file=tmp_path / "space.toml")
    assert found in str(caught.value) and todo in str(caught.value)


def test_a_value_is_refused_only_where_no_other_value_makes_sense_of_it(tmp_path):
    """A width of 6 fits three heads, though not the four that a transformer has by default."""
    (tmp_path / "space.toml").write_text("hidden_size = [6, 64]\nnum_heads = [3, 4]\n")
    plan_search(Workspace(tmp_path), "transformer", space_file=tmp_path / "space.toml")
    (tmp_path / "space.toml").write_text("hidden_size = [6, 64]\nnum_heads = [2, 4]\n")
    with pytest.raises(UsageError, match="must be a multiple"):
        plan_search(Workspace(tmp_path), "transformer", space_file=tmp_path / "space.toml")


# --- the number of trials travels --------------------------------------------------------------------------


def test_the_best_is_trained_by_one_command_and_remembers_the_number_of_trials(place, capsys):
    done = search(place, trials=3)
    assert done.best.score == max(r.score for r in done.trials)
    assert done.trials[0].options == pytest.approx({"lr": 3e-3, "dropout": 0.1})  # where it starts
    assert (
        _run(["train", "--tuned", done.name[:10], "-w", str(place), "--threads", "1", "--final", "-q"], False)
        == 0
    )
    assert "mlp (best of 3 trials) " in capsys.readouterr().out
    runs = {run.info["model"]: run for run in barcast.runs(workspace=place) if not run.info.get("final")}
    trained = runs["mlp"]
    assert trained.info["best_score"] == done.best.score  # the same training, bit for bit
    assert (trained.info["num_trials"], trained.info["tuned_by"]) == (3, done.name)
    assert trained.info["tuned_until"] == done.until < trained.info["chosen_until"]
    assert "3 trials" in (trained.path / "card.md").read_text()
    assert "num_trials" not in runs["ridge"].info
    refit = next(run for run in barcast.runs(workspace=place) if run.info.get("final"))
    assert refit.info["tuned_until"] == done.until
    assert refit.info["num_trials"] == 3 and "3 trials" in (refit.path / "card.md").read_text()
    assert "best of 3 trials" in (trained.path / "report.html").read_text()
    compared = barcast.compare(workspace=place).comparisons[0]
    shown = to_text(compared)
    assert "mlp (best of 3 trials)" in shown and "chosen among 3 trials on `stop`" in shown
    assert "ridge (best" not in shown
    assert "mlp（3 次试验中最好）" in to_text(compared, "zh")
    assert {row.model: row.num_trials for row in compared.all_rows.rows if row.num_trials} == {"mlp": 3}
    capsys.readouterr()
    assert _run(["runs", "-w", str(place)], False) == 0
    assert "(best of 3 trials)" in capsys.readouterr().out


def test_options_chosen_by_labels_that_are_to_judge_a_run_are_refused(place):
    (place / "space.toml").write_text("penalties = [[0.001], [0.01]]\n")
    done = barcast.tune("ridge", workspace=place, space=place / "space.toml", trials=2, features="core12")
    told = tomllib.loads(done.best_file.read_text())["tuned"]
    assert told["until"] == done.until == json.loads((done.path / "tune.json").read_text())["until"]
    config = resolve(Workspace(place), "ridge", file=done.best_file)
    market = load_market(Workspace(place), config.data)
    times, spans = market.bars.calendar.times, market.plan.spans
    stop_ends, weigh_begins = times[spans["stop"][1]], times[spans["weigh"][0]]
    assert times[spans["stop"][0]] < np.datetime64(done.until) <= stop_ends
    early = str(times[spans["route"][0]])  # as of then, `stop` of the search lies in `weigh` and later
    for how in ({"tuned": done.name}, {"config": done.best_file}):
        with pytest.raises(
            RunError, match=f"by labels known until {done.until}, and `weigh` of this run begins"
        ) as no:
            barcast.train("ridge", workspace=place, asof=early, report=False, **how)
        assert "barcast tune ridge" in no.value.todo
    for until, good in ((stop_ends, True), (weigh_begins, False), ("", True)):
        asked = replace(config, tuned=replace(config.tuned, until=str(until)))
        if good:
            check_search_knows_nothing_later(asked, market)
        else:
            with pytest.raises(RunError, match="chosen by what is to judge this run"):
                check_search_knows_nothing_later(asked, market)


def test_options_that_were_trained_before_the_search_chose_them_count_from_then_on(place):
    (place / "space.toml").write_text("penalties = [[0.001], [0.01]]\n")
    done = barcast.tune("ridge", workspace=place, space=place / "space.toml", trials=2, features="core12")
    by_hand = barcast.train(
        "ridge", workspace=place, features="core12", penalties=done.best.options["penalties"], report=False
    )
    assert "num_trials" not in by_hand.run.info
    found = barcast.train("ridge", workspace=place, config=done.best_file, report=False)
    assert found.run.name == by_hand.run.name and found.run.info["num_trials"] == 2
    again = barcast.train("ridge", workspace=place, config=done.best_file, report=False, fresh=True)
    assert again.run.info["num_trials"] == 2


def test_the_options_of_another_model_are_refused_in_a_file_and_left_alone_in_the_workspace(place):
    text = '[train]\nlr = 0.1\n[tuned]\nmodel = "lstm"\nrun = "tune-lstm-1"\ntrials = 30\n'
    (place / "best.toml").write_text(text)
    assert resolve(Workspace(place), "lstm", file=place / "best.toml").tuned.trials == 30
    with pytest.raises(UsageError, match="chose these options for lstm, not gru"):
        resolve(Workspace(place), "gru", file=place / "best.toml")
    (place / "barcast.toml").write_text(text)
    assert resolve(Workspace(place), "lstm").tuned.trials == 30
    assert resolve(Workspace(place), "ridge").tuned is None
    plain = resolve(Workspace(place), "lstm", {"lr": 0.1}).identity()
    (place / "barcast.toml").unlink()
    assert resolve(Workspace(place), "lstm", {"lr": 0.1}).identity() == plain  # it shapes no result
    for table in ("", 'run = "tune-lstm-1"\ntrials = 30\nuntil = "soon"\n'):
        (place / "barcast.toml").write_text(f'[tuned]\nmodel = "lstm"\n{table}')
        with pytest.raises(UsageError, match="which search chose the options"):
            resolve(Workspace(place), "lstm")


def test_a_search_is_named_by_whoever_takes_its_best(place):
    with pytest.raises(RunError, match="no search called `tune-lstm`; this workspace has none yet"):
        barcast.train(workspace=place, tuned="tune-lstm")
    done = search(place, trials=1)
    with pytest.raises(RunError, match=f"no search called `nope`; there are: {done.name}"):
        barcast.train(workspace=place, tuned="nope")
    with pytest.raises(UsageError, match="is of mlp, not gru"):
        barcast.train("gru", workspace=place, tuned=done.name)
    with pytest.raises(UsageError, match="two sources of options"):
        barcast.train(workspace=place, tuned=done.name, config=place / "space.toml")
    done.best_file.unlink()
    with pytest.raises(RunError, match="is not finished"):
        barcast.train(workspace=place, tuned=done.name)


# --- what is looked at -------------------------------------------------------------------------------------


def test_a_rate_at_its_default_is_that_of_the_width(tmp_path):
    def rate(flags, tables):
        return with_options(resolve(Workspace(tmp_path), "lstm", flags), tables).train.lr

    wide = {"lstm": {"hidden_size": 256}}
    assert (
        rate({}, wide) == lr_for(256) == resolve(Workspace(tmp_path), "lstm", {"hidden_size": 256}).train.lr
    )
    assert rate({"hidden_size": 256}, {"lstm": {"hidden_size": 32}}) == 3e-3
    assert rate({"lr": 2e-3}, wide) == 2e-3
    assert rate({}, {**wide, "train": {"lr": 5e-3}}) == 5e-3


def test_only_stop_is_looked_at(place):
    """Outcomes of later segments may be anything: no score of any trial moves. Those of `stop` may not."""
    config, space = plan_search(Workspace(place), "mlp", TINY, space_file=place / "space.toml")
    true = load_market(Workspace(place), config.data)

    def score(market):
        options = space.by_owner({"lr": 1e-2, "dropout": 0.1})
        bench = Bench(Workspace(place), config, market)
        return bench.attempt(options, 1, place / "scratch", lambda step, best: False)["score"]

    def changed(*segments):
        y = true.labels.y.copy()
        rows = true.rows_of(*segments)
        y[rows] = np.random.default_rng(0).permutation(y[rows])
        return replace(true, labels=replace(true.labels, y=y))

    expected = score(true)
    assert score(changed("weigh", "route", "test")) == expected
    assert score(changed("stop")) != expected
    assert not (place / "scratch").exists()


@pytest.mark.parametrize("parallel", [1, 2])
def test_options_that_were_tried_are_not_trained_again(place, parallel):
    (place / "space.toml").write_text("dropout = [0.1, 0.2]\n")
    done = search(place, trials=6, parallel=parallel)
    finished = [r for r in done.trials if r.state == "complete"]
    scores = {r.options["dropout"]: r.score for r in finished}
    assert done.num_trials == 6 and all(r.score == scores[r.options["dropout"]] for r in finished)
    assert sum(r.seconds > 0 for r in finished) <= 2 * parallel  # two at once may try the same


def test_trials_that_fall_behind_are_pruned(place):
    low = [1e-7 * (1 + number / 10) for number in range(8)]
    high = [3e-2 * (1 - number / 20) for number in range(8)]
    (place / "space.toml").write_text(f"lr = [{', '.join(map(str, [*low, *high]))}]\n")
    done = search(place, trials=14)
    pruned = [r for r in done.trials if r.state == "pruned"]
    assert pruned and all(r.options["lr"] < 1e-6 and r.score < done.best.score for r in pruned)
    assert done.best.options["lr"] > 1e-2 and done.num_trials == 14


def test_trials_that_cannot_be_trained_fail_with_the_reason_and_count(place):
    (place / "space.toml").write_text("look_back_window = [20, 5000]\n")
    done = search(place, trials=4, look_back_window=None)
    failed = [r for r in done.trials if r.state == "failed"]
    assert failed and all(r.options["look_back_window"] == 5000 for r in failed)
    assert "no symbol has more than" in failed[0].reason
    assert done.best.options["look_back_window"] == 20 and done.num_trials == 4
    (place / "space.toml").write_text("look_back_window = [5000, 6000]\n")
    with pytest.raises(RunError, match=r"none of 2 trials has a score; the last said: `look_back_window`"):
        search(place, trials=2, look_back_window=None)


def test_feature_sets_may_vary_and_the_number_of_trials_is_of_all_calls(place):
    (place / "space.toml").write_text('features = ["core12", "ohlcv5"]\n')
    first = search(place, trials=2, features=None)
    assert {r.options["features"] for r in first.trials} <= {"core12", "ohlcv5"}
    more = search(place, trials=4, features=None)
    assert (more.name, more.num_trials) == (first.name, 4)
    assert outcomes(more)[:2] == outcomes(first)
    assert outcomes(search(place, trials=3, features=None)) == outcomes(more)  # nothing is left to do
    told = tomllib.loads(more.best_file.read_text())
    assert told["tuned"]["trials"] == 4 and told["data"]["features"] == more.best.options["features"]


# --- survival ----------------------------------------------------------------------------------------------


def finished(database):
    if not database.is_file():
        return 0
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return connection.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()[0]
    except sqlite3.OperationalError:  # its tables are being made
        return 0
    finally:
        connection.close()


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(place, tmp_path_factory):
    undisturbed = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(place, undisturbed, dirs_exist_ok=True)
    expected = outcomes(search(undisturbed, trials=5))
    code = (
        "import sys, json, barcast; barcast.tune('mlp', workspace=sys.argv[1], "
        "space=sys.argv[1] + '/space.toml', trials=5, **json.loads(sys.argv[2]))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(place), json.dumps(TINY)])
    deadline = time.monotonic() + 60
    while not any(finished(file) >= 2 for file in place.glob("runs/tune-*/study.db")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    resumed = search(place, trials=5)
    assert outcomes(resumed) == expected
    assert sum(r.state == "lost" for r in resumed.trials) <= 1
    assert not list(resumed.path.glob("work"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_search_says_what_goes_on(place, number, code):
    typed = [
        "tune",
        "mlp",
        "--space",
        str(place / "space.toml"),
        "--trials",
        "400",
        "--threads",
        "1",
        "-w",
        str(place),
    ]
    typed += ["--features", "core12", "--epochs", "2", "--hidden-size", "8", "--amp", "off", "-q"]
    child = subprocess.Popen([sys.executable, "-m", "barcast", *typed], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(finished(file) for file in place.glob("runs/tune-*/study.db")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(number)
    said = child.communicate()[1]
    assert child.returncode == code
    assert "interrupted; the same command goes on where it stopped: barcast tune mlp" in said


def kill_workers(monkeypatch, times):
    """Kill whoever is told to go on after a score, so many times; return the numbers of the trials."""
    killed, say = [], Worker.say

    def deadly(self, message):
        if "end" in message and len(killed) < times:
            killed.append(self.candidate.number)
            os.kill(self.pid, signal.SIGKILL)
        say(self, message)

    monkeypatch.setattr(Worker, "say", deadly)
    return killed


def test_a_dead_worker_costs_its_trial_nothing_but_time(place, monkeypatch, capsys):
    killed = kill_workers(monkeypatch, 1)
    done = search(place, trials=1, parallel=2, progress=True)
    assert killed == [0]
    assert "died in trial 0, which is tried again" in capsys.readouterr().err
    lost, again = done.trials
    assert (lost.state, again.state, again.options) == ("lost", "complete", lost.options)
    assert done.num_trials == 1


@pytest.mark.soak
def test_workers_that_die_again_and_again(place, monkeypatch, soak_table):
    with soak_table.judging("tune", "5 workers killed in a search of 8 trials by 2 processes"):
        killed = kill_workers(monkeypatch, 5)
        done = search(place, trials=8, parallel=2)
        assert {r.number for r in done.trials if r.state == "lost"} == set(killed)
        assert done.num_trials == 8 and len({str(r.options) for r in done.trials if r.is_tried}) == 8


def test_options_that_kill_every_process_are_given_up(tmp_path):
    (tmp_path / "space.toml").write_text(SPACE)
    _, space = plan_search(Workspace(tmp_path), "mlp", space_file=tmp_path / "space.toml")
    for _ in range(MAX_ATTEMPTS):  # each call ends in the middle of a trial
        with open_study(tmp_path / "study.db", "s", space, 0, warmup=1) as study:
            study.begin({"lr": 1e-3})
            candidate = study.ask()
    assert candidate.options["lr"] == 1e-3
    with open_study(tmp_path / "study.db", "s", space, 0, warmup=1) as study:
        study.begin({"lr": 1e-3})
        assert [r.state for r in study.trials()] == ["lost"] * (MAX_ATTEMPTS - 1) + ["failed"]
        assert len({str(r.options) for r in study.trials()}) == 1
        assert "cut off 5 times" in study.trials()[-1].reason
        assert study.ask().options["lr"] != 1e-3


def test_a_time_budget_begins_no_further_trial(place, monkeypatch):
    def settle(self, candidate, answer, own=Search.settle):
        own(self, candidate, answer)
        self._deadline = 0.0  # the budget is spent in the first trial

    monkeypatch.setattr(Search, "settle", settle)
    assert search(place, trials=50, time_budget=5.0).num_trials == 1
    with pytest.raises(UsageError, match="`time_budget` must be positive"):
        search(place, time_budget=0.0)


# --- the command -------------------------------------------------------------------------------------------


def test_the_command_plans_searches_and_speaks_json(place, capsys):
    options = ["tune", "ridge", "--features", "core12", "-w", str(place)]
    assert _run([*options, "--list-space"], False) == 0
    assert set(tomllib.loads(capsys.readouterr().out)) == {"penalties"}
    assert _run([*options, "--dry-run", "--json", "-q"], False) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["done"] == 0 and not (place / "runs" / planned["tune"]).exists()
    assert _run([*options, "--trials", "3", "--json", "-q"], False) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tune"] == planned["tune"] and found["num_trials"] == len(found["trials"]) == 3
    assert _run([*options, "--trials", "3"], False) == 0
    said = capsys.readouterr()
    assert "best of 3 trials on `stop`" in said.out and "that score flatters" in said.out
    assert f"next: barcast train ridge --tuned {found['tune']}" in said.out
    assert "3 of 3 trials are done" in said.err
    assert not barcast.runs(workspace=place)  # a search is no run
