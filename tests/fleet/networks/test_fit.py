"""Units of many symbols: overrides, state files, a width for all."""

import dataclasses

import numpy as np
import pytest

from barcast.core.errors import RunError, UsageError
from barcast.fleet.networks.fit import NetworkFit, make_fit
from barcast.fleet.networks.ladder import choose_width
from barcast.fleet.networks.packing import unpack
from barcast.fleet.networks.presets import NetworkPreset, presets, resolve
from barcast.fleet.networks.trainer import BatchTrainer, Member, seats_for
from barcast.fleet.work import FitSource, SymbolResult, Unit
from tests.fleet.networks.builders import SMALL, market

OPTIONS = {key: value for key, value in SMALL.items() if key != "hidden_size"}


def _unit(positions, preset="lstm-16", **options) -> Unit:
    return Unit(tuple(f"S{p}" for p in positions), tuple(positions), preset, options=options)


def test_a_worker_makes_its_fit_by_name_and_gets_results_in_order(tmp_path):
    market().save(tmp_path)
    arguments = {"folder": str(tmp_path), "kind": "gru", "options": OPTIONS, "seed": 7}
    fit = FitSource("barcast.fleet.networks.fit", "make_fit", arguments).make()
    unit = _unit(
        [3, 0, 2], "gru-16", symbols={"S0": {"epochs": 2}, "S2": {"hidden_size": 5}, "S3": {"lr": 5e-3}}
    )
    results = fit(unit)
    assert [result.symbol for result in results] == ["S3", "S0", "S2"]
    assert [result.status for result in results] == ["done"] * 3
    assert all(result.preset == "gru-16" for result in results)
    assert results[1].metrics["epochs"] == 2 and results[0].metrics["epochs"] > 2
    assert [unpack(result.model).shape.hidden_size for result in results] == [16, 16, 5]


def test_a_wrong_option_of_one_symbol_fails_that_symbol_alone():
    fit = NetworkFit(market(), "lstm", OPTIONS, 7)
    first, second, third = fit(_unit([0, 1, 2], symbols={"S0": {"hidden": 3}, "S2": {"lr": -1}}))
    assert first.status == "failed" and "no option `hidden`" in first.reason and "hidden_size" in first.todo
    assert second.status == "done"
    assert third.status == "failed" and "`lr`" in third.reason


def test_a_killed_unit_goes_on_from_its_files(tmp_path, monkeypatch):
    unit = _unit([0, 1, 2, 3], symbols={"S3": {"hidden_size": 4}})  # two batches
    monkeypatch.setattr("barcast.fleet.networks.trainer.seats_for", lambda preset: 2)
    whole = NetworkFit(market(), "lstm", OPTIONS, 7)(unit)
    monkeypatch.setattr("barcast.fleet.networks.fit.SAVE_SECONDS", 0.0)  # save after every step
    real, steps = BatchTrainer._step, []

    def fragile(self):
        steps.append(self)
        if len(steps) % 9 == 0:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(BatchTrainer, "_step", fragile)
    monkeypatch.setattr(BatchTrainer, "run", _one_step)
    kills = 0
    while True:
        try:
            found = NetworkFit(market(), "lstm", OPTIONS, 7, tmp_path)(unit)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills > 3
    assert [result.model for result in found] == [result.model for result in whole]
    assert [result.metrics for result in found] == [result.metrics for result in whole]


def _one_step(self, seconds=0.0):
    self._fill()
    if not self.finished:
        self._step()
    return self.finished


def test_states_stay_until_the_next_unit_is_done_and_damaged_ones_cost_no_more_than_training(tmp_path):
    fit = make_fit_of(tmp_path)
    first = fit(_unit([0, 1]))
    (file,) = (tmp_path / "states").iterdir()
    file.write_bytes(b"damaged")
    again = make_fit_of(tmp_path)(_unit([0, 1]))
    assert [result.model for result in again] == [result.model for result in first]
    fit(_unit([2]))
    assert len(list((tmp_path / "states").iterdir())) == 1


def make_fit_of(folder):
    market().save(folder / "data")
    return make_fit(str(folder / "data"), "lstm", OPTIONS, 7, str(folder / "states"))


def test_a_wider_network_is_chosen_for_all_only_where_it_is_clearly_better():
    scores = {"a": [0.1, 0.2, 0.1, 0.2], "b": [0.1, 0.3, 0.0, 0.21], "c": [0.2, 0.31, 0.19, float("nan")]}

    def fit(unit):
        return [
            SymbolResult(
                s,
                unit.preset,
                "done" if np.isfinite(x) else "failed",
                metrics={"stop_score": x},
                reason="few",
            )
            for s, x in zip(unit.symbols, scores[unit.preset], strict=True)
        ]

    data = market()
    assert choose_width(fit, data, range(4), ["a", "b"]).preset == "a"
    choice = choose_width(fit, data, range(4), ["a", "b", "c"])
    assert (choice.preset, choice.num_symbols) == ("c", 3)
    assert choice.scores["a"] == pytest.approx(0.4 / 3)
    scores["c"] = [float("nan")] * 4
    with pytest.raises(RunError, match="few"):
        choose_width(fit, data, range(4), ["a", "c"])


def test_presets_are_a_ladder_and_refuse_what_they_do_not_know():
    assert list(presets("gru")) == ["gru-16", "gru-32", "gru-64", "gru-128x2", "gru-256x3"]
    found = resolve("lstm", "lstm-64", {"lr": 1e-3, "epochs": 3}, {"lr": 2e-3, "features": [0, 2]})
    assert (found.lr, found.epochs, found.features, found.hidden_size) == (2e-3, 3, (0, 2), 64)
    for name, options in (("lstm-65", {}), ("lstm-64", {"kind": "gru"}), ("lstm-64", {"batch_size": 119})):
        with pytest.raises(UsageError):
            resolve("lstm", name, options)
    assert 1 <= seats_for(presets("lstm")["lstm-256x3"]) < seats_for(presets("lstm")["lstm-64"]) <= 128


def test_a_wrong_position_of_an_input_is_refused():
    data = market()
    batch = BatchTrainer(
        data, [Member(0, dataclasses.replace(NetworkPreset(**SMALL), features=(9,)))], "x", 0
    )
    batch.run()
    assert "no input 9" in batch.in_order()[0].reason
