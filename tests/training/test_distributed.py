"""Several processes learn what one learns; a panel in shards teaches what a whole one teaches."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from barcast.cli.app import app
from barcast.core.errors import UsageError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, list_runs
from barcast.core.workspace import Workspace
from barcast.models.lstm import LSTMConfig, UniversalLSTM
from barcast.models.network import Sizes
from barcast.training.batches import epoch_batches
from barcast.training.checkpoint import load_tensors
from barcast.training.distributed import Job, helped, in_team
from barcast.training.loop import fit_network
from barcast.training.networks import put_on_device
from barcast.training.predict import predict_stop, predict_windows
from barcast.windows.index import Stretches
from barcast.windows.shards import _Slot, bytes_per_row
from tests.journey.test_journey import DECLARED, run, write_market
from tests.training.test_loop import CONFIG, fit, loss, network_for, planted

#: Bounds what hangs; processes that import and compile on busy cores take long.
PATIENCE = 600
SIZES = Sizes(4, 12, 1)
QUIET = LSTMConfig(hidden_size=12, dropout=0.0, id_dropout=0.0)
#: Holds a third of the planted panel, in two shards.
LIMIT = 600 * 36 / 2**30
ONE = replace(CONFIG, epochs=3, threads=1, panel_memory_gib=0.0)
#: Cases that two processes compute, and how one process does.
CASES = {
    "plain": (QUIET, ONE),
    "parts": (QUIET, replace(ONE, gradient_accumulation_steps=3)),
    "windows": (QUIET, replace(ONE, stretch_length=1)),
    "shards": (QUIET, replace(ONE, panel_memory_gib=LIMIT)),
    # one stretch a batch: the second process has nothing to compute
    "empty": (QUIET, replace(ONE, batch_size=20, epochs=1)),
    "threads": (LSTMConfig(hidden_size=12), replace(ONE, threads=2)),
    "dropout": (LSTMConfig(hidden_size=12), ONE),
    "diverged": (QUIET, replace(ONE, lr=1e30, clip=1e30, optimizer="sgd", epochs=1)),
    # the judge ends it, as that of a search ends a trial; only the first process has one
    "judged": (QUIET, ONE),
    # the second process has memory for two stretches only, see `limit_memory`
    "memory": (replace(QUIET, hidden_size=13), replace(ONE, batch_size=160, epochs=1)),
}


def fit_case(name: str, folder: Path, together: bool) -> None:
    """Train a case into a folder, with the other processes where there are any."""
    options, config = CASES[name]
    write_run(folder)
    torch.manual_seed(0)
    network = UniversalLSTM(options, SIZES)
    data, score = planted()
    if name == "judged":
        score = gives_up
    data = put_on_device(data, config)
    job = Job("lstm", options, config, SIZES, "rank", None)
    if together:
        with helped(job, data, RunFolder(folder)):
            fit_network(network, data, config, loss, score, RunFolder(folder), Progress(False))
    else:
        fit_network(network, data, config, loss, score, RunFolder(folder), Progress(False))


def gives_up(rows, outputs):
    raise KeyError("the judge")


def write_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    RunFolder(folder).write("run.json", {"name": folder.name})


def limit_memory() -> None:
    """On the second process, the network of the case ``memory`` holds two stretches while it trains."""
    whole = UniversalLSTM.forward

    def forward(self, inputs, symbol, num_predictions=1):
        if self.training and self.head.in_features == 13 and len(inputs) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return whole(self, inputs, symbol, num_predictions)

    if os.environ["RANK"] == "1":
        UniversalLSTM.forward = forward


def all_cases(root: Path) -> int:
    for name in CASES:
        try:
            fit_case(name, root / name, together=True)
        except Exception as error:
            (root / name / "error.txt").write_text(f"{type(error).__name__}: {error}")
    return 0


def main() -> None:
    limit_memory()
    root = Path(sys.argv[1])
    sys.exit(in_team(lambda: all_cases(root), lambda work: work() or 0))


def torchrun(*words, **how):
    """Start two processes, which torchrun ends together."""
    root = str(Path(__file__).parents[2])
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"PYTHONPATH": root, "BARCAST_WORKSPACE": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    return subprocess.Popen(
        [*command, *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, **how,
    )  # fmt: skip


def output_of(child):
    """Wait for the processes to end; those that hang are ended."""
    try:
        return child.communicate(timeout=PATIENCE)[0]
    finally:
        child.terminate()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes made of every case."""
    root = tmp_path_factory.mktemp("two")
    child = torchrun("tests.training.test_distributed", root)
    said = output_of(child)
    assert child.returncode == 0, said
    return root


