"""Ctrl-C and SIGTERM: the step at work is finished and saved, a second one does not wait, programs keep theirs."""

import os
import signal
import threading
from dataclasses import replace

import pytest
import torch

from barcast.core.interruption import Interrupted, is_asked_to_end, signals_held, signals_taken
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.pipeline.unfinished import failure_recorded, run_status
from barcast.training.checkpoint import load_tensors
from barcast.training.loop import fit_network
from tests.training.test_loop import CONFIG, fit, loss, network_for, planted

BOTH = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)


@BOTH
def test_a_signal_ends_training_after_the_step_at_work_and_nothing_is_lost(tmp_path, number, code):
    data, score = planted(lengths=(150,) * 5)
    config = replace(CONFIG, epochs=2, checkpoint_seconds=1e9)
    straight, _ = fit(tmp_path / "straight", data, score, config)
    run, calls = RunFolder(tmp_path / "cut"), []
    run.write("run.json", {"name": "cut", "status": "running", "command": "barcast train lstm --seed 7"})

    def signalled(*arguments):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), number)
        return loss(*arguments)

    config = replace(config, threads=1)
    with pytest.raises(Interrupted) as ended, signals_taken(), failure_recorded(run):
        fit_network(network_for(), data, config, signalled, score, run, Progress(False))
    assert len(calls) == 7
    assert load_tensors(run.checkpoint)[1]["state"]["step"] == 7
    assert ended.value.exit_code == code
    assert ended.value.resume == "barcast train lstm --seed 7"
    assert run.info["status"] == run_status(run) == "interrupted"
    assert not is_asked_to_end()
    resumed = network_for()
    fit_network(resumed, data, config, loss, score, run, Progress(False))
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


@BOTH
def test_outside_of_training_it_ends_at_once_and_so_does_the_second_one(number, code):
    with pytest.raises(Interrupted), signals_taken():
        signal.raise_signal(number)
        pytest.fail("it went on")
    passed = []
    with pytest.raises(Interrupted), signals_taken(), signals_held():
        signal.raise_signal(number)
        passed.append(is_asked_to_end())
        signal.raise_signal(number)
        pytest.fail("it went on")
    assert passed == [True]
    with pytest.raises(Interrupted) as ended, signals_taken():
        with signals_held():
            signal.raise_signal(number)
            passed.append("finished")
        pytest.fail("it went on")
    assert passed[1:] == ["finished"]
    assert ended.value.exit_code == code


def test_only_a_command_takes_signals_and_gives_them_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with signals_held():  # training in somebody's own program
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with signals_taken():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_in_a_thread_nothing_is_taken():
    seen = []

    def work():
        with signals_taken():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_ctrl_c_in_a_program_of_ones_own_is_on_record_too(tmp_path):
    run = RunFolder(tmp_path)
    run.write("run.json", {"name": "a", "status": "running", "command": "Python: see config.json"})
    with pytest.raises(KeyboardInterrupt), failure_recorded(run):
        raise KeyboardInterrupt
    assert run.info["status"] == "interrupted"
