"""`--size auto`: a plan chooses the candidates, `stop` among them, and every trial is counted and made once."""

import json
import shutil
from dataclasses import replace

import pytest

import barcast
from barcast.cli.app import _run
from barcast.core.errors import OutOfMemoryError, ResourceError, UsageError
from barcast.core.workspace import Workspace
from barcast.models import registry
from barcast.pipeline import size
from barcast.pipeline.dataset import Dataset
from barcast.pipeline.settings import resolve
from barcast.pipeline.size import choose_size
from barcast.pipeline.trials import Bench
from barcast.pipeline.tune import plan_search
from barcast.planning import plan as planning
from barcast.planning.memory import MemoryPlan
from barcast.planning.rules import suiting_scheme
from tests.planning.test_plan import MEASURED

#: Networks that train in a third of a second.
TINY = {
    "features": "core12", "epochs": 2, "batch_size": 512, "look_back_window": 20, "stretch_length": 40, "amp": "off",
    "threads": 1,
}  # fmt: skip
#: The larger one has a lower learning rate of its own.
PRESETS = {"small": {"hidden_size": 8}, "large": {"hidden_size": 96}}


@pytest.fixture
def place(stored_market, tmp_path):
    """A workspace of one's own with the market; the network without a preset has a width of 4."""
    shutil.copytree(stored_market / "market", tmp_path / "market")
    (tmp_path / "barcast.toml").write_text(
        "[mlp]\nhidden_size = 4\nnum_layers = 1\nstock_embedding_dim = 2\n"
    )
    return Workspace(tmp_path)


@pytest.fixture
def tiny(monkeypatch):
    """Small presets, no probe process, labels that support everything."""
    entry = replace(registry.model_entry("mlp"), sizes=PRESETS)
    monkeypatch.setitem(registry._ENTRIES, "mlp", entry)
    monkeypatch.setattr(planning, "run_probe", lambda work: MEASURED)
    monkeypatch.setattr(size, "independent_labels", lambda *_: 10**9)


@pytest.fixture
def many_labels(monkeypatch):
    monkeypatch.setattr(size, "independent_labels", lambda *_: 10**9)


def planner(peaks=None, seconds=1.0):
    """Plans whose host memory and time of an epoch are given by width."""

    def make(work):
        host = MemoryPlan({}, {"train": (peaks or {}).get(work.options.hidden_size, 1)}, 1000, "test")
        network = planning.Compute("measured", 1, 1, 1, seconds, seconds, 0, 0, 1, 1, 1)
        scheme = suiting_scheme(5, 100, 100)
        return planning.Plan(work, "this", {}, 0, host, None, network, None, scheme, MEASURED, ())

    return make


class Trials:
    """An injected trial: scores by width; whoever is tried is written down."""

    def __init__(self, scores, die_at=None):
        self.scores, self.die_at, self.tried = scores, die_at, []

    def __call__(self, config, folder):
        width = config.options.hidden_size
        if width == self.die_at:
            raise KeyboardInterrupt
        self.tried.append(width)
        return self.scores[width]


def compared(place, scores, *, die_at=None, minutes=None, seconds=1.0, **flags):
    trials = Trials(scores, die_at)
    chosen = choose_size(
        place, "mlp", {**TINY, **flags}, minutes=minutes, compare=True, planned=planner(seconds=seconds), attempt=trials
    )  # fmt: skip
    return chosen, trials.tried


# --- what the plan says --------------------------------------------------------------------------------------


def test_candidates_are_the_sizes_that_fit_smallest_first(place, many_labels):
    found = choose_size(place, "lstm", {}, planned=planner())
    assert found.candidates == ("default", "small", "balanced", "large")
    assert (found.size, found.options["hidden_size"], found.num_compared) == ("large", 800, 0)
    less = choose_size(place, "lstm", {}, planned=planner({800: 950, 568: 2000}))
    assert (less.size, less.candidates) == ("small", ("default", "small"))
    names = ["default", "small", "balanced refused", "large refused"]
    assert [reason.split(":")[0] for reason in less.reasons] == names
    assert all("a tenth stays free" in reason for reason in less.reasons[2:])


