"""The loop learns, stops, resumes bit-equal after SIGKILL, and does not depend on how a batch is split."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from barcast.core.atomic import write_json
from barcast.core.errors import DataError, ResourceError, RunError, UsageError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.models.lstm import LSTMConfig, UniversalLSTM
from barcast.models.network import Sizes, masked_mse
from barcast.training.checkpoint import load_tensors, save_tensors
from barcast.training.config import TrainConfig
from barcast.training.loop import fit_network
from barcast.training.networks import TrainingData
from barcast.training.predict import predict_stop, predict_windows
from barcast.windows.gather import Resident
from tests.conftest import make_bars

CONFIG = TrainConfig(
    epochs=6, batch_size=100, look_back_window=10, stretch_length=20, lr=1e-2, amp="off", patience=50
)


def planted(signal_strength=1.0, lengths=(150,) * 12, seed=0):
    """Targets that are a feature of the same row, plus noise."""
    bars = make_bars(lengths, seed=seed)
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(len(bars), 4)).astype(np.float32)
    truth = inputs[:, 1:2] * signal_strength + rng.normal(size=(len(bars), 1)).astype(np.float32)
    fit, stop = bars.session < 100, bars.session >= 110
    target = np.where(fit[:, None], truth, np.nan).astype(np.float32)
    resident = Resident(
        torch.from_numpy(inputs),
        torch.from_numpy(bars.symbol_of_row.astype(np.int64) + 1),
        torch.from_numpy(bars.life_start),
        torch.from_numpy(target),
    )
    data = TrainingData(resident, bars.lives, fit, stop)

    def score(rows, outputs):
        return float(np.corrcoef(outputs[:, 0], truth[rows, 0])[0, 1])

    return data, score


def network_for(seed=0, dropout=0.1):
    torch.manual_seed(seed)
    return UniversalLSTM(LSTMConfig(hidden_size=12, dropout=dropout), Sizes(4, 12, 1))


def loss(prediction, target, num_labels):
    return masked_mse(prediction, target, num_labels)


def fit(folder, data, score, config=CONFIG, network=None, **more):
    folder.mkdir(parents=True, exist_ok=True)
    network = network or network_for()
    result = fit_network(network, data, config, loss, score, RunFolder(folder), Progress(False), **more)
    return network, result


def test_it_learns_a_planted_signal_and_not_noise(tmp_path):
    _, learned = fit(tmp_path / "signal", *planted(1.0))
    _, noise = fit(tmp_path / "noise", *planted(0.0))
    assert learned.best_score > 0.5
    assert abs(noise.best_score) < 0.2


def test_windows_and_stretches_learn_the_same(tmp_path):
    data, score = planted()
    _, stretches = fit(tmp_path / "a", data, score)
    _, windows = fit(tmp_path / "b", data, score, replace(CONFIG, stretch_length=1))
    assert abs(stretches.best_score - windows.best_score) < 0.1


def test_two_fits_with_one_seed_are_bit_equal_and_another_seed_differs(tmp_path):
    data, score = planted()
    first, _ = fit(tmp_path / "a", data, score)
    second, _ = fit(tmp_path / "b", data, score)
    other, _ = fit(tmp_path / "c", data, score, replace(CONFIG, seed=1))
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name
    assert not torch.equal(first.head.weight, other.head.weight)


def test_accumulation_changes_rounding_only(tmp_path):
    data, score = planted()
    plain = network_for(dropout=0.0)
    parts = network_for(dropout=0.0)
    for network in (plain, parts):
        network.identity.id_dropout = 0.0
    fit(tmp_path / "a", data, score, replace(CONFIG, epochs=1), plain)
    fit(tmp_path / "b", data, score, replace(CONFIG, epochs=1, gradient_accumulation_steps=3), parts)
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(weight, parts.state_dict()[name], atol=2e-4, rtol=2e-3)


def test_early_stopping_keeps_the_best_weights(tmp_path):
    data, _ = planted()
    falling = iter([0.5, 0.4, 0.3, 0.2, 0.1] + [0.0] * 50)
    config = replace(CONFIG, patience=3, epochs=50, evaluations_per_epoch=1)
    network, result = fit(tmp_path / "a", data, lambda *_: next(falling), config)
    assert result.best_score == 0.5
    assert len(result.curve) == 4
    kept, header = load_tensors(tmp_path / "a" / "weights.safetensors")
    assert header["step"] == result.best_step == result.curve[0]["step"]
    assert torch.equal(kept["head.weight"], network.head.weight)


def test_a_refit_takes_exactly_the_steps_it_is_told(tmp_path):
    data, score = planted()
    _, result = fit(tmp_path / "a", data, score, steps=7)
    assert result.steps == 7


def test_labels_are_counted_once_an_epoch(tmp_path):
    data, score = planted()
    loops = []

    def spy(rows, outputs):
        loops.append(len(rows))
        return score(rows, outputs)

    _, result = fit(tmp_path / "a", data, spy, replace(CONFIG, epochs=1, evaluations_per_epoch=1))
    seen = result.labels_per_second * result.seconds
    assert round(seen) == int(data.fit.sum())
    assert loops == [int(data.stop.sum())]


def test_the_rate_counts_steps_and_logging_but_no_judging(tmp_path, monkeypatch):
    """On a clock that only these move: a score takes 1000 s, a line of metrics 10 s."""
    data, score = planted()
    now = [0.0]

    class SlowFolder(RunFolder):
        def append_metrics(self, values):
            now[0] += 10
            super().append_metrics(values)

    def slow_score(rows, outputs):
        now[0] += 1000
        return score(rows, outputs)

    clock = SimpleNamespace(perf_counter=lambda: now[0], monotonic=time.monotonic)
    monkeypatch.setattr("barcast.training.loop.time", clock)
    (tmp_path / "a").mkdir()
    config = replace(CONFIG, epochs=2, evaluations_per_epoch=1)
    result = fit_network(
        network_for(), data, config, loss, slow_score, SlowFolder(tmp_path / "a"), Progress(False)
    )
    assert result.seconds == 10  # of the first epoch; what follows the last step of all is no training time
    assert result.labels_per_second == pytest.approx(2 * data.fit.sum() / 10)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        MemoryError("Unable to allocate 9 TiB"),
    ],
)
def test_too_little_memory_for_the_smallest_part_is_explained(tmp_path, monkeypatch, error):
    data, score = planted()
    network = network_for()
    threads = torch.get_num_threads()

    def refuse(*_):
        raise error

    monkeypatch.setattr(network, "forward", refuse)
    with pytest.raises(ResourceError, match="not even in the smallest parts"):
        fit(tmp_path / "a", data, score, network=network)
    assert torch.get_num_threads() == threads
    monkeypatch.setattr(network, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path / "a", data, score, network=network)


def limited_to(network, most):
    """The network on a machine whose memory holds batches of ``most`` stretches while it trains."""
    whole = network.forward

    def forward(inputs, symbol, num_predictions=1):
        if network.training and len(inputs) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return whole(inputs, symbol, num_predictions)

    network.forward = forward
    return network


def test_a_step_that_does_not_fit_is_computed_in_more_parts(tmp_path):
    data, score = planted()
    config = replace(CONFIG, epochs=1, batch_size=160)  # 8 stretches a step
    for name in "abc":
        write_json(tmp_path / name / "run.json", {"name": name})
    plain, parts, again = (network_for(dropout=0.0) for _ in range(3))
    for network in (plain, parts, again):
        network.identity.id_dropout = 0.0
    fit(tmp_path / "a", data, score, config, plain)
    fit(tmp_path / "b", data, score, config, limited_to(parts, 2))
    halvings = RunFolder(tmp_path / "b").info["halvings"]
    assert halvings == [{"step": 0, "parts": 2}, {"step": 0, "parts": 4}]
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(weight, parts.state_dict()[name], atol=2e-4, rtol=2e-3)
    # another attempt on a larger machine repeats what is on record, to the bit
    RunFolder(tmp_path / "c").update(halvings=halvings)
    fit(tmp_path / "c", data, score, config, again)
    for name, weight in parts.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_the_grid_on_stop_agrees_with_windows_at_its_first_rows():
    data, _ = planted()
    network = network_for().eval()
    rows, outputs = predict_stop(network, data, CONFIG)
    assert sorted(rows) == list(np.flatnonzero(data.stop))
    windows = predict_windows(network, data.resident, rows, 10)
    first = np.flatnonzero((rows - data.resident.life_start.numpy()[rows]) % 20 == 0)
    assert len(first)
    np.testing.assert_allclose(outputs[first], windows[first], atol=1e-5)


def test_predictions_do_not_depend_on_the_batch():
    data, _ = planted()
    network = network_for().eval()
    rows = np.arange(0, 400, 3)
    alone = np.concatenate([predict_windows(network, data.resident, rows[i : i + 1], 10) for i in range(20)])
    together = predict_windows(network, data.resident, rows, 10)
    np.testing.assert_allclose(alone, together[:20], atol=1e-5)


def test_an_exploding_loss_says_what_to_do(tmp_path):
    data, score = planted()
    data.resident.target[5] = torch.tensor([1e38])
    with pytest.raises(RunError, match="lower --lr"):
        fit(tmp_path / "a", data, score)


def test_no_labels_is_an_error(tmp_path):
    data, score = planted()
    with pytest.raises(DataError, match="no label to learn from"):
        fit(tmp_path / "a", replace(data, fit=np.zeros_like(data.fit)), score)


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"lr": 0.0}, {"warmup": 1.0}, {"batch_size": 0}])
def test_bad_options_are_refused(bad):
    with pytest.raises(UsageError):
        TrainConfig(**bad)


def test_a_damaged_checkpoint_is_a_clear_error(tmp_path):
    data, score = planted()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "checkpoint.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(RunError, match="--fresh"):
        fit(tmp_path / "a", data, score)


def test_checkpoints_keep_types_and_header(tmp_path):
    save_tensors(tmp_path / "x", {"a": torch.arange(3), "b": torch.ones(2, dtype=torch.bfloat16)}, {"n": 1})
    tensors, header = load_tensors(tmp_path / "x")
    assert header == {"n": 1}
    assert tensors["b"].dtype == torch.bfloat16


CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.training.test_loop import CONFIG, fit, planted
config = replace(CONFIG, epochs=30, checkpoint_seconds=0.0, threads=int(sys.argv[2]))
data, score = planted()
fit(Path(sys.argv[1]), data, score, config)
"""


