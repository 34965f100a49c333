"""Does train-only augmentation help? The same model with none and with each kind alone, paired by session.

    python benchmarks/augment_bench.py --seeds 5
    python benchmarks/augment_bench.py --limit 200 --seeds 1 --epochs 1 --out /tmp/augment   # does it run?

Every fit is a line of augment.jsonl, so a run that was cut off goes on where it stopped. Scores are RankIC by session on
`stop` (which also chose the weights: optimistic for every row alike) and on `route`; a row's interval is that of
its mean over seeds, and the difference to "none" is paired by session and seed. `test` stays sealed.
"""

import argparse
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from barcast.core.atomic import write_text
from barcast.core.config import digest
from barcast.core.memory import keep_freed_memory
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.evaluation.metrics import rank_ic
from barcast.models.heads import head_of
from barcast.models.registry import model_entry
from barcast.pipeline.dataset import build_dataset, resolve_features
from barcast.pipeline.fit import network_and_data
from barcast.pipeline.market import load_market
from barcast.pipeline.settings import resolve
from barcast.training.loop import fit_network
from barcast.training.predict import predict_windows
from common import OUT, RESULTS, SEGMENTS, estimated, log_trial, machine, workspace_for

#: What is compared: options of the loop beside the defaults.
KINDS = {
    "none": {},
    "jitter 0.1": {"jitter": 0.1},
    "jitter 0.3": {"jitter": 0.3},
    "time_warp 2": {"time_warp": 2},
    "time_warp 5": {"time_warp": 5},
    "feature_dropout 0.1": {"feature_dropout": 0.1},
    "feature_dropout 0.3": {"feature_dropout": 0.3},
}
SCORED = ("stop", "route")


def fitted_scores(config, dataset, options: dict, seed: int) -> dict[str, list]:
    """Train once; return RankIC by session of each scored segment, with None where it is undefined."""
    entry, head = model_entry(config.model), head_of(dataset.target_name)
    config = replace(config, seed=seed, train=replace(config.train, seed=seed, **options))
    network, data, train = network_and_data(entry, config, dataset, head)
    market = dataset.market
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        fit_network(network, data, train, head.loss or entry.loss, dataset.stop_score(), run, Progress(True))
    found = {}
    for segment in SCORED:
        rows = dataset.rows_to_score(segment)
        outputs = predict_windows(network, data.resident, rows, train.look_back_window)[:, 0]
        num_sessions = len(market.bars.calendar)
        series = rank_ic(
            market.labels.y[rows, 0], outputs.astype(np.float64), market.bars.session[rows], num_sessions
        )
        first, last = market.plan.spans[segment]
        found[segment] = [float(x) if np.isfinite(x) else None for x in series[first : last + 1]]
    return found


def remembered(path: Path) -> dict[str, dict]:
    """Fits that are done, by key; a line that was cut off is none."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            done = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[done["key"]] = done["scores"]
    return found


def mean_and_interval(by_session: np.ndarray) -> str:
    """Mean of a series with its 95 % interval by blocks of sessions."""
    mean, low, high = estimated(by_session)
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def rows_of(scores: dict[str, list[dict]]) -> list[str]:
    """One line a kind: RankIC on both segments, and its difference to none."""
    lines = []
    for kind, per_seed in scores.items():
        cells = [kind]
        for segment in SCORED:
            own = np.array([each[segment] for each in per_seed], np.float64)
            none = np.array([each[segment] for each in scores["none"]], np.float64)
            known = np.isfinite(own).all(axis=0) & np.isfinite(none).all(axis=0)
            own, none = own[:, known].mean(axis=0), none[:, known].mean(axis=0)
            cells += [mean_and_interval(own), "" if kind == "none" else mean_and_interval(own - none)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Fit what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lstm")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, help="Folder of the table and of what is done, for a trial.")
    arguments = parser.parse_args()
    keep_freed_memory()
    place = Workspace.find(workspace_for("cn_a_share"))
    flags = {"segments": SEGMENTS["cn_a_share"], "asof": "2025-08-22"}
    flags |= {"epochs": arguments.epochs, "limit": arguments.limit}
    config = resolve(place, arguments.model, flags)
    market = load_market(place, config.data)
    features = resolve_features(place, config.data.features)
    dataset = build_dataset(market, place, features, tabular=False)
    done_file = (arguments.out or OUT) / "augment.jsonl"
    done_file.parent.mkdir(parents=True, exist_ok=True)
    done, scores = remembered(done_file), {}
    for kind, options in KINDS.items():
        for seed in range(arguments.seeds):
            asked = [config.identity(), market.data_digest, features.code_digest(), options, seed]
            if (key := digest(asked)) not in done:
                done[key] = fitted_scores(config, dataset, options, seed)
                with done_file.open("a", encoding="utf-8") as file:
                    line = {"key": key, "kind": kind, "seed": seed, "scores": done[key]}
                    file.write(f"\n{json.dumps(line)}\n")  # the line before may have been cut off
                if arguments.out is None:
                    means = {name: float(np.nanmean(np.array(done[key][name], float))) for name in SCORED}
                    log_trial(benchmark="augment", model=config.model, kind=kind, seed=seed, **means)
            scores.setdefault(kind, []).append(done[key])
    loop = asdict(config.train)
    head = [
        f"cn_a_share, {config.model}, {market.bars.num_symbols} symbols, {arguments.seeds} seeds, "
        f"{loop['epochs']} epochs, {machine()}. RankIC with 95 % intervals by blocks of sessions; "
        "differences are paired by session.", "",
        "| augmentation | `stop` | against none | `route` | against none |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    text = "\n".join([*head, *rows_of(scores)]) + "\n"
    write_text((arguments.out or RESULTS) / "augment.md", text)
    print(text)


if __name__ == "__main__":
    main()