def test_no_more_parameters_than_there_are_independent_labels(place):
    """36 symbols of 260 sessions support not even the smallest preset."""

    def plain(work):
        assert work.options.hidden_size == 64, "sizes that the labels rule out are not measured"
        return planner()(work)

    found = choose_size(place, "lstm", {}, planned=plain)
    assert (found.size, found.options, found.candidates) == ("default", {}, ("default",))
    smallest, *others = found.reasons
    assert all(" refused: " in reason and "independent labels" in reason for reason in others)
    assert smallest.startswith("default: 65") and "independent labels" in smallest
    assert smallest.endswith(": more than they support, but the smallest there is")


def test_trials_count_against_the_budget(place, tiny):
    """Four epochs of a second, half a second a trial: 5 s hold two sizes and one run, not a third trial."""
    flags = {**TINY, "epochs": 4}
    two = choose_size(place, "mlp", flags, minutes=5 / 60, planned=planner())
    assert (two.candidates, two.trial_seconds) == (("default", "small"), 1.0)
    assert "trials and a run would take 0:06, the budget is 0:05" in two.reasons[-1]
    assert choose_size(place, "mlp", flags, minutes=5.5 / 60, planned=planner()).size == "large"
    one = choose_size(place, "mlp", flags, minutes=0.01, planned=planner())
    assert (one.size, one.trial_seconds) == ("default", 0.0)  # the smallest is refused by memory alone
    late = "default: its run would take 0:04, the budget is 0.6 s: too long, but the smallest there is"
    assert one.reasons[0] == late
    assert one.reasons[1].startswith("small refused: trials and a run would take 0:05")
    text = choose_size(place, "mlp", flags, minutes="5s", planned=planner())
    assert text.reasons == two.reasons, "a duration with its unit is the same budget"
    with pytest.raises(UsageError, match="must be positive"):
        choose_size(place, "mlp", flags, minutes=0.0)


def test_the_minutes_of_a_search_hold_for_its_sizes_too(place, tiny, capsys, monkeypatch):
    flags = {**TINY, "size": "auto"}
    assert plan_search(place, "mlp", flags)[0].options.hidden_size == 96
    assert plan_search(place, "mlp", flags, minutes=0.01)[0].options.hidden_size == 4
    typed = ["tune", "mlp", "--size", "auto", "--time-budget", "0.01", "--dry-run", "-w", str(place.root)]
    assert _run([*typed, "--epochs", "2", "--batch-size", "512"], debug=False) == 0
    assert "trials and a run would take" in capsys.readouterr().err
    monkeypatch.setattr("barcast.pipeline.tune.TIME_BUDGET", 0.01)  # a longer search is for more trials
    assert plan_search(place, "mlp", flags, minutes=480)[0].options.hidden_size == 4

    def taken(*_, minutes, **__):
        raise UsageError(f"{minutes} minutes")

    monkeypatch.setattr("barcast.pipeline.tune.plan_search", taken)
    with pytest.raises(UsageError, match="7 minutes"):
        barcast.tune("mlp", workspace=place.root, size="auto", time_budget=7)


def test_the_same_network_is_no_second_candidate(place, tiny):
    found, tried = compared(place, {6: 0.1}, hidden_size=6)
    assert (found.candidates, tried, found.num_compared) == (("default",), [], 0)
    assert "large refused: the same network as default" in found.reasons


def test_what_makes_no_sense_is_refused(place, many_labels):
    with pytest.raises(ResourceError, match="no size of `lstm` fits this machine") as refused:
        choose_size(place, "lstm", {}, planned=planner({64: 5000}))
    assert "--batch-size" in refused.value.todo

    def unmeasurable(work):
        if work.options.hidden_size > 64:
            raise OutOfMemoryError("a few steps could not be measured")
        return planner()(work)

    found = choose_size(place, "lstm", {}, planned=unmeasurable)
    assert found.candidates == ("default",)
    assert found.reasons[1] == "small refused: a few steps could not be measured"
    with pytest.raises(UsageError, match="beside --warm-start"):
        choose_size(place, "lstm", {"warm_start": "champion"})


