"""The range test finds a planted best rate, knows noise from a fall, and leaves nothing behind but its curve."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from barcast.core.errors import UsageError
from barcast.core.progress import Progress
from barcast.core.runs import list_runs
from barcast.core.workspace import Workspace
from barcast.pipeline.data import import_sample
from barcast.pipeline.range_test import range_test as rates_of
from barcast.pipeline.settings import resolve
from barcast.reports.rate_curve import rate_curve
from barcast.training.range_test import HIGHEST, LOWEST, judged, range_test, running_mean, runs_away
from tests.training.test_loop import CONFIG, fit, loss, network_for, planted

RATES = np.geomspace(LOWEST, HIGHEST, 300)


def curve(centre, fall=1.0, noise=0.02, climb=None, seed=0):
    """Losses that fall around a rate, fastest there, and climb from another on."""
    place = np.log10(RATES)
    losses = 2 - fall / (1 + np.exp(-6 * (place - np.log10(centre))))
    if climb:
        losses = losses + 30 * np.maximum(place - np.log10(climb), 0) ** 2
    return losses + np.random.default_rng(seed).normal(0, noise, len(losses))


@pytest.mark.parametrize("centre", [1e-4, 1e-3, 1e-2])
def test_the_steepest_fall_is_found_where_it_was_planted(centre):
    for seed in range(5):
        found = judged(list(RATES), list(curve(centre, seed=seed)), None)
        assert found.steepest is not None
        assert abs(np.log10(found.steepest / centre)) < 0.4
        assert centre < found.lowest
        assert found.suggested == found.lowest / 10


def test_noise_is_no_fall():
    falls = [judged(list(RATES), list(curve(1e-3, fall=0.0, seed=seed)), 0.5).steepest for seed in range(40)]
    assert sum(fall is not None for fall in falls) <= 4
    assert judged(list(RATES), list(curve(1e-3, fall=0.0)), 0.5).suggested == pytest.approx(0.05)


def test_it_stops_where_the_loss_runs_away():
    losses = list(curve(1e-3, climb=3e-2))
    stopped = next(n for n in range(1, 301) if runs_away(losses[:n]))
    assert 3e-2 < RATES[stopped - 1] < 0.3
    found = judged(list(RATES[:stopped]), losses[:stopped], RATES[stopped - 1])
    assert 1e-3 < found.lowest < found.diverged
    assert found.suggested == found.lowest / 10
    assert not runs_away(list(curve(1e-3)))


def test_the_running_mean_has_no_pull_towards_its_start():
    values = [3.0, 5.0, 4.0]
    weights = [[1.0], [0.9, 1.0], [0.81, 0.9, 1.0]]
    expected = [np.average(values[: i + 1], weights=weights[i]) for i in range(3)]
    np.testing.assert_allclose(running_mean(values), expected)


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_what_it_suggests_learns_and_what_it_warns_of_does_not(tmp_path, amp):
    data, score = planted(lengths=(150,) * 6)
    config = replace(CONFIG, amp=amp, threads=1)
    steps = 150 if amp == "off" else 60
    found = range_test(network_for(), data, config, loss, Progress(False), num_steps=steps)
    assert 0 < len(found.rates) == len(found.losses) == len(found.smooth) <= steps
    assert 1e-4 < found.suggested <= 0.1
    if amp == "off":
        again = range_test(network_for(), data, config, loss, Progress(False), num_steps=150)
        assert again == found
        config = replace(config, epochs=6)
        _, good = fit(tmp_path / "a", data, score, replace(config, lr=found.suggested))
        _, low = fit(tmp_path / "b", data, score, replace(config, lr=1e-5))
        assert good.best_score > max(low.best_score, 0.0) + 0.2


def test_a_loss_that_is_no_number_ends_it():
    data, _ = planted(lengths=(150,) * 6)

    def explode(prediction, target, num_labels):
        calls.append(1)
        return loss(prediction, target, num_labels) * (1.0 if len(calls) <= 60 else float("inf"))

    calls = []
    config = replace(CONFIG, threads=1)
    found = range_test(network_for(), data, config, explode, Progress(False), num_steps=150)
    assert len(found.losses) == 60
    assert found.diverged == pytest.approx(1e-6 * 1e6 ** (60 / 149))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = Workspace(tmp_path_factory.mktemp("ws"))
    import_sample(root)
    return root


def test_it_writes_a_curve_and_a_picture_and_makes_no_run(place):
    config = resolve(
        place, "mlp", {"asof": "2013-03-01", "batch_size": 480, "features": "core12", "threads": 1}
    )
    found = rates_of(place, config, num_steps=60)
    assert list_runs(place) == []
    assert not place.runs.exists() or not list(place.runs.iterdir())
    written = json.loads(found.json_file.read_text())
    assert written["suggested"] == found.suggested
    assert written["losses"] == list(found.losses)
    picture = ElementTree.fromstring(found.picture.read_text())
    assert picture.tag.endswith("svg")
    assert "http" not in found.picture.read_text().replace("http://www.w3.org/2000/svg", "")
    assert f"suggested {found.suggested:.2g}" in found.picture.read_text()
    assert len(picture.findall(".//{*}polyline")[0].get("points").split()) == len(found.rates)


def test_models_without_a_rate_are_refused(place):
    with pytest.raises(UsageError, match="no learning rate to test"):
        rates_of(place, resolve(place, "ridge"))


def test_the_picture_takes_any_title():
    text = rate_curve("<b> & co", [1e-6, 1e-3], [1.0, 0.5], [1.0, 0.8], [(1e-4, "red", "a < b")])
    words = [each.text for each in ElementTree.fromstring(text).iter() if each.text]
    assert "<b> & co" in words
    assert "a < b" in words
    assert {"1e-6", "1e-5", "1e-4", "1e-3"} <= set(words)
