"""fp16 with scaled losses: it learns, survives overflows and resumes to the bit; `auto` takes what there is."""

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from barcast.core.errors import RunError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.models.network import Sizes
from barcast.models.registry import model_entries
from barcast.planning import probe
from barcast.training import precision, range_test
from barcast.training.batches import epoch_batches
from barcast.training.checkpoint import load_tensors
from barcast.training.config import TrainConfig
from barcast.training.loop import _Loop
from barcast.training.precision import (
    LossScaling,
    arithmetic,
    autocast,
    has_bf16,
    plain_float32,
    training_dtype,
)
from barcast.training.predict import predict_stop, predict_windows
from barcast.training.step import Stepper
from tests.training.test_loop import CONFIG, fit, loss, network_for, planted

HALF = replace(CONFIG, amp="fp16")
NETWORKS = [entry for entry in model_entries() if entry.kind == "network"]


def extreme(value):
    """A market whose label 5 is far away: its gradient overflows in fp16 until the scale has come down."""
    data, score = planted(lengths=(150,) * 5)
    data.resident.target[5] = value
    return data, score


def test_fp16_learns_what_float32_learns(tmp_path):
    data, score = planted()
    _, half = fit(tmp_path / "a", data, score, HALF)
    _, whole = fit(tmp_path / "b", data, score, replace(HALF, amp="off"))
    assert whole.best_score > 0.35  # noise stays below 0.2
    assert abs(half.best_score - whole.best_score) < 0.05
    assert half.curve[-1]["loss_scale"] <= 2**16
    assert "loss_scale" not in whole.curve[-1]
    assert half.curve[0]["train_loss"] != whole.curve[0]["train_loss"]  # it did compute in another arithmetic


def test_an_overflow_skips_its_step_and_halves_the_scale(tmp_path):
    _, result = fit(tmp_path / "a", *extreme(1e4), HALF)
    last = result.curve[-1]
    assert last["skipped_steps"] >= HALF.epochs  # its batch comes once an epoch
    assert last["loss_scale"] == 2.0 ** (16 - last["skipped_steps"])
    assert all(line["train_loss"] < 1e6 for line in result.curve)


def test_what_overflows_without_any_scale_is_an_error(tmp_path):
    data, score = planted()
    data.resident.target[data.fit] = 1e38
    with pytest.raises(RunError, match="the loss became inf at step 16"):  # 2^16 down to 1, then no more
        fit(tmp_path / "a", data, score, HALF)


def test_a_resumed_run_goes_on_with_its_scale(tmp_path, monkeypatch):
    data, score = extreme(1e4)
    config = replace(HALF, checkpoint_seconds=0.0)
    straight, whole = fit(tmp_path / "a", data, score, config)
    calls = iter(range(1000))

    def cut_off(*arguments):
        if next(calls) == 10:  # in the third epoch, when the scale has come down twice
            raise KeyboardInterrupt
        return score(*arguments)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "b", data, cut_off, config)
    kept = load_tensors(tmp_path / "b" / "checkpoint.safetensors")[1]["scaling"]
    assert kept["skipped"] >= 2
    assert kept["scaler"]["scale"] == 2.0 ** (16 - kept["skipped"])
    assert kept["scaler"]["_growth_tracker"] > 0
    resumed, again = fit(tmp_path / "b", data, score, config)
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    keys = ("step", "train_loss", "loss_scale", "skipped_steps")
    assert [[line[k] for k in keys] for line in again.curve] == [
        [line[k] for k in keys] for line in whole.curve
    ]


@pytest.mark.parametrize("amp", ["fp16", "off"])
def test_gradients_are_clipped_as_they_are_and_not_as_they_are_scaled(amp):
    network = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scaling = LossScaling(TrainConfig(amp=amp, clip=1.0))
    scaling.scaled(network(torch.tensor([0.3, 0.4])).sum()).backward()  # of norm 0.5: nothing to clip
    assert scaling.update(network, optimizer)
    torch.testing.assert_close(network.weight.data, torch.tensor([[-0.3, -0.4]]))
    assert float(scaling.norms[0]) == pytest.approx(0.5)