def test_the_config_holds_widths_and_not_the_word(place, tiny):
    config = resolve(place, "mlp", {**TINY, "size": "auto", "num_layers": 2})
    assert (config.options.hidden_size, config.options.num_layers) == (96, 2)  # an option beside a size wins
    named = resolve(place, "mlp", {**TINY, "size": "large", "num_layers": 2})
    assert config.identity() == named.identity()
    assert "auto" not in json.dumps({**config.plain(), "data": {}, "train": {}})


def test_a_plan_and_a_dry_run_train_nothing_and_say_who_will_be_compared(place, tiny, monkeypatch, capsys):
    monkeypatch.setattr(Bench, "attempt", lambda *_: pytest.fail("nothing is to be trained"))
    found = barcast.plan_train("mlp", workspace=place.root, size="auto", **TINY)
    assert found.work.options.hidden_size == 96
    assert "compares default, small, large on `stop`" in found.notes[-1]
    named = barcast.plan_train("mlp", workspace=place.root, size="large", **TINY)
    assert named.notes == found.notes[:-1]
    for verb in ("train", "tune"):
        capsys.readouterr()
        typed = [verb, "mlp", "--size", "auto", "--dry-run", "-q", "-w", str(place.root)]
        assert _run(typed, debug=False) == 0
        assert "first compares default, small, large on `stop`" in capsys.readouterr().out
        assert _run([*typed, "--json"], debug=False) == 0
        (note,) = json.loads(capsys.readouterr().out)["notes"]
        assert "first compares default, small, large on `stop`" in note


def test_a_plan_and_a_dry_run_remember_what_was_compared(place, tiny, capsys):
    scores = {4: 0.01, 8: 0.03, 96: 0.02}
    with pytest.raises(KeyboardInterrupt):
        compared(place, scores, die_at=96)
    some = choose_size(place, "mlp", TINY, planned=lambda work: pytest.fail("planned before"))
    assert (some.size, some.num_compared) == ("large", 0), "two of three tell nothing"
    assert (some.to_compare, some.trial_seconds) == (("large",), 0.5), "but are not tried again"
    told = barcast.plan_train("mlp", workspace=place.root, size="auto", **TINY).notes[-1]
    assert "`train` first compares large on `stop` (default, small before), half an epoch each" in told
    compared(place, scores)
    found = resolve(place, "mlp", {**TINY, "size": "auto"})
    assert (found.sized.size, found.sized.num_compared, found.options.hidden_size) == ("small", 3, 8)
    assert barcast.plan_train("mlp", workspace=place.root, size="auto", **TINY).notes == (
        barcast.plan_train("mlp", workspace=place.root, size="small", **TINY).notes
    )
    typed = ["train", "mlp", "--size", "auto", "--dry-run", "-w", str(place.root)]
    for name, value in TINY.items():
        typed += [f"--{name.replace('_', '-')}", str(value)] if name != "stretch_length" else []
    (place.root / "barcast.toml").write_text(
        "[mlp]\nhidden_size = 4\nnum_layers = 1\nstock_embedding_dim = 2\n[train]\nstretch_length = 40\n"
    )
    assert _run(typed, debug=False) == 0
    said = capsys.readouterr()
    assert "hidden_size=8" in said.err and "as planned and compared before" in said.err
    assert "first compares" not in said.out


# --- what `stop` says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ({4: 0.01, 8: 0.02, 96: 0.03}, "large"),
        ({4: 0.01, 8: 0.02, 96: 0.015}, "small"),  # below the best of the smaller ones, not of the smallest
        ({4: 0.03, 8: 0.02, 96: 0.025}, "default"),
        ({4: 0.02, 8: 0.01, 96: 0.02}, "large"),  # not below is enough
        ({4: -0.02, 8: "ran away", 96: -0.03}, "default"),
        ({4: "ran away", 8: -0.02, 96: -0.03}, "small"),
    ],
)
def test_the_largest_that_is_not_below_the_smaller_ones_is_taken(place, tiny, scores, chosen):
    found, tried = compared(place, scores)
    assert (found.size, found.num_compared, tried) == (chosen, 3, [4, 8, 96])
    assert sum("the largest that `stop` supports" in reason for reason in found.reasons) == 1
    for reason, told in zip(found.reasons, scores.values(), strict=True):
        assert (told if isinstance(told, str) else f"{told:.4f} on `stop`") in reason


