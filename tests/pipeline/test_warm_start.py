"""Training that begins with a finished run's weights: sooner there, nothing seen too early, rows by symbol."""

import subprocess

import pytest
import torch

from barcast.core.errors import BarcastError, RunError, UsageError
from barcast.core.runs import RunFolder, list_runs, open_run
from barcast.core.workspace import Workspace
from barcast.pipeline.dataset import resolve_features
from barcast.pipeline.diagnose import diagnose
from barcast.pipeline.market import load_market
from barcast.pipeline.predict import check_known_by
from barcast.pipeline.settings import from_run, resolve
from barcast.pipeline.train import refit, train
from barcast.pipeline.warm import moved_weights, warm_source
from barcast.training.checkpoint import load_tensors, save_tensors
from barcast.training.loop import _Loop
from tests.journey.test_journey import DECLARED, run, write_market

#: Last days of fit, stop, weigh, route, test: of the source, and of a later run.
OLD = ("2020-12-31", "2021-02-26", "2021-04-30", "2021-06-30", "2021-08-31")
NEW = ("2021-03-31", "2021-05-28", "2021-07-30", "2021-09-30", "2021-12-20")
SMALL = {
    "features": "core12", "hidden_size": 12, "num_layers": 1, "look_back_window": 10, "stretch_length": 20,
    "batch_size": 2000, "epochs": 3, "amp": "off", "threads": 1, "lr": 5e-3, "segments": NEW,
}  # fmt: skip