def weights(folder):
    return load_tensors(folder / "weights.safetensors")[0]


def curve(folder):
    lines = RunFolder(folder).read_metrics()
    return np.array([[line["step"], line["train_loss"], line["stop_score"]] for line in lines])


@pytest.mark.parametrize("name", ["plain", "parts", "windows", "shards", "empty", "memory"])
def test_two_processes_learn_what_one_learns(two, tmp_path, name):
    fit_case(name, tmp_path / name, together=False)
    alone, found = curve(tmp_path / name), curve(two / name)
    assert len(alone) >= 4
    np.testing.assert_allclose(found, alone, rtol=1e-5)
    for key, weight in weights(tmp_path / name).items():
        torch.testing.assert_close(weights(two / name)[key], weight, atol=1e-4, rtol=1e-3)
    assert RunFolder(two / name).info["num_processes"] == 2
    assert RunFolder(tmp_path / name).info["num_processes"] == 1
    assert not (two / name / "shared").exists()


def test_each_process_draws_its_own_dropout(two, tmp_path):
    """Two processes of one thread draw what one process of two threads draws: a part of the batch decides."""
    fit_case("threads", tmp_path / "threads", together=False)
    np.testing.assert_allclose(curve(two / "dropout"), curve(tmp_path / "threads"), rtol=1e-5)
    assert curve(two / "dropout")[-1, 2] > 0.3


def test_all_processes_halve_when_one_runs_out_of_memory(two):
    assert RunFolder(two / "memory").info["halvings"] == [{"step": 0, "parts": 2}]


def test_a_loss_that_is_no_number_on_one_process_ends_all(two):
    assert (two / "diverged" / "error.txt").read_text().startswith("DivergedError")
    assert sorted(file.parent.name for file in two.glob("*/error.txt")) == ["diverged", "judged"]


def test_a_judge_that_fails_ends_the_others_and_all_train_on(two):
    """Without a word they would wait for its score, and take the next case's weights for it."""
    assert (two / "judged" / "error.txt").read_text() == "KeyError: 'the judge'"
    assert len(curve(two / "memory")) == 4  # a case after it


# --- the command -------------------------------------------------------------------------------------------

FLAGS = (
    "--no-report", "--quiet", "--features", "core12", "--hidden-size", "12", "--num-layers", "1", "--dropout", "0",
    "--look-back-window", "20", "--amp", "off", "--batch-size", "1920", "--epochs", "8", "--threads", "1", "--lr", "3e-4",
)  # fmt: skip
SETTINGS = "[train]\ncheckpoint_seconds = 0.0\npatience = 100\n[lstm]\nid_dropout = 0.0\n"


def rank_of(pid):
    lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((int(line[5:]) for line in lines if line.startswith(b"RANK=")), None)


def children_of(pid):
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def trained(root):
    (found,) = [each for each in list_runs(Workspace(root)) if each.info["model"] == "lstm"]
    return found


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    root = tmp_path_factory.mktemp("market")
    write_market(root / "bars", symbols=30, sessions=400)
    assert run("data", "import", root / "bars", "-w", root, *DECLARED, "--quiet") == 0
    (root / "barcast.toml").write_text(SETTINGS)
    return root