@pytest.mark.parametrize("entry", NETWORKS, ids=lambda entry: entry.name)
def test_every_network_has_a_gradient_in_fp16(entry):
    network, config = entry.build(entry.config(), Sizes(5, 3, 1)), TrainConfig(amp="fp16")
    with arithmetic(config):
        with autocast(config):
            found = network(torch.randn(4, 20, 5), torch.ones(4, dtype=torch.long), 1)
        found.float().square().mean().backward()
    assert torch.backends.mkldnn.enabled
    assert all(torch.isfinite(each.grad).all() for each in network.parameters() if each.grad is not None)


def test_auto_takes_bf16_then_fp16_on_a_gpu_then_float32(monkeypatch):
    def of(device, amp="auto"):
        return training_dtype(SimpleNamespace(device=device, amp=amp))

    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    assert (of("cpu"), of("cuda:1")) == (torch.bfloat16, torch.bfloat16)
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    assert (of("cpu"), of("cuda:1")) == (None, torch.float16)
    assert (of("cpu", "fp16"), of("cpu", "bf16"), of("cuda", "off")) == (torch.float16, torch.bfloat16, None)


def test_a_gpu_that_only_imitates_bf16_does_not_have_it(monkeypatch):
    monkeypatch.setattr("torch.cuda.device", lambda device: nullcontext())
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not has_bf16("cuda:1")


def switches():
    """Whether oneDNN is used, and whether float32 may be rounded to TF32: by cuDNN, by matrix products."""
    backends = torch.backends
    return backends.mkldnn.enabled, backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32


@pytest.fixture
def rounded():
    """TF32 wherever a GPU has it."""
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True


@pytest.mark.usefixtures("rounded")
@pytest.mark.parametrize(("amp", "inside"), [("fp16", (False, True, True)), ("off", (True, False, False))])
def test_a_step_holds_its_switches_until_its_last_part_is_done(amp, inside):
    """Two threads compute parts; one that ends early must leave the other's backward pass as it began."""
    before, seen = switches(), set()
    assert before == (True, True, True)
    data, _ = planted()
    stepper = Stepper(
        network_for(), data, replace(HALF, amp=amp), loss, RunFolder(Path("nowhere")), Progress(False)
    )
    scaled = stepper.scaling.scaled

    def watched(value):
        seen.add(switches())
        value.register_hook(lambda gradient: time.sleep(0.01))
        found = scaled(value)
        found.register_hook(lambda gradient: seen.add(switches()))
        return found

    stepper.scaling.scaled = watched
    threads = torch.get_num_threads()
    try:
        stepper.compute_with(2)
        for number, which in enumerate(epoch_batches(data, HALF, 0)[:3]):
            stepper.step(which, number, 0.5)
    finally:
        stepper.close()
        torch.set_num_threads(threads)
    assert seen == {inside}
    assert switches() == before


@pytest.mark.usefixtures("rounded")
def test_judging_and_predicting_are_whole_float32_whatever_training_is():
    data, _ = planted()
    network, seen, before = network_for(), [], switches()
    network.register_forward_pre_hook(lambda *_: seen.append(switches()))
    predict_stop(network, data, HALF)
    predict_windows(network, data.resident, np.arange(50), 10)
    assert set(seen) == {(True, False, False)}
    assert switches() == before == (True, True, True)


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="this torch has the older switches")
@pytest.mark.usefixtures("rounded")
def test_a_program_with_the_newer_switches_is_left_as_it_was():
    backends = torch.backends
    backends.fp32_precision = "tf32"
    backends.cudnn.conv.fp32_precision = "ieee"

    def told():
        return [
            each.fp32_precision for each in (backends.cudnn.rnn, backends.cudnn.conv, backends.cuda.matmul)
        ]

    before = told()
    assert "tf32" in before
    try:
        with plain_float32():
            assert told() == ["ieee"] * 3
        assert told() == before
    finally:
        backends.fp32_precision = "none"


def test_threads_are_for_a_cpu():
    """Whatever --threads says, one thread feeds a GPU: nothing is measured, nobody else computes parts."""
    data, score = planted()
    config = replace(CONFIG, threads=3)
    loop = _Loop(network_for(), data, config, loss, score, RunFolder(Path("nowhere")), Progress(False), None)
    on_gpu = replace(config, device="cuda")
    loop.config = loop.stepper.config = on_gpu
    threads = torch.get_num_threads()
    loop.settle_threads()
    assert loop.state.threads == 0 and loop.stepper.workers is None
    assert torch.get_num_threads() == threads
    assert range_test._num_threads(loop.stepper, data, on_gpu) == 0
    assert probe._threads(SimpleNamespace(train=on_gpu), None, data, 1.0) == 0