def kill_and_resume(folder: Path, kills: int, seed: int, *, within: float = 0.5, threads: int = 1) -> None:
    """Start training in another process, kill it at random moments, let the last one finish.

    Each kill strikes within so many seconds of the first checkpoint that the process finds or writes.
    """
    rng = np.random.default_rng(seed)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", CHILD, str(folder), str(threads)]
    done = 0
    while done < kills:
        child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 600  # it bounds a hang only; imports on busy cores take long
        while not (folder / "checkpoint.safetensors").exists() and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0.0, within)))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stderr.close()
        done += 1
        if (folder / "weights.safetensors").exists():
            break
    subprocess.run(command, env=environment, check=True, capture_output=True)


def test_killed_and_resumed_is_bit_equal(tmp_path):
    config = replace(CONFIG, epochs=30, checkpoint_seconds=0.0)
    data, score = planted()
    straight, result = fit(tmp_path / "straight", data, score, config)
    kill_and_resume(tmp_path / "killed", kills=2, seed=1)
    resumed, _ = load_tensors(tmp_path / "killed" / "weights.safetensors")
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, resumed[name]), name
    assert told(RunFolder(tmp_path / "killed").read_metrics()) == told(result.curve)


def told(curve):
    """What a curve says that does not depend on the machine's speed."""
    return [[line[key] for key in ("step", "train_loss", "stop_score", "lr")] for line in curve]