def test_a_dead_process_stops_all_and_the_same_command_goes_on(market, tmp_path):
    for name in ("alone", "killed"):
        shutil.copytree(market, tmp_path / name)
    killed = tmp_path / "killed"
    command = ("barcast", "train", "lstm", "-w", killed, *FLAGS)
    child = torchrun(*command)
    deadline = time.monotonic() + PATIENCE
    while not list(killed.glob("runs/*/checkpoint.safetensors")):
        assert child.poll() is None and time.monotonic() < deadline, child.communicate()[0]
        time.sleep(0.02)
    (helper,) = [pid for pid in children_of(child.pid) if rank_of(pid) == 1]
    os.kill(helper, signal.SIGKILL)
    said = output_of(child)
    assert child.returncode != 0
    assert "bug in barcast" not in said
    assert not trained(killed).is_done
    (checkpoint,) = killed.glob("runs/*/checkpoint.safetensors")
    assert load_tensors(checkpoint)[1]["state"]["step"] >= 1  # whole, and something to go on from

    child = torchrun(*command)
    said = output_of(child)
    assert child.returncode == 0, said
    assert run("train", "lstm", "-w", tmp_path / "alone", *FLAGS) == 0
    resumed, alone = trained(killed), trained(tmp_path / "alone")
    assert resumed.name == alone.name  # how many processes train it does not make another run
    assert resumed.info["command"].startswith("torchrun --nproc-per-node 2 -m barcast train lstm")
    np.testing.assert_allclose(curve(resumed.path), curve(alone.path), rtol=1e-3)
    for key, weight in weights(resumed.path).items():
        torch.testing.assert_close(weight, weights(alone.path)[key], atol=1e-3, rtol=1e-2)


@pytest.mark.soak
def test_two_processes_resumed_are_bit_equal(market, tmp_path, soak_table):
    with soak_table.judging("training", "two processes, one killed, resumed to the same bits"):
        found = []
        for name, seconds in (("straight", None), ("killed", 0.3), ("again", 1.0)):
            root = shutil.copytree(market, tmp_path / name)
            command = ("barcast", "train", "lstm", "-w", root, *FLAGS)
            if seconds is not None:
                child = torchrun(*command)
                while not list(root.glob("runs/*/checkpoint.safetensors")):
                    time.sleep(0.02)
                time.sleep(seconds)
                os.kill(min(children_of(child.pid)), signal.SIGKILL)
                output_of(child)
            child = torchrun(*command)
            assert output_of(child) and child.returncode == 0
            found.append(weights(trained(root).path))
        assert all(torch.equal(w, other[key]) for other in found[1:] for key, w in found[0].items())


def test_what_is_wrong_is_said_once_with_its_exit_code(tmp_path):
    child = torchrun("barcast", "train", "lstm", "-w", tmp_path, "--hidden-size", "0")
    said = output_of(child)
    assert child.returncode != 0
    assert said.count("error: `hidden_size` must be at least 1") == 1
    assert "exitcode  : 2" in said and "bug in barcast" not in said


def test_a_search_is_not_divided(market, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="torchrun divides one training, not a search"):
        app(args=["tune", "lstm", "-w", str(market), "--trials", "1", "--quiet"], standalone_mode=False)
    assert not list(market.glob("runs/tune-*"))


# --- a panel larger than the device ------------------------------------------------------------------------

SHARDED = replace(CONFIG, panel_memory_gib=LIMIT)


def sharded():
    data, score = planted()
    return put_on_device(data, SHARDED), data, score


