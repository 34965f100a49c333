"""A GPU's state in the progress line and the metrics, from a fake one; silence where there is nothing to read."""

import io
import json
from dataclasses import replace

import pytest

from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.training.loop import fit_network
from barcast.training.telemetry import Telemetry
from tests.training.test_loop import CONFIG, fit, loss, network_for, planted

READINGS = {
    "utilization": 87, "memory_allocated": 3 * 2**30, "memory_reserved": 5 * 2**30, "temperature": 64,
    "power_draw": 251_300,
}  # fmt: skip


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that counts how often it is asked; what is put into ``broken`` raises."""
    asked, broken = [], {}

    def reading(name):
        def read(device):
            asked.append((name, device))
            if name in broken:
                raise broken[name]
            return READINGS[name]

        return read

    for name in READINGS:
        monkeypatch.setattr(f"torch.cuda.{name}", reading(name))
    return asked, broken


def test_a_gpu_is_told_in_units_for_people(gpu):
    telemetry = Telemetry("cuda:1")
    assert telemetry.line() == "gpu 87 % 3.00 GiB (5.00 held) 64 °C 251 W  "
    assert telemetry.read() == {
        "gpu_percent": 87.0, "gpu_memory_bytes": 3 * 2**30, "gpu_reserved_bytes": 5 * 2**30,
        "gpu_celsius": 64.0, "gpu_watts": 251.3,
    }  # fmt: skip
    assert {device for _, device in gpu[0]} == {"cuda:1"}


def test_what_cannot_be_read_is_left_out_and_not_asked_again(gpu):
    asked, broken = gpu
    missing = ModuleNotFoundError("nvidia-ml-py does not seem to be installed or it can't be imported.")
    broken |= dict.fromkeys(("utilization", "temperature"), missing) | {"power_draw": RuntimeError("N/A")}
    telemetry = Telemetry("cuda")
    assert [telemetry.line(), telemetry.line()] == ["gpu 3.00 GiB (5.00 held)  "] * 2
    assert [name for name, _ in asked].count("temperature") == 1
    broken |= dict.fromkeys(READINGS, missing)
    assert telemetry.line() == ""


def test_a_processor_has_nothing_to_tell(gpu):
    telemetry = Telemetry("cpu")
    assert (telemetry.read(), telemetry.line(), gpu[0]) == ({}, "", [])


class Counted(Telemetry):
    """The fake GPU behind a training on the CPU, with the number of lines it was asked for."""

    lines = 0

    def __init__(self, device):
        super().__init__("cuda")

    def line(self):
        Counted.lines += 1
        return super().line()


def test_metrics_and_the_progress_line_hold_it(tmp_path, gpu, monkeypatch):
    monkeypatch.setattr("barcast.training.loop.Telemetry", Counted)
    data, score = planted(lengths=(150,) * 4)
    config = replace(CONFIG, epochs=1)
    _, quiet = fit(tmp_path / "a", data, score, config)
    assert Counted.lines == 0  # nobody looks, nobody asks
    assert json.loads(json.dumps(quiet.curve[0]))["gpu_memory_bytes"] == 3 * 2**30
    progress = Progress(stream=io.StringIO())
    (tmp_path / "b").mkdir()
    fit_network(network_for(), data, config, loss, score, RunFolder(tmp_path / "b"), progress)
    shown = [text for text in progress.stream.getvalue().splitlines() if "labels/s" in text]
    assert len(shown) == Counted.lines == 1  # one in ten seconds
    assert "GiB  gpu 87 % 3.00 GiB (5.00 held) 64 °C 251 W  at most" in shown[0]