@pytest.mark.parametrize("killed", [True, False], ids=["killed before a checkpoint", "trained afresh"])
def test_the_number_of_threads_is_measured_once_a_run(tmp_path, monkeypatch, killed):
    """The machine is busier at the second attempt; rounding, and so the weights, must not notice."""
    data, score = planted()
    run, measured, seen = RunFolder(tmp_path), iter([3, 1]), []
    run.write("run.json", {"name": "a"})
    monkeypatch.setattr("barcast.training.loop.choose_threads", lambda step: next(measured))

    def watched(prediction, target, num_labels):
        seen.append((run.info["threads"], threading.current_thread().name.startswith("ThreadPool")))
        if killed and len(seen) == 1:
            raise KeyboardInterrupt
        return loss(prediction, target, num_labels)

    def attempt(config):
        return fit_network(network_for(), data, config, watched, score, run, Progress(False))

    config = replace(CONFIG, epochs=1)
    with pytest.raises(KeyboardInterrupt) if killed else nullcontext():
        attempt(config)
    assert seen[0][0] == 3  # on record before anything is learned
    run.checkpoint.unlink(missing_ok=True)
    seen.append("second attempt")
    assert attempt(config).threads == run.info["threads"] == 3
    assert seen[-1] == (3, True)
    run.checkpoint.unlink()
    assert attempt(replace(config, threads=2)).threads == 2
    assert seen[-1] == (2, True)


@pytest.mark.soak
def test_twenty_kills_leave_no_trace(tmp_path, soak_table):
    """Over the whole training, its end included; every other one computed by two threads."""
    data, score = planted()
    straights, seconds = [], []
    for threads in (1, 2):
        config = replace(CONFIG, epochs=30, checkpoint_seconds=0.0, threads=threads)
        begin = time.monotonic()
        straights.append(fit(tmp_path / f"straight-{threads}", data, score, config))
        seconds.append(time.monotonic() - begin)
    for moment in range(20):
        folder, threads = tmp_path / f"killed-{moment}", 1 + moment % 2
        straight, result = straights[threads - 1]
        how = f"SIGKILL at random moment {moment + 1} of 20, {threads} thread{'s' * (threads > 1)}"
        with soak_table.judging("training", how):
            kill_and_resume(folder, kills=1, seed=moment, within=1.05 * seconds[threads - 1], threads=threads)
            resumed, _ = load_tensors(folder / "weights.safetensors")
            assert all(torch.equal(w, resumed[n]) for n, w in straight.state_dict().items())
            assert told(RunFolder(folder).read_metrics()) == told(result.curve)


@pytest.mark.soak
@pytest.mark.parametrize("length", [1, 7, 20, 60])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_grid_of_batches(tmp_path, soak_table, length, parts):
    """Every combination of stretch length and accumulation learns the planted signal."""
    data, score = planted()
    config = replace(CONFIG, stretch_length=length, gradient_accumulation_steps=parts)
    _, result = fit(tmp_path / "a", data, score, config)
    learned = result.best_score > 0.5
    soak_table.add("training", f"stretch {length}, {parts} parts: learns the planted signal", learned)
    assert learned, result.best_score