@pytest.mark.parametrize("length", [20, 1])
def test_every_label_comes_once_an_epoch_in_batches_of_one_shard(length):
    data, whole, _ = sharded()
    config = replace(SHARDED, stretch_length=length)
    assert len(data.shards.drawn.members) > 2
    orders = []
    for epoch in range(3):
        rows = []
        for which in epoch_batches(data, config, epoch):
            shard = data.shards.shard_of(which, data.shards.drawn)
            assert len(np.unique(shard)) == 1 and len(which) <= 100 // length
            if isinstance(which, Stretches):
                first = np.maximum(which.first, which.life_start)
                last = np.minimum(which.first + length, which.life_stop)
                rows += [row for a, b in zip(first, last, strict=True) for row in range(a, b)]
            else:
                rows += which.tolist()
        labels = [row for row in rows if whole.fit[row]]
        assert sorted(labels) == np.flatnonzero(whole.fit).tolist()
        orders.append(labels)
    assert orders[0] != orders[1] != orders[2]


def test_what_the_device_holds_is_bounded_and_a_limit_that_does_not_bite_changes_nothing():
    data, whole, _ = sharded()
    assert data.shards.device_bytes <= LIMIT * 2**30 < len(whole.fit) * bytes_per_row(whole.resident)
    large = put_on_device(whole, replace(CONFIG, panel_memory_gib=1.0))
    assert large.shards is None and large.shard_rows == 0


def test_training_in_shards_learns_as_much_and_predicts_the_same(tmp_path):
    data, whole, score = sharded()
    _, resident = fit(tmp_path / "whole", whole, score, replace(CONFIG, threads=1))
    network, found = fit(tmp_path / "shards", data, score, replace(SHARDED, threads=1))
    assert resident.best_score > 0.5
    assert abs(found.best_score - resident.best_score) < 0.05
    rows, outputs = predict_stop(network, data, SHARDED)
    same_rows, same = predict_stop(network, whole, CONFIG)
    assert rows.tolist() == same_rows.tolist()
    np.testing.assert_allclose(outputs, same, atol=1e-5)
    wanted = np.random.default_rng(0).permutation(len(whole.fit))[:200]
    np.testing.assert_allclose(
        predict_windows(network, data.panel, wanted, 10),
        predict_windows(network, whole.resident, wanted, 10),
        atol=1e-5,
    )


@pytest.mark.parametrize("stopped_after", [3, 23])
def test_training_in_shards_resumes_to_the_same_bits(tmp_path, stopped_after):
    config = replace(SHARDED, checkpoint_seconds=0.0, epochs=2, threads=1)
    straight, _ = fit(tmp_path / "straight", *_first_and_last(sharded()), config)
    left = iter(range(stopped_after))

    def failing(prediction, target, num_labels):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return loss(prediction, target, num_labels)

    data, _, score = sharded()
    (tmp_path / "cut").mkdir()
    with pytest.raises(KeyboardInterrupt):
        fit_network(network_for(), data, config, failing, score, RunFolder(tmp_path / "cut"), Progress(False))
    resumed, _ = fit(tmp_path / "cut", *_first_and_last(sharded()), config)
    for name, weight in straight.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def _first_and_last(found):
    return found[0], found[2]


def test_a_run_in_shards_from_store_to_forecasts(market, tmp_path, monkeypatch):
    """The limit is an option like others, holds for all networks of a run, and its shards are on record."""
    root = shutil.copytree(market, tmp_path / "ws")
    alive, held, make = weakref.WeakSet(), [], _Slot.__init__

    def counted(slot, *arguments):
        make(slot, *arguments)
        alive.add(slot)
        held.append(sum(t.untyped_storage().nbytes() for each in alive for t in each.tensors.values()))

    monkeypatch.setattr(_Slot, "__init__", counted)
    limit = ("--seeds", "2", "--panel-memory-gib", "0.0004")
    assert run("train", "lstm", "-w", root, *FLAGS, "--epochs", "2", *limit) == 0
    assert 0 < max(held) <= 0.0004 * 2**30
    info = trained(root).info
    assert 0 < info["shard_rows"] * 2 * (13 * 4 + 4 + 16) <= 0.0004 * 2**30
    assert json.loads((trained(root).path / "config.json").read_text())["train"]["panel_memory_gib"] == 0.0004
    assert info["num_predictions"] > 0


if __name__ == "__main__":
    main()
