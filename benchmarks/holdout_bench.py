"""Symbols nobody has seen: the universal model with identity against one without, on symbols held out in folds.

    python benchmarks/holdout_bench.py --folds 5

A twentieth of the symbols is kept out of training in each fold; both models are scored on these symbols' rows of
`route` only, session by session, and the difference is paired over sessions. The model with identity sees them
as "unknown", the index that id-dropout has trained.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from barcast.core.memory import keep_freed_memory
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.evaluation.intervals import Bootstrap, interval, plan_blocks, resample
from barcast.evaluation.metrics import rank_ic
from barcast.models.network import masked_mse
from barcast.models.registry import model_entry
from barcast.pipeline.dataset import build_dataset, resolve_features
from barcast.pipeline.market import held_out, load_market
from barcast.pipeline.settings import resolve
from barcast.training.loop import fit_network
from barcast.training.networks import TrainingData, build_network, make_resident
from barcast.training.predict import predict_windows
from common import SEGMENTS, log_trial, machine, workspace_for, write_result


def fold_scores(dataset, config, market, fold: int, width: int) -> np.ndarray:
    """Train without the fold's symbols and return RankIC by session on their `route` rows."""
    bars = market.bars
    held = held_out(bars.symbols, fold)
    own = held[bars.symbol_of_row]
    teach = dataset.teach & ~own
    stop = np.zeros(len(bars), bool)
    stop[dataset.rows_to_score("stop")] = True
    options = replace(config.options, stock_embedding_dim=width)
    embedding = np.where(held, 0, dataset.embedding)
    target = np.where(teach[:, None], dataset.target, np.nan).astype(np.float32)
    torch.manual_seed(config.seed)
    network = build_network(
        model_entry("lstm"), options, dataset.inputs.shape[1], len(dataset.vocabulary), 1, "cpu"
    )
    resident = make_resident(dataset.inputs, embedding[bars.symbol_of_row], bars.life_start, target, "cpu")
    data = TrainingData(resident, bars.lives, teach, stop & ~own)
    train = replace(config.train, epochs=2)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        fit_network(network, data, train, masked_mse, dataset.stop_score(), run, Progress(True))
    rows = dataset.rows_to_score("route")
    rows = rows[own[rows]]
    outputs = predict_windows(network, resident, rows, train.look_back_window)[:, 0].astype(np.float64)
    return rank_ic(market.labels.y[rows, 0], outputs, bars.session[rows], len(bars.calendar))


def main() -> None:
    """Run the folds and print the paired difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=5)
    arguments = parser.parse_args()
    keep_freed_memory()
    place = Workspace.find(workspace_for("cn_a_share"))
    config = resolve(place, "lstm", {"segments": SEGMENTS["cn_a_share"], "asof": "2025-08-22"})
    market = load_market(place, config.data)
    features = resolve_features(place, config.data.features)
    dataset = build_dataset(market, place, features, tabular=False)
    width = config.options.stock_embedding_dim
    with_identity, without = [], []
    for fold in range(arguments.folds):
        with_identity.append(fold_scores(dataset, config, market, fold, width))
        without.append(fold_scores(dataset, config, market, fold, 0))
        print(f"fold {fold}: {np.nanmean(with_identity[-1]):.4f} {np.nanmean(without[-1]):.4f}")
    both = np.array([with_identity, without])
    a, b = both[:, :, np.isfinite(both).all(axis=(0, 1))].mean(axis=1)
    blocks = plan_blocks(len(a), 5, 1, Bootstrap())
    lines = [
        f"cn_a_share, `route`, {arguments.folds} folds of 5 % of the symbols, {len(a)} sessions, {machine()}", "",
        "| model, on symbols it never saw | RankIC | 95 % interval |", "| --- | ---: | ---: |",
    ]  # fmt: skip
    for name, series in (
        ("with identity (unknown index)", a),
        ("without identity", b),
        ("difference", a - b),
    ):
        mean = float(series.mean())
        draws = resample(np.column_stack([series, np.ones(len(series))]), blocks)
        low, high = interval(mean, draws[:, 0] / draws[:, 1], blocks)
        lines.append(f"| {name} | {mean:.4f} | [{low:.4f}, {high:.4f}] |")
        log_trial(benchmark="holdout", model=name, value=mean, low=low, high=high, folds=arguments.folds)
    write_result("holdout", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