def trained(root, model="lstm", **more):
    config = resolve(Workspace(root), model, {**SMALL, **more})
    return train(Workspace(root), config)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with `source`, taught by early labels, and its refit."""
    root = tmp_path_factory.mktemp("warm")
    write_market(root / "bars", sessions=500)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED, "--quiet") == 0
    source = trained(root, segments=OLD).run
    refit(Workspace(root), source, from_run(source.read("config.json")))
    return root


def final_of(root) -> RunFolder:
    return next(r for r in list_runs(Workspace(root)) if r.info.get("final") and "warm_start" not in r.info)


def source_of(root) -> RunFolder:
    return open_run(Workspace(root), final_of(root).info["parent"])


def refused(root, **more) -> BarcastError:
    with pytest.raises(BarcastError) as caught:
        trained(root, **more)
    return caught.value


# --- what it is good for -----------------------------------------------------------------------------------


def test_it_reaches_the_cold_start_s_best_score_in_fewer_steps(place):
    source = source_of(place)
    cold, warm = trained(place).run, trained(place, warm_start=source.name).run
    best = cold.info["best_score"]
    assert best > 0.1  # a reversal is planted
    reached = [line["step"] for line in warm.read_metrics() if line["stop_score"] >= best]
    assert reached and reached[0] < cold.info["best_step"]
    assert warm.name != cold.name and warm.info["warm_start"]["run"] == source.name
    assert f"began with the weights of `{source.name}`" in (warm.path / "card.md").read_text()


def test_the_digest_of_the_weights_is_part_of_the_identity_and_the_name_is_not(place, tmp_path):
    root = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(place), str(root)], check=True)
    source, name = source_of(root), source_of(root).name
    first = trained(root, warm_start=name, epochs=1).run.name
    assert trained(root, warm_start=name[:9], epochs=1).run.name == first  # another spelling
    assert run("promote", final_of(root).name, "-w", root) == 0
    assert trained(root, warm_start="champion", epochs=1).run.name == first  # the run that was evaluated
    tensors, header = load_tensors(source.weights)
    save_tensors(source.weights, {k: v * 1.01 for k, v in tensors.items()}, header)
    assert trained(root, warm_start=name, epochs=1).run.name != first


def test_an_ensemble_may_begin_with_one_network_or_with_an_ensemble_of_its_size(place):
    source = source_of(place)
    two = trained(place, segments=OLD, num_seeds=2, epochs=1).run
    from_one = trained(place, warm_start=source.name, num_seeds=2, epochs=1).run
    from_two = trained(place, warm_start=two.name, num_seeds=2, epochs=1).run
    assert from_one.name != from_two.name and len(from_two.info["members"]) == 2
    assert "num_seeds 2, this run 1" in str(refused(place, warm_start=two.name))


# --- what it may not know ----------------------------------------------------------------------------------


def test_labels_that_taught_the_source_end_where_fit_ends(place):
    told = source_of(place).info["taught_until"]
    assert "2020-12-01" < told <= "2020-12-31"
    early = {"segments": ("2020-12-18", *NEW[1:]), "epochs": 1}
    assert "its weights know what is to stop and judge" in str(
        refused(place, warm_start=source_of(place).name, **early)
    )
    exact = {"segments": (told, *NEW[1:]), "epochs": 1}
    assert trained(place, warm_start=source_of(place).name, **exact).run.is_done


def test_labels_that_stopped_the_source_are_known_before_weigh_begins(place):
    source = source_of(place)
    assert source.read("state.json")["segments"]["stop"][1] == "2021-02-26"
    until = {"segments": ("2020-12-31", "2021-02-25", *NEW[2:])}  # `weigh` begins on that very day
    assert "were chosen by what is to judge" in str(refused(place, warm_start=source.name, **until))
    exact = {"segments": ("2020-12-31", "2021-02-26", *NEW[2:]), "epochs": 1}
    assert trained(place, warm_start=source.name, **exact).run.is_done


def test_a_refit_is_refused_and_its_parent_named(place):
    error = refused(place, warm_start=final_of(place).name)
    assert "is a refit" in str(error) and f"--warm-start {source_of(place).name}" in str(error)


def test_what_a_source_s_own_source_knew_counts_too(place):
    """A source whose own source was taught, or stopped, too late knows as much."""
    middle = trained(place, segments=OLD, epochs=1).run
    config = resolve(Workspace(place), "lstm", {**SMALL, "warm_start": middle.name})
    asked = (config, load_market(Workspace(place), config.data), resolve_features(Workspace(place), "core12"))
    assert warm_source(Workspace(place), *asked).taught_until == middle.info["taught_until"]
    early = {"run": "x", "digest": "", "taught_until": "2020-06-30", "stopped_until": "2020-08-31"}
    for late, words in (("taught_until", "taught"), ("stopped_until", "stopped")):
        middle.update(warm_start={**early, late: "2021-06-30"})
        with pytest.raises(RunError, match=f"was {words} by labels known until 2021-06-30"):
            warm_source(Workspace(place), *asked)
    middle.update(warm_start=early)
    assert warm_source(Workspace(place), *asked).stopped_until == "2021-02-26"


def test_a_run_knows_what_its_source_knew(place):
    warm = trained(place, warm_start=source_of(place).name, epochs=1).run
    assert warm.info["chosen_until"] >= warm.info["warm_start"]["stopped_until"]
    with pytest.raises(RunError, match="would have seen its own outcome"):
        check_known_by(Workspace(place), warm, "2021-02-01")


def test_what_a_search_knew_and_how_often_it_tried_come_along(place):
    chosen = trained(place, segments=OLD, epochs=1, seed=5).run
    chosen.update(num_trials=7, tuned_by="tune-lstm-1", tuned_until="2021-05-26")
    assert "labels known until 2021-05-26" in str(
        refused(place, warm_start=chosen.name, segments=("2021-03-31", "2021-05-20", *NEW[2:]))
    )
    warm = trained(place, warm_start=chosen.name, epochs=1).run
    assert warm.info["warm_start"]["stopped_until"] == warm.info["tuned_until"] == "2021-05-26"
    assert (warm.info["num_trials"], warm.info["tuned_by"]) == (7, "tune-lstm-1")
    assert "7 trials" in (warm.path / "card.md").read_text()
    chosen.update(num_trials=9)
    assert trained(place, warm_start=chosen.name, epochs=1).run.info["num_trials"] == 9  # found again


# --- what must be the same ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"hidden_size": 16}, "hidden_size 12, this run 16"),
        ({"horizons": (1, 5)}, "horizons 5, this run 1,5"),
        ({"target": "direction"}, "target auto, this run direction"),
        ({"features": "tech48"}, "features core12, this run tech48"),
        ({"stock_embedding_dim": 0}, "stock_embedding_dim 8, this run 0"),
        ({"hold_out_fold": 3}, "hold_out_fold -1, this run 3"),
        ({"model": "gru"}, "model lstm, this run gru"),
    ],
)
def test_another_shape_is_refused_by_the_option_that_differs(place, more, words):
    error = refused(place, warm_start=source_of(place).name, **more)
    assert isinstance(error, UsageError) and words in str(error)


def test_dropout_and_rates_may_differ(place):
    more = {"dropout": 0.3, "id_dropout": 0.0, "lr": 1e-3, "epochs": 1}
    assert trained(place, warm_start=source_of(place).name, **more).run.is_done


# --- rows by symbol ----------------------------------------------------------------------------------------


def test_rows_follow_their_symbols_and_new_ones_start_as_unknown():
    table = torch.arange(8.0).reshape(4, 2)
    tensors = {"identity.embedding.weight": table, "head.weight": torch.ones(2, 2),
               "identity.attribute_embeddings.0.weight": 10 + table[:3]}  # fmt: skip
    state = {"vocabulary": ["A", "B", "C"], "attributes": {"industry": ["bank", "steel"]}}
    moved = moved_weights(tensors, state, ("C", "NEW", "A"), {"industry": ("oil", "steel")})
    assert torch.equal(moved["identity.embedding.weight"], table[[0, 3, 0, 1]])
    assert torch.equal(moved["identity.attribute_embeddings.0.weight"], 10 + table[[0, 0, 2]])
    assert torch.equal(moved["head.weight"], tensors["head.weight"])
    members = {f"members.1.{name}": tensor for name, tensor in tensors.items()}
    again = moved_weights(members, state, ("C", "NEW", "A"), {"industry": ("oil", "steel")})
    assert torch.equal(again["members.1.identity.embedding.weight"], table[[0, 3, 0, 1]])


def test_training_begins_with_the_rows_of_a_source_that_knew_fewer_symbols(place, monkeypatch):
    some = [f"SYM{number:02d}" for number in range(39, 4, -1)]
    few = trained(place, segments=OLD, symbols=tuple(some), epochs=1).run
    seen = {}
    learn = _Loop._learn

    def first(self, which, share):
        seen.setdefault("weights", {k: v.detach().clone() for k, v in self.network.state_dict().items()})
        learn(self, which, share)

    monkeypatch.setattr(_Loop, "_learn", first)
    whole = trained(place, warm_start=few.name, epochs=1).run
    theirs = load_tensors(few.weights)[0]["identity.embedding.weight"]
    mine = seen["weights"]["identity.embedding.weight"]
    known, all_symbols = few.read("state.json")["vocabulary"], whole.read("state.json")["vocabulary"]
    assert len(known) == 35 and len(all_symbols) == 40
    for row, symbol in enumerate(all_symbols, 1):
        wanted = theirs[known.index(symbol) + 1] if symbol in known else theirs[0]
        assert torch.equal(mine[row], wanted), symbol
    assert torch.equal(seen["weights"]["head.weight"], load_tensors(few.weights)[0]["head.weight"])


def test_what_it_learned_is_measured_from_where_it_began(place, tmp_path):
    root = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(place), str(root)], check=True)
    here, source = Workspace(root), source_of(root)
    warm = trained(root, warm_start=source.name, epochs=1, lr=1e-7).run
    (verdict,) = diagnose(here, warm).learning
    assert verdict.kind == "rate_too_low" and 0 < verdict.numbers["moved"] < 1e-3
    source.weights.unlink()
    assert "rate_too_low" not in [verdict.kind for verdict in diagnose(here, warm).learning]  # nobody knows


# --- its refit ---------------------------------------------------------------------------------------------


def test_a_refit_starts_from_the_same_weights_or_says_why_not(place, tmp_path):
    root = tmp_path / "ws"
    subprocess.run(["cp", "-r", str(place), str(root)], check=True)
    here, source = Workspace(root), source_of(root)
    warm = trained(root, warm_start=source.name, epochs=1).run
    config = from_run(warm.read("config.json"))
    final = refit(here, warm, config)
    assert final.info["warm_start"] == warm.info["warm_start"]
    tensors, header = load_tensors(source.weights)
    save_tensors(source.weights, {k: v + 0.01 for k, v in tensors.items()}, header)
    with pytest.raises(RunError, match="has other weights now"):
        refit(here, warm, config)
    subprocess.run(["rm", "-r", str(source.path)], check=True)
    with pytest.raises(RunError, match="is gone"):
        refit(here, warm, config)
    assert open_run(here, final.name).is_done
