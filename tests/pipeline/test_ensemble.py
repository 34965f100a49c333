"""Several seeds as one run: each member is the single run of its seed, and the run is their mean."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import barcast
from barcast.core.errors import UsageError
from barcast.core.predictions import read_predictions
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, list_runs
from barcast.core.workspace import Workspace
from barcast.pipeline.diagnose import diagnose
from barcast.pipeline.members import curves
from barcast.pipeline.plan import plan_train
from barcast.pipeline.settings import from_run, resolve
from barcast.pipeline.train import refit, train
from barcast.pipeline.tune import plan_search
from barcast.tracking.base import step_and_numbers
from barcast.training import loop
from barcast.training.checkpoint import load_tensors, unpack
from tests.journey.test_journey import DECLARED, run, write_market

SMALL = {
    "features": "core12", "hidden_size": 8, "num_layers": 1, "look_back_window": 10, "stretch_length": 20,
    "batch_size": 2000, "epochs": 2, "amp": "off", "threads": 1, "seed": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with the runs of seeds 3 and 4, and the ensemble of both."""
    root = tmp_path_factory.mktemp("ensemble")
    write_market(root / "bars", sessions=500)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED, "--quiet") == 0
    for more in ({}, {"seed": 4}, {"num_seeds": 2}):
        train(Workspace(root), resolve(Workspace(root), "lstm", {**SMALL, **more}))
    return root


def three(root):
    """The runs of seed 3, seed 4, and the ensemble."""
    runs = [r for r in list_runs(Workspace(root)) if r.info["model"] == "lstm" and not r.info.get("final")]
    found = {(r.read("config.json")["seed"], "members" in r.info): r for r in runs}
    return found[3, False], found[4, False], found[3, True]


def test_each_member_is_the_single_run_of_its_seed_bit_for_bit(place):
    *single, both = three(place)
    tensors = load_tensors(both.weights)[0]
    for number, one in enumerate(single):
        alone, member = load_tensors(one.weights)[0], unpack(f"members.{number}", tensors)
        assert alone.keys() == member.keys()
        assert all(torch.equal(alone[name], member[name]) for name in alone)
        told = both.info["members"][number]
        assert {k: told[k] for k in ("best_score", "best_step", "steps")} == {
            k: one.info[k] for k in ("best_score", "best_step", "steps")
        }
    assert not list(both.path.rglob("checkpoint.safetensors"))


def test_its_scores_are_the_mean_and_its_row_says_so(place):
    *single, both = three(place)
    tables = [read_predictions(one.predictions)["score"].to_numpy() for one in (*single, both)]
    assert tables[2] == pytest.approx((tables[0] + tables[1]) / 2, abs=1e-6)
    assert np.abs(tables[0] - tables[1]).max() > 1e-3
    assert read_predictions(both.predictions)["model"].unique().to_list() == ["lstm, mean of 2 seeds"]
    assert "mean of 2 seeds" in (both.path / "card.md").read_text()
    compared = barcast.compare([one.name for one in (*single, both)], workspace=place)
    rows = {row.model: row.num_seeds for row in compared.comparisons[0].all_rows.rows}
    assert rows["lstm"] == 2 and rows["lstm, mean of 2 seeds"] == 1
    served = barcast.predict(both.name, workspace=place, allow_old=True).table
    alone = [barcast.predict(one.name, workspace=place, allow_old=True).table for one in single]
    joined = served.join(alone[0], on="symbol", suffix="_a").join(alone[1], on="symbol", suffix="_b")
    assert len(joined) == 40
    assert joined["score"].to_numpy() == pytest.approx(
        (joined["score_a"] + joined["score_b"]).to_numpy() / 2, abs=1e-6
    )


def test_one_seed_changes_nothing(place):
    alone, _, both = three(place)
    config = from_run(alone.read("config.json"))
    assert not {"num_seeds", "warm_start"} & set(config.identity()["train"])
    assert from_run(both.read("config.json")).identity()["train"]["num_seeds"] == 2
    assert not any(name.startswith("members") for name in load_tensors(alone.weights)[0])
    old = alone.read("config.json")
    del old["train"]["num_seeds"], old["train"]["warm_start"]  # as runs of before wrote it
    assert from_run(old) == config


def test_whoever_reads_the_curve_finds_each_network_s_own(place):
    *single, both = three(place)
    for one, lines in zip(single, curves(both).values(), strict=True):
        told = [{k: v for k, v in line.items() if k not in ("member", "total_step")} for line in lines]
        for name in ("step", "train_loss", "stop_score"):
            assert [line[name] for line in told] == [line[name] for line in one.read_metrics()]
    assert list(curves(both)) == [3, 4] and list(curves(single[0])) == [None]
    steps = [step_and_numbers(line)[0] for line in both.read_metrics()]
    assert steps == sorted(set(steps))  # trackers never go back
    assert step_and_numbers(both.read_metrics()[-1])[1].keys() >= {"seed-4/train_loss"}
    found = diagnose(Workspace(place), both)
    assert any("first network" in note.en for note in found.notes)
    assert run("report", both.name, "-w", place, "-q") == 0
    page = (both.path / "report.html").read_text()
    assert "seed 3" in page and "seed 4" in page and "2 个种子的平均" in page
    vectors = barcast.embeddings(both.name, workspace=place).vectors
    assert vectors.shape == (40, 16)


class _Killed(Exception):
    pass


