"""LSTM 64 x 2 against the LSTMs of qlib, neuralforecast and pytorch-forecasting: the same panel, labels and rows.

    python benchmarks/rivals_bench.py --qlib PYTHON --neuralforecast PYTHON --pytorch-forecasting PYTHON
    python benchmarks/rivals_bench.py --qlib PYTHON --symbols 200 --cap 20 --tune 3    # a try, no result is kept

PYTHON is an interpreter that has the rival; a rival without one is left out. The normalised inputs, the labels of
`fit` and the rows of `stop` are written once to a file that every side reads. Each side runs in a process of its
own with barcast's allocator settings. A rival is timed with one and two threads, float32 and bf16 (and loader
processes where it has a loader), then tries three batch sizes with two learning rates for ``--tune`` seconds each,
and trains with the best of them until ``--cap`` seconds are over or ten looks have brought nothing (a third of
both for sides that learn from stretches). Ours runs one epoch with its defaults. All are judged alike: RankIC on plain windows of a quarter of the symbols of `stop`, and
judging counts in no time. Finished sides are kept under ``out/rivals``, so a bench that was killed goes on;
``--fresh`` begins anew.
"""

import argparse
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import OUT, log_trial, machine, write_result
from rivals_course import LOOK_BACK, PAD, STRETCH

#: Looks at `stop` in the time of a side, and how many without a better score end it.
NUM_LOOKS, PATIENCE = 20, 10
#: Sides: words for the table, worker's file, whose interpreter, and whose batch and rate are taken.
SIDES = {
    "ours": ("**barcast, stretches**", "", "", ""),
    "qlib": ("qlib `pytorch_lstm`, windows gathered for it", "rivals_qlib.py", "qlib", ""),
    "qlib_ts": ("qlib `pytorch_lstm_ts`, its sampler and loader", "rivals_qlib.py", "qlib", "qlib"),
    "qlib_stretches": ("qlib's network on our stretches", "rivals_qlib.py", "qlib", ""),
    "neuralforecast": ("neuralforecast `LSTM`", "rivals_neuralforecast.py", "neuralforecast", ""),
    "pytorch_forecasting": (
        "pytorch-forecasting `RecurrentNetwork`", "rivals_pytorch_forecasting.py", "pytorch_forecasting", "",
    ),
    "pytorch_forecasting_stretches": (
        "pytorch-forecasting, prediction length 120", "rivals_pytorch_forecasting.py", "pytorch_forecasting", "",
    ),
}  # fmt: skip


def write_panel(path: Path, num_symbols: int | None) -> None:
    """Write what every side reads: rows up to the end of `stop`, zeros before each life."""
    from stretches_bench import prepared

    _, dataset, _, stop, resident, _ = prepared()
    bars = dataset.market.bars
    symbol = bars.symbol_of_row
    kept = bars.session <= bars.session[stop].max()
    if num_symbols:
        kept &= symbol < num_symbols
    starts, sizes = kept_lives(bars.lives, kept)
    lives = np.concatenate([[0], np.cumsum(sizes + PAD)])
    place = np.concatenate([np.arange(start + PAD, end) for start, end in itertools.pairwise(lives)])
    rows = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, sizes, strict=True)])
    inputs = np.zeros((lives[-1], dataset.inputs.shape[1]), np.float32)
    inputs[place] = dataset.inputs[rows]
    target = np.full(lives[-1], np.nan, np.float32)
    target[place] = resident.target.numpy()[rows, 0]
    y = dataset.market.labels.y[rows, 0]
    judged = stop[rows] & (symbol[rows] % 4 == 0) & np.isfinite(y)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(
        part, inputs=inputs, target=target, lives=lives, identity=dataset.embedding[symbol[starts]],
        judged=place[judged], y=y[judged], session=bars.session[rows][judged],
    )  # fmt: skip
    part.rename(path)


def kept_lives(lives, kept):
    """Return first row and number of kept rows of each life; kept rows are the life's first ones."""
    counts = np.add.reduceat(kept, lives[:-1])
    return lives[:-1][counts > 0], counts[counts > 0]


