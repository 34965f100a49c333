"""Stretches against a plain Dataset and DataLoader over windows: the same labels, network and allocator.

    python benchmarks/stretches_bench.py            # labels a second, and wall time to the same stop RankIC

The rival is the loop most projects have: a Dataset that slices one window, a DataLoader that shuffles and
collates, AdamW, the same LSTM, loss, precision and learning rate. Each side runs in a process of its own.
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


def load():
    """Return the dataset every side trains on."""
    from barcast.core.workspace import Workspace
    from barcast.pipeline.dataset import build_dataset, resolve_features
    from barcast.pipeline.market import load_market
    from barcast.pipeline.settings import resolve

    place = Workspace.find(workspace_for("cn_a_share"))
    config = resolve(place, "lstm", {"segments": SEGMENTS["cn_a_share"], "asof": "2025-08-22"})
    market = load_market(place, config.data)
    features = resolve_features(place, config.data.features)
    return config, build_dataset(market, place, features, tabular=False)


def prepared():
    """Return config, dataset, teaching rows, stop rows, resident tensors and a fresh network."""
    import torch

    from barcast.models.registry import model_entry
    from barcast.training.networks import build_network, make_resident

    config, dataset = load()
    teach, bars = dataset.teach, dataset.market.bars
    stop = np.zeros(len(bars), bool)
    stop[dataset.rows_to_score("stop")] = True
    target = np.where(teach[:, None], dataset.target, np.nan).astype(np.float32)
    resident = make_resident(
        dataset.inputs, dataset.embedding[bars.symbol_of_row], bars.life_start, target, "cpu"
    )
    torch.manual_seed(0)
    network = build_network(
        model_entry("lstm"), config.options, dataset.inputs.shape[1], len(dataset.vocabulary), 1, "cpu"
    )
    return config, dataset, teach, stop, resident, network


def ours(goal: float) -> dict:
    """Train on stretches until `stop` reaches the goal; at least one epoch for the rate."""
    from barcast.core.progress import Progress
    from barcast.core.runs import RunFolder
    from barcast.models.network import masked_mse
    from barcast.training.loop import fit_network
    from barcast.training.networks import TrainingData

    config, dataset, teach, stop, resident, network = prepared()
    judge, started, reached = dataset.stop_score(), time.perf_counter(), []

    def score(rows, outputs):
        value = judge(rows, outputs)
        if value >= goal and not reached:
            reached.append(time.perf_counter() - started)
        return value

    with tempfile.TemporaryDirectory() as folder:
        data = TrainingData(resident, dataset.market.bars.lives, teach, stop)
        train = replace(config.train, epochs=2, patience=99)
        result = fit_network(network, data, train, masked_mse, score, RunFolder(Path(folder)), Progress(True))
    return {"labels_per_second": result.labels_per_second, "best": result.best_score,
            "seconds_to_goal": reached[0] if reached else None}  # fmt: skip


def loader(goal: float, seconds: float, workers: int) -> dict:
    """Train on shuffled windows from a DataLoader until the goal or the time is reached."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from barcast.models.network import masked_mse
    from barcast.training.precision import autocast
    from barcast.training.predict import predict_windows
    from barcast.training.threads import choose_threads

    config, dataset, teach, stop, resident, network = prepared()
    inputs, symbol = resident.inputs, resident.symbol
    life_start, target = resident.life_start, resident.target
    rows = np.flatnonzero(teach)
    look_back = config.train.look_back_window

    class Windows(Dataset):
        """One window at a time, left-padded."""

        def __len__(self):
            return len(rows)

        def __getitem__(self, position):
            row = int(rows[position])
            start = max(int(life_start[row]), row - look_back + 1)
            window = inputs[start : row + 1]
            if len(window) < look_back:
                window = torch.cat([window.new_zeros(look_back - len(window), inputs.shape[1]), window])
            return window, symbol[row], target[row]

    generator = torch.Generator().manual_seed(0)
    batches = DataLoader(Windows(), batch_size=1024, shuffle=True, num_workers=workers, generator=generator)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.train.lr, weight_decay=config.train.weight_decay
    )
    window, own, wanted = next(iter(batches))

    def trial() -> None:
        with autocast(config.train):
            prediction = network(window, own, 1)
        masked_mse(prediction, wanted[:, None], len(wanted)).backward()
        optimizer.zero_grad()

    print(f"{choose_threads(trial)} threads", file=sys.stderr)
    judge, stop_rows = dataset.stop_score(), np.flatnonzero(stop)
    started, labels, spent, best, reached, mark = time.perf_counter(), 0, 0.0, -1.0, None, 0
    done = False
    while not done:
        begin = time.perf_counter()
        for window, own, wanted in batches:
            network.train()
            share = min((labels / 200_000), 1.0)  # a short warm-up, as ours has
            for group in optimizer.param_groups:
                group["lr"] = config.train.lr * max(share, 1e-3)
            with autocast(config.train):
                prediction = network(window, own, 1)
            loss = masked_mse(prediction, wanted[:, None], len(wanted))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.train.clip)
            optimizer.step()
            labels += len(wanted)
            if labels - mark >= 300_000:
                mark = labels
                spent += time.perf_counter() - begin
                outputs = predict_windows(network, resident, stop_rows, look_back)
                best = max(best, judge(stop_rows, outputs))
                if best >= goal and reached is None:
                    reached = time.perf_counter() - started
                print(f"{labels} labels, {spent:.0f} s training, best stop {best:.4f}", file=sys.stderr)
                begin = time.perf_counter()
                done = reached is not None or time.perf_counter() - started > seconds
                if done:
                    break
    return {"labels_per_second": labels / spent, "best": best, "seconds_to_goal": reached}


def main() -> None:
    """Run every side in its own process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=["stretches", "loader0", "loader2"])
    parser.add_argument("--goal", type=float, default=0.085, help="stop RankIC that ends the race")
    parser.add_argument("--seconds", type=float, default=420)
    arguments = parser.parse_args()
    if arguments.side:
        from barcast.core.memory import keep_freed_memory

        keep_freed_memory()
        workers = 2 if arguments.side == "loader2" else 0
        found = ours(arguments.goal) if arguments.side == "stretches" else loader(
            arguments.goal, arguments.seconds, workers)  # fmt: skip
        print(json.dumps(found))
        return
    found = {}
    for side in ("stretches", "loader0", "loader2"):
        command = [sys.executable, __file__, "--side", side, "--goal", str(arguments.goal),
                   "--seconds", str(arguments.seconds)]  # fmt: skip
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[side] = json.loads(output.splitlines()[-1])
        log_trial(benchmark="stretches", side=side, goal=arguments.goal, **found[side])
    base = found["stretches"]["labels_per_second"]
    lines = [
        f"LSTM 64 x 2, cn_a_share, windows of 60, bf16 where the processor has it, {machine()}; "
        f"goal: stop RankIC {arguments.goal}", "",
        "| loop | labels a second | ours is faster by | best stop RankIC seen | seconds to the goal |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    names = {"stretches": "stretches of 120 (ours)", "loader0": "DataLoader, windows, in process",
             "loader2": "DataLoader, windows, 2 workers"}  # fmt: skip
    for side, values in found.items():
        goal = values["seconds_to_goal"]
        lines.append(
            f"| {names[side]} | {values['labels_per_second']:,.0f} | {base / values['labels_per_second']:.1f} x "
            f"| {values['best']:.4f} | {'not reached' if goal is None else f'{goal:.0f}'} |"
        )
    write_result("stretches", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
