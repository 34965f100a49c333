"""Stretches against a plain Dataset and DataLoader over windows: the same labels, network and allocator.

    python benchmarks/stretches_bench.py            # labels a second, and wall time to the same stop RankIC

The rival is the loop most projects have: a Dataset that slices one window, a DataLoader that shuffles and
collates, AdamW, the same LSTM, loss, precision and learning rate. Each side runs in a process of its own, for one
epoch. Both are judged alike: plain windows of the same rows of `stop`, after every 24th of the labels, and
judging counts in no time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import SEGMENTS, log_trial, machine, workspace_for, write_result

#: Looks at `stop` in one epoch.
NUM_LOOKS = 24


def load(model="lstm"):
    """Return the dataset every side trains on."""
    from barcast.core.workspace import Workspace
    from barcast.pipeline.dataset import build_dataset, resolve_features
    from barcast.pipeline.market import load_market
    from barcast.pipeline.settings import resolve

    place = Workspace.find(workspace_for("cn_a_share"))
    config = resolve(place, model, {"segments": SEGMENTS["cn_a_share"], "asof": "2025-08-22"})
    market = load_market(place, config.data)
    features = resolve_features(place, config.data.features)
    return config, build_dataset(market, place, features, tabular=False)


def prepared(model="lstm", seed=0):
    """Return config, dataset, teaching rows, stop rows, resident tensors and a fresh network."""
    import torch

    from barcast.models.registry import model_entry
    from barcast.training.networks import build_network, make_resident

    config, dataset = load(model)
    teach, bars = dataset.teach, dataset.market.bars
    stop = np.zeros(len(bars), bool)
    stop[dataset.rows_to_score("stop")] = True
    target = np.where(teach[:, None], dataset.target, np.nan).astype(np.float32)
    resident = make_resident(
        dataset.inputs, dataset.embedding[bars.symbol_of_row], bars.life_start, target, "cpu"
    )
    torch.manual_seed(seed)
    network = build_network(
        model_entry(model), config.options, dataset.inputs.shape[1], len(dataset.vocabulary), 1, "cpu"
    )
    return config, dataset, teach, stop, resident, network


def judge_of(dataset, resident, network, look_back, every=4):
    """Return a function that scores the network on plain windows of every so manieth symbol on `stop`."""
    from barcast.training.predict import predict_windows

    rows = dataset.rows_to_score("stop")
    rows = rows[dataset.market.bars.symbol_of_row[rows] % every == 0]
    judge = dataset.stop_score()
    return lambda: judge(rows, predict_windows(network, resident, rows, look_back))


def ours() -> dict:
    """Train on stretches for one epoch."""
    from barcast.core.progress import Progress
    from barcast.core.runs import RunFolder
    from barcast.models.network import masked_mse
    from barcast.training.loop import fit_network
    from barcast.training.networks import TrainingData

    config, dataset, teach, stop, resident, network = prepared()
    judge = judge_of(dataset, resident, network, config.train.look_back_window)
    with tempfile.TemporaryDirectory() as folder:
        data = TrainingData(resident, dataset.market.bars.lives, teach, stop)
        train = replace(config.train, epochs=1, patience=99, evaluations_per_epoch=NUM_LOOKS)
        result = fit_network(
            network, data, train, masked_mse, lambda *_: judge(), RunFolder(Path(folder)), Progress(True)
        )
    curve = [(line["seconds"], line["stop_score"]) for line in result.curve]
    return {"labels_per_second": result.labels_per_second, "curve": curve}


def loader(workers: int, look_limit: int) -> dict:
    """Train on shuffled windows from a DataLoader for one epoch, or until so many looks at `stop`."""
    import torch
    from torch.utils.data import DataLoader

    from barcast.models.network import masked_mse
    from barcast.training.precision import autocast

    config, dataset, teach, _, resident, network = prepared()
    judge = judge_of(dataset, resident, network, config.train.look_back_window)
    windows = windows_of(resident, np.flatnonzero(teach), config.train.look_back_window)
    generator = torch.Generator().manual_seed(0)
    batches = DataLoader(windows, batch_size=1024, shuffle=True, num_workers=workers, generator=generator)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.train.lr, weight_decay=config.train.weight_decay
    )

    def loss_of(window, own, wanted):
        with autocast(config.train):
            prediction = network(window, own, 1)
        return masked_mse(prediction, wanted[:, None], len(wanted))

    first = next(iter(batches))
    print(f"{fastest_threads(lambda: loss_of(*first).backward())} threads", file=sys.stderr)
    labels, spent, curve, begin = 0, 0.0, [], time.perf_counter()
    for batch in batches:
        network.train()
        for group in optimizer.param_groups:  # a short warm-up, as ours has
            group["lr"] = config.train.lr * min(max(labels / 200_000, 1e-3), 1.0)
        optimizer.zero_grad()
        loss_of(*batch).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.train.clip)
        optimizer.step()
        labels += len(batch[2])
        if labels >= len(windows) * (len(curve) + 1) / NUM_LOOKS:
            spent += time.perf_counter() - begin
            curve.append((spent, judge()))
            print(f"{labels} labels, {spent:.0f} s, stop {curve[-1][1]:.4f}", file=sys.stderr)
            if len(curve) == look_limit:
                break
            begin = time.perf_counter()
    return {"labels_per_second": labels / spent, "curve": curve}


def fastest_threads(step) -> int:
    """Set and return the number of threads inside of operations that makes a step fastest."""
    import torch

    def seconds(threads):
        torch.set_num_threads(threads)
        step()
        begin = time.perf_counter()
        for _ in range(3):
            step()
        return time.perf_counter() - begin

    best = min({1, torch.get_num_threads()}, key=seconds)
    torch.set_num_threads(best)
    return best


def windows_of(resident, rows, look_back):
    """Return a Dataset of one left-padded window at a time."""
    import torch
    from torch.utils.data import Dataset

    class Windows(Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, position):
            row = int(rows[position])
            start = max(int(resident.life_start[row]), row - look_back + 1)
            window = resident.inputs[start : row + 1]
            if len(window) < look_back:
                window = torch.cat([window.new_zeros(look_back - len(window), window.shape[1]), window])
            return window, resident.symbol[row], resident.target[row]

    return Windows()


def main() -> None:
    """Run every side in its own process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=["stretches", "loader0", "loader2"])
    arguments = parser.parse_args()
    if arguments.side:
        from barcast.core.memory import keep_freed_memory

        keep_freed_memory()
        sides = {"stretches": ours, "loader0": lambda: loader(0, NUM_LOOKS), "loader2": lambda: loader(2, 3)}
        print(json.dumps(sides[arguments.side]()))
        return
    found = {}
    for side in ("stretches", "loader0", "loader2"):
        command = [sys.executable, __file__, "--side", side]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[side] = json.loads(output.splitlines()[-1])
        log_trial(benchmark="stretches", side=side, **found[side])
    write_result("stretches", "\n".join(table(found)) + "\n")


def table(found: dict) -> list[str]:
    """Return the table as lines: rate, best score, and training seconds to 98 % of the lower best score."""
    base = found["stretches"]["labels_per_second"]
    best = {side: max(score for _, score in values["curve"]) for side, values in found.items()}
    goal = 0.98 * min(best["stretches"], best["loader0"])
    lines = [
        f"LSTM 64 x 2, cn_a_share, windows of 60, bf16 where the processor has it, {machine()}; one epoch; judged "
        f"after every 24th of it on plain windows; goal: stop RankIC {goal:.4f}", "",
        "| loop | labels a second | ours is faster by | best stop RankIC seen | training seconds to the goal |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    names = {"stretches": "stretches of 120 (ours)", "loader0": "DataLoader, windows, in process",
             "loader2": "DataLoader, windows, 2 workers (three looks only)"}  # fmt: skip
    for side, values in found.items():
        reached = next((seconds for seconds, score in values["curve"] if score >= goal), None)
        lines.append(
            f"| {names[side]} | {values['labels_per_second']:,.0f} | {base / values['labels_per_second']:.1f} x "
            f"| {best[side]:.4f} | {'not reached' if reached is None else f'{reached:.1f}'} |"
        )
    return lines


if __name__ == "__main__":
    main()