def test_a_kill_costs_one_member_at_most_and_changes_no_bit(place, monkeypatch):
    here = Workspace(place)
    config = resolve(here, "lstm", {**SMALL, "num_seeds": 2, "weight_decay": 0.011})
    whole = train(here, config)
    wanted = load_tensors(whole.run.weights)[0]
    lines = [
        {k: line[k] for k in ("member", "total_step", "train_loss")} for line in whole.run.read_metrics()
    ]
    seen, evaluate, limit = [], loop._Loop._evaluate, len(lines) - 1

    def killed(self):
        evaluate(self)
        seen.append((self.config.seed, self.state.step))
        if len(seen) == limit:  # in the second network's last epoch
            raise _Killed

    monkeypatch.setattr(loop._Loop, "_evaluate", killed)
    with pytest.raises(_Killed):
        train(here, config, fresh=True, market=whole.market)
    assert {seed for seed, _ in seen} == {3, 4}
    seen.clear()
    limit = 0  # nothing kills it now
    again = train(here, config, market=whole.market).run
    assert {seed for seed, _ in seen} == {4}
    found = load_tensors(again.weights)[0]
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert [{k: line[k] for k in lines[0]} for line in again.read_metrics()] == lines


def test_a_refit_repeats_each_member_s_own_best_step(place):
    _, _, both = three(place)
    folder = RunFolder(both.path)
    members = [{**one, "best_step": step} for one, step in zip(both.info["members"], (2, 5), strict=True)]
    folder.update(members=members)
    config = from_run(both.read("config.json"))
    final = refit(Workspace(place), both, config, progress=Progress(False))
    share = final.info["num_teaching_rows"] / both.info["num_teaching_rows"]
    assert [one["steps"] for one in final.info["members"]] == [round(2 * share), round(5 * share)]
    assert barcast.predict(both.name, workspace=place, allow_old=True).run == final.name


def test_a_plan_counts_every_seed_and_a_search_refuses_several(place):
    config = resolve(Workspace(place), "lstm", {**SMALL, "num_seeds": 3})
    plan = plan_train(Workspace(place), config)
    single = replace(plan, work=replace(plan.work, train=replace(plan.work.train, num_seeds=1)))
    assert plan.run_seconds == pytest.approx(3 * single.run_seconds)
    assert plan.host.components["weights of finished seeds"] == 2 * plan.host.components["weights"]
    for flags in ({"num_seeds": 2}, {"warm_start": "champion"}):
        with pytest.raises(UsageError, match="a search judges single networks"):
            plan_search(Workspace(place), "lstm", {**SMALL, **flags})


def test_every_line_says_which_seed_it_is_about(place, capsys):
    typed = [word for name, value in SMALL.items() if name not in ("seed", "stretch_length")
             for word in (f"--{name.replace('_', '-')}", value)]  # fmt: skip
    assert run("train", "lstm", "-w", place, *typed, "--epochs", "1", "--threads", "0", "--seeds", "2",
               "--no-report") == 0  # fmt: skip
    said = capsys.readouterr().err.splitlines()
    assert "num_seeds=2" in "\n".join(said)
    assert [line[:17] for line in said if " steps, best stop" in line] == [
        "seed 0 (1 of 2): ",
        "seed 1 (2 of 2): ",
    ]
    newest = list_runs(Workspace(place))[-1]
    assert newest.info["threads"] == newest.info["members"][1]["threads"] > 0


def test_progress_names_its_subject_within_the_block_only():
    stream = io.StringIO()
    progress = Progress(True, stream)
    with progress.about("seed 5 (1 of 3): "):
        progress.note("a note")
        progress.step("a step", final=True)
    progress.note("the rest")
    assert stream.getvalue() == "seed 5 (1 of 3): a note\nseed 5 (1 of 3): a step\nthe rest\n"


def test_trained_afresh_it_keeps_nothing_that_was_measured_before(place):
    *_, both = three(place)
    created, before = both.info["created"], load_tensors(both.weights)[0]
    both.update(halvings=[{"step": 0, "parts": 2}], shard_rows=9, retrain={"choice": "new"}, threads=3)
    both.update(num_trials=4, tuned_by="tune-lstm-1", tuned_until="2020-01-02")
    member = RunFolder(both.path / "members" / "3")
    member.update(halvings=[{"step": 0, "parts": 2}], threads=3)
    for folder in (both, member):
        folder.write("profile.json", {})
    again = train(Workspace(place), from_run(both.read("config.json")), fresh=True).run
    assert again.name == both.name and again.info["created"] == created
    assert not {"halvings", "retrain"} & {*again.info, *member.info}
    assert (again.info["threads"], member.info["threads"], again.info["shard_rows"]) == (1, 1, 0)
    assert (again.info["num_trials"], again.info["tuned_until"]) == (4, "2020-01-02")
    assert not list(both.path.glob("**/profile.json"))
    assert all(torch.equal(before[name], tensor) for name, tensor in load_tensors(again.weights)[0].items())


def test_seeds_of_one_recipe_are_one_row_and_recipes_are_told_apart(place, tmp_path):
    """A mean over runs of different widths is the score of nothing that anybody could train."""
    place = shutil.copytree(place, tmp_path / "ws")  # for runs that no other test expects
    one, two, _ = three(place)
    pooled = barcast.compare([one.name, two.name], workspace=place).comparisons[0]
    (row,) = [row for row in pooled.all_rows.rows if row.model.startswith("lstm")]
    assert row.num_seeds == 2
    wider = train(
        Workspace(place), resolve(Workspace(place), "lstm", {**SMALL, "hidden_size": 12, "seed": 5})
    ).run
    found = barcast.compare([one.name, two.name, wider.name], workspace=place).comparisons[0]
    rows = {row.model: row for row in found.all_rows.rows if row.model.startswith("lstm")}
    assert {name: row.num_seeds for name, row in rows.items()} == {
        f"lstm [{one.name}]": 2, f"lstm [{wider.name}]": 1,
    }  # fmt: skip
    primary = found.primary
    assert rows[f"lstm [{one.name}]"].scores[primary].value == row.scores[primary].value