def ours(panel: Path) -> dict:
    """Train one epoch on stretches, with the defaults, and write the scores of the last look."""
    import torch

    from barcast.core.progress import Progress
    from barcast.core.runs import RunFolder
    from barcast.models.network import masked_mse
    from barcast.models.registry import model_entry
    from barcast.training.config import TrainConfig
    from barcast.training.loop import fit_network
    from barcast.training.networks import build_network
    from barcast.training.predict import predict_windows

    data, judged, judge, num_symbols = without_padding(panel)
    config = replace(TrainConfig(), epochs=1, patience=99, evaluations_per_epoch=NUM_LOOKS)
    assert (config.look_back_window, config.stretch_length) == (LOOK_BACK, STRETCH)
    entry = model_entry("lstm")
    torch.manual_seed(0)
    num_inputs = data.resident.inputs.shape[1]
    network = build_network(entry, entry.config(), num_inputs, num_symbols, 1, "cpu")

    def look(*_):
        return judge(predict_windows(network, data.resident, judged, LOOK_BACK)[:, 0])

    with tempfile.TemporaryDirectory() as folder:
        result = fit_network(
            network, data, config, masked_mse, look, RunFolder(Path(folder)),
            Progress(True),
        )  # fmt: skip
    curve = [(line["seconds"], line["stop_score"]) for line in result.curve]
    return {"labels_per_second": result.labels_per_second, "curve": curve, "threads": result.threads}


def without_padding(path: Path):
    """Return training data without the zeros before lives, rows to judge, their judge, and the symbols' count."""
    import torch

    from barcast.training.networks import TrainingData, make_resident

    with np.load(path) as file:
        inputs, target, lives, identity = (file[name] for name in ("inputs", "target", "lives", "identity"))
        judged, y, session = (file[name] for name in ("judged", "y", "session"))
    sizes = np.diff(lives)
    life = np.repeat(np.arange(len(sizes)), sizes)
    own = np.arange(len(inputs)) - lives[life] >= PAD
    borders = np.concatenate([[0], np.cumsum(sizes - PAD)])
    rows = np.cumsum(own)[judged] - 1
    stop = np.zeros(own.sum(), bool)
    stop[rows] = True
    life = life[own]
    resident = make_resident(inputs[own], identity[life], borders[life], target[own][:, None], "cpu")
    data = TrainingData(resident, borders, torch.isfinite(resident.target[:, 0]).numpy(), stop)
    return data, rows, judge_of(y, session), int(identity.max())


def judge_of(y, session):
    """Return barcast's own mean RankIC of scores on the rows that are judged."""
    from barcast.evaluation.metrics import rank_ic

    def judge(scores) -> float:
        return float(np.nanmean(rank_ic(y, np.asarray(scores, np.float64), session, int(session.max()) + 1)))

    return judge


def check_judge(panel: Path, result: Path) -> None:
    """A worker judges by itself; its last scores must get the same RankIC from barcast."""
    with np.load(panel) as file:
        found = judge_of(file["y"], file["session"])(np.load(result.with_suffix(".npy")))
    said = json.loads(result.read_text())["curve"][-1][1]
    assert abs(found - said) < 1e-6, (found, said)