def test_what_is_finished_is_not_tried_again(place, tiny):
    scores = {4: 0.01, 8: 0.03, 96: 0.02}
    with pytest.raises(KeyboardInterrupt):
        compared(place, scores, die_at=96)
    (file,) = place.cache.glob("sizes/mlp-*/size.json")
    assert json.loads(file.read_text())["trials"] == {"default": 0.01, "small": 0.03}
    found, tried = compared(place, {**scores, 4: 9.9}, seconds=1e9)  # nor is anything planned again
    assert (found.size, tried) == ("small", [96])
    assert compared(place, {})[1] == []
    assert compared(place, scores, seed=1)[1] == [4, 8, 96], "another question"
    assert compared(place, scores, minutes=100)[1] == [4, 8, 96], "another budget"


def test_a_size_that_memory_was_too_short_for_is_measured_again(place, tiny):
    measured = []

    def ask(planned, scores):
        trials = Trials(scores)
        return choose_size(place, "mlp", TINY, compare=True, planned=planned, attempt=trials), trials.tried

    def short(work):
        measured.append(work.options.hidden_size)
        if work.options.hidden_size == 96:
            raise OutOfMemoryError("no memory just now")
        return planner()(work)

    scores = {4: 0.01, 8: 0.03, 96: 0.05}
    found, tried = ask(short, scores)
    assert (found.size, found.num_compared, tried) == ("small", 2, [4, 8])
    assert found.reasons[-1] == "large refused: no memory just now"
    (file,) = place.cache.glob("sizes/mlp-*/size.json")
    assert "no memory" not in file.read_text()
    again, tried = ask(short, scores)
    assert (again, tried) == (found, []), "the same answer while there is none, and no trial twice"
    assert measured == [4, 8, 96, 96], "what was measured is not measured again"
    found, tried = ask(planner(), scores)
    assert (found.size, found.num_compared, tried) == ("large", 3, [96])


def test_a_probe_that_fails_of_something_else_decides_nothing(place, tiny):
    def broken(work):
        if work.options.hidden_size == 96:
            raise ResourceError("the process was ended by signal 11")
        return planner()(work)

    with pytest.raises(ResourceError, match="signal 11"):
        choose_size(place, "mlp", TINY, compare=True, planned=broken, attempt=Trials({}))
    assert not list(place.cache.glob("sizes/*/size.json"))


@pytest.mark.parametrize(
    "broken",
    [
        lambda whole: "{",
        lambda whole: "[]",
        lambda whole: json.dumps({**whole, "key": "0" * 64}),
        lambda whole: json.dumps({**whole, "more": 1}),
        lambda whole: json.dumps({**whole, "candidates": {"default": 1.0}}),
        lambda whole: json.dumps({**whole, "candidates": ["default", "small", "large"]}),
        lambda whole: json.dumps({**whole, "trials": {"giant": 1.0}}),
        lambda whole: json.dumps({**whole, "against": {"default": 1.0}}),
        lambda whole: json.dumps({**whole, "short": {"large": "no memory"}}),
        lambda whole: json.dumps({**whole, "trials": {"default": None}}),
        lambda whole: json.dumps({**whole, "trials": {"default": float("nan")}}),
    ],
)
def test_a_broken_or_foreign_file_is_ignored(place, tiny, broken):
    scores = {4: 0.01, 8: 0.03, 96: 0.02}
    compared(place, scores)
    (file,) = place.cache.glob("sizes/mlp-*/size.json")
    file.write_text(broken(json.loads(file.read_text())))
    assert compared(place, scores)[1] == [4, 8, 96]
    assert compared(place, {})[0].size == "small"


def test_without_scores_the_plan_decides_and_says_so(place, tiny, monkeypatch):
    monkeypatch.setattr(Dataset, "stop_score", lambda self: lambda rows, outputs: float("nan"))
    found = choose_size(place, "mlp", TINY, compare=True)
    assert (found.size, found.num_compared, found.until) == ("large", 0, "")
    assert "`stop` does not decide: no score on `stop` was a number" in found.reasons[-1]
    assert found.beside(None, "mlp") is None, "nothing was chosen by scores: there is nothing to count"