def run_side(side: str, panel: Path, given: argparse.Namespace) -> dict | None:
    """Return a side's result, from its file where it has been finished; None where it cannot run."""
    _, worker, tool, tuned_by = SIDES[side]
    result = panel.parent / f"{side}.json"
    if result.is_file() and json.loads(result.read_text()).get("done"):
        return json.loads(result.read_text())
    if not worker:
        command = [sys.executable, __file__, "--worker", str(panel)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = {**json.loads(output.splitlines()[-1]), "done": True}
        result.write_text(json.dumps(found))
        return found
    if not getattr(given, tool):
        print(f"{side}: left out, no --{tool.replace('_', '-')} interpreter")
        return None
    share = 1 / 3 if side.endswith("_stretches") else 1.0  # they get there sooner
    command = [
        getattr(given, tool), Path(__file__).with_name(worker), side, panel, result, "--cap", share * given.cap,
        "--tune", share * given.tune, "--probe", given.probe, "--looks", NUM_LOOKS, "--patience", PATIENCE,
    ]  # fmt: skip
    if tuned_by:
        command += ["--tuned-by", panel.parent / f"{tuned_by}.json"]
    print(f"--- {side}", flush=True)
    if subprocess.run([str(part) for part in command], stderr=sys.stderr).returncode:
        print(f"{side}: failed, see above; run again to go on")
        return None
    check_judge(panel, result)
    return json.loads(result.read_text())


def table(found: dict, given: argparse.Namespace) -> list[str]:
    """Return the table as lines; the goal of a row is 98 % of the lower best of that rival and ours."""
    base = found["ours"]
    lines = [
        f"LSTM 64 x 2, cn_a_share, windows of 60, 49 inputs, rank of the five-session return, {machine()}; each rival is "
        f"tuned by six tries of {given.tune:g} s (a third of it on stretches); goal: "
        f"98 % of the lower best of the row and of ours, held for two looks; each rival at most {given.cap:g} s after tuning", "",
        "| side | labels a second | ours is faster by | fastest seen in a probe | ours by | best `stop` RankIC of two looks in a row | goal | seconds to the goal "
        "| ours to the same |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for side, values in found.items():
        rate, best = values["labels_per_second"], best_of(values)
        fastest = max(rate, *values.get("probe", [rate]))
        goal = 0.98 * min(best, best_of(base))
        lines.append(
            f"| {SIDES[side][0]} | {rate:,.0f} | {base['labels_per_second'] / rate:.1f} x "
            f"| {fastest:,.0f} | {base['labels_per_second'] / fastest:.1f} x | {best:.4f} "
            f"| {goal:.4f} | {seconds_to(values, goal)} | {seconds_to(base, goal)} |"
        )
    return [*lines, "", *notes(found)]


def held(values: dict) -> list[tuple[float, float]]:
    """Return the seconds of each look but the last with the score that it and the next one both reach."""
    looks = values["curve"]
    return [(one[0], min(one[1], after[1])) for one, after in itertools.pairwise(looks)] or looks


def best_of(values: dict) -> float:
    """Return the highest score that two looks in a row reach: a single one may be lucky."""
    return max(score for _, score in held(values))


def seconds_to(values: dict, goal: float) -> str:
    """Return the training seconds to the first of two looks in a row at or above the goal."""
    return next((f"{seconds:.1f}" for seconds, score in held(values) if score >= goal), "not reached")


def notes(found: dict) -> list[str]:
    """Return how each side was set, and what differs from ours."""
    shared = (
        "All learn from squared error by Adam or AdamW. Ours has a symbol embedding, dropout, layer norm, warm-up "
        "and cosine, and runs with its defaults, whose rate was chosen among eight settings on `stop` and later "
        "months of this market; the rivals have none of these, and the best batch and rate of six tries on `stop`. "
        "neuralforecast and pytorch-forecasting forecast a series: here the series is the label, one step ahead, "
        "and its past, which overlaps the label that is asked for, reads as zero. `pytorch_lstm_ts` takes the "
        "batch and rate of `pytorch_lstm`, whose network it shares. A probe is a few seconds of its first batch in each "
        "arithmetic, before the batch that scores best was known. One seed; scores move by 0.01 between looks."
    )
    lines = [shared, "", f"- ours: defaults, {found['ours']['threads']} threads"]
    for side, values in found.items():
        if side != "ours":
            settings = ", ".join(f"{name} {value}" for name, value in values["settings"].items())
            lines.append(f"- {SIDES[side][0]} {values['version']}: {settings}")
    return lines


def main() -> None:
    """Run every side that has an interpreter and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for tool in ("qlib", "neuralforecast", "pytorch-forecasting"):
        parser.add_argument(f"--{tool}", metavar="PYTHON", help=f"an interpreter that has {tool}")
    parser.add_argument("--cap", type=float, default=120, help="most seconds of a side's training")
    parser.add_argument("--tune", type=float, default=20, help="seconds of each of the six tries")
    parser.add_argument(
        "--probe", type=float, default=2, help="seconds of each timing of threads and arithmetic"
    )
    parser.add_argument("--symbols", type=int, help="only so many symbols: a try whose table is only printed")
    parser.add_argument("--fresh", action="store_true", help="forget finished sides")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        from barcast.core.memory import keep_freed_memory

        keep_freed_memory()
        print(json.dumps(ours(given.worker)))
        return
    folder = OUT / "rivals" / str(given.symbols or "all")
    if given.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    panel = folder / "panel.npz"
    if not panel.is_file():
        write_panel(panel, given.symbols)
    results = {side: run_side(side, panel, given) for side in SIDES}
    found = {side: values for side, values in results.items() if values}
    text = "\n".join(table(found, given)) + "\n"
    if given.symbols:
        print(text)
        return
    for side, values in found.items():
        log_trial(benchmark="rivals", side=side, **{k: v for k, v in values.items() if k != "done"})
    write_result("rivals", text)


if __name__ == "__main__":
    main()