@pytest.mark.parametrize(
    "rate", [{}, {"lr": 3e-3}]
)  # of its own for each width, or the one that was asked for
def test_a_trial_is_the_first_half_of_a_run_of_one_epoch_and_looks_at_stop_alone(
    place, tiny, monkeypatch, rate
):
    looked_at, judged = set(), Dataset.rows_to_judge

    def watched(self, *segments):
        looked_at.update(segments)
        return judged(self, *segments)

    monkeypatch.setattr(Dataset, "rows_to_judge", watched)
    choose_size(place, "mlp", {**TINY, **rate}, compare=True)
    assert looked_at == {"stop"}
    (file,) = place.cache.glob("sizes/mlp-*/size.json")
    trials = json.loads(file.read_text())["trials"]
    assert not (file.parent / "work").exists() and not place.runs.exists()
    flags = {**TINY, **rate, "epochs": 1, "evaluations_per_epoch": 4}
    one = barcast.train("mlp", workspace=place.root, size="large", report=False, **flags)
    looks = [line["stop_score"] for line in one.run.read_metrics()]
    assert len(looks) == 4 and trials["large"] == max(looks[:2])


# --- the number of trials travels ----------------------------------------------------------------------------


def test_trials_and_reasons_go_with_the_run(place, tiny, capsys):
    def train(**more):
        return barcast.train("mlp", workspace=place.root, size="auto", report=False, **TINY, **more)

    result = train(final=True)
    info, sizes = result.run.info, ["default", *PRESETS]
    assert info["size_auto"]["num_compared"] == 3
    assert [reason.split(":")[0] for reason in info["size_auto"]["reasons"]] == sizes
    assert (info["num_trials"], info["tuned_by"]) == (3, "--size auto")
    assert info["tuned_until"] < info["chosen_until"]
    assert result.run.read("config.json")["options"]["hidden_size"] == {"default": 4, "small": 8, "large": 96}[
        info["size_auto"]["size"]
    ]  # fmt: skip
    rows = {row.model: row for row in result.compared.comparisons[0].all_rows.rows}
    assert rows["mlp"].num_trials == 3
    assert (result.final.info["num_trials"], result.final.info["size_auto"]) == (3, info["size_auto"])
    for run in (result.run, result.final):
        card = (run.path / "card.md").read_text()
        assert "options chosen among 3 trials on `stop` by `--size auto`" in card
        assert f"size `{info['size_auto']['size']}` chosen by `--size auto`: default: " in card
    before = result.run.weights.stat().st_mtime_ns
    again = train(progress=True)
    assert (again.run.name, again.run.weights.stat().st_mtime_ns) == (result.run.name, before)
    said = capsys.readouterr().err
    assert "--size auto: as planned and compared before" in said and "half an epoch of" not in said


def test_a_search_of_a_size_that_was_compared_counts_both(place, tiny):
    (place.root / "space.toml").write_text("lr = [0.001, 0.01]\n")

    def search(size):
        return barcast.tune(
            "mlp", workspace=place.root, size=size, space=place.root / "space.toml", trials=1, **TINY
        )

    found = search("auto")
    assert (found.num_trials, found.size_trials, len(found.trials)) == (4, 3, 1)
    assert "trials = 4" in found.best_file.read_text()
    chosen = json.loads(next(place.cache.glob("sizes/*/size.json")).read_text())
    name = size.judge(size.Decision(**chosen))[0]
    named = search(None if name == "default" else name)
    assert (named.name, named.num_trials) == (found.name, 4), "the same search, however the size was named"
    config = resolve(place, "mlp", {**TINY, "size": "auto"}, found.best_file, compare_sizes=True)
    assert config.sized.num_compared >= 2  # the search's own size may be one of the presets
    assert config.tuned.run == f"{found.name}, --size auto"
    assert config.tuned.trials == found.num_trials + config.sized.num_compared
