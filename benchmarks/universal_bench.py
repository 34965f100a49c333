"""Universal networks on cn_a_share: labels a second on stretches and on windows, and what the loop itself costs.

    python benchmarks/universal_bench.py                  # every row, each in a process of its own
    python benchmarks/universal_bench.py --models lstm    # only some; sides that are done are not run again
    python benchmarks/universal_bench.py --again lstm:bare,gru:windows

*Windows* is the same network, loop, batch and machine with one label a window: what stretches are worth. An epoch
of them takes an hour for the whole market, so both sides of that comparison learn from every fourth symbol, from
three seeds, and are judged on plain windows of these. *Default* is a whole training: seconds until its best look at `stop`. *Bare* is forward, backward and step on batches that are gathered beforehand: what the loop costs.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from common import OUT, log_trial, machine, write_result
from stretches_bench import judge_of, prepared

MODELS = ("lstm", "gru", "transformer", "mlp")
#: Batches that the bare side goes over, so often.
NUM_BATCHES, ROUNDS = 20, 5
#: Sides: length of a stretch, and every how manieth symbol is taken.
TRAINED = {
    "stretches": (120, 1), "default": (120, 1, None), "few stretches": (120, 4), "few default": (120, 4, None),
    "windows": (1, 4),
}  # fmt: skip
#: Sides of the comparison with windows: one seed says little of so short a training.
SEEDED, SEEDS = ("few stretches", "few default", "windows"), range(3)
SIDES = ("stretches", "bare", "default", *(f"{side} {seed}" for side in SEEDED for seed in SEEDS))


def trained(model: str, length: int, every: int, epochs: int | None = 1, seed: int = 0) -> dict:
    """Train one epoch (None: as many as the defaults take) on stretches of ``length`` (1: windows).

    Only every so manieth symbol teaches and is judged: all of them by stretches, as the loop does; a part by
    plain windows, so that both sides are judged alike.
    """
    from barcast.core.progress import Progress
    from barcast.core.runs import RunFolder
    from barcast.models.network import masked_mse
    from barcast.training.loop import fit_network
    from barcast.training.networks import TrainingData

    config, dataset, teach, stop, resident, network = prepared(model, seed)
    options = replace(config.train, stretch_length=length, seed=seed)
    if epochs is not None:
        options = replace(options, epochs=epochs, patience=99)
    bars = dataset.market.bars
    taken = bars.symbol_of_row % every == 0
    data = TrainingData(resident, bars.lives, teach & taken, stop & taken)
    judge = dataset.stop_score()
    if every > 1:
        plain = judge_of(dataset, resident, network, options.look_back_window, every)
        judge = lambda *_: plain()  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        result = fit_network(
            network, data, options, masked_mse, judge, RunFolder(Path(folder)), Progress(True)
        )
    best = max(result.curve, key=lambda line: line["stop_score"])
    return {
        "labels_per_second": result.labels_per_second, "seconds": result.seconds, "threads": result.threads,
        "stop": best["stop_score"], "seconds_to_best": best["seconds"],
    }  # fmt: skip


def bare(model: str) -> dict:
    """Forward, backward, clip and step on batches that lie ready, with the loop's own threads."""
    from barcast.core.progress import Progress
    from barcast.core.runs import RunFolder
    from barcast.models.network import masked_mse
    from barcast.training import step
    from barcast.training.networks import TrainingData
    from barcast.training.threads import choose_threads
    from barcast.windows.index import cut_stretches

    config, dataset, teach, stop, resident, network = prepared(model)
    options, lives = config.train, dataset.market.bars.lives
    data = TrainingData(resident, lives, teach, stop)
    with tempfile.TemporaryDirectory() as folder:
        stepper = step.Stepper(network, data, options, masked_mse, RunFolder(Path(folder)), Progress(False))
        stretches = cut_stretches(lives, teach, options.stretch_length)
        size = options.batch_size // options.stretch_length
        batches = [stretches.take(slice(i * size, (i + 1) * size)) for i in range(NUM_BATCHES)]
        stepper.compute_with(choose_threads(lambda threads: stepper.try_out(batches[0], threads)))
        gathered: dict = {}
        plain = step.gather

        def ready(which, *how):
            key = (int(which.first[0]), len(which))
            if key not in gathered:
                gathered[key] = plain(which, *how)
            return gathered[key]

        step.gather = ready
        labels = sum(stepper.step(batch, number, 0.5)[0] for number, batch in enumerate(batches))
        begin = time.perf_counter()
        for repeat in range(ROUNDS):
            for number, batch in enumerate(batches):
                stepper.step(batch, NUM_BATCHES * repeat + number, 0.5)
        seconds = time.perf_counter() - begin
        stepper.close()
    return {"labels_per_second": ROUNDS * labels / seconds}


def main() -> None:
    """Run every side in its own process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--again", default="", help="sides to measure once more, as model:side,model:side")
    parser.add_argument("--side", help="model and side with a colon between them, for one process")
    arguments = parser.parse_args()
    if arguments.side:
        from barcast.core.memory import keep_freed_memory

        keep_freed_memory()
        model, side = arguments.side.split(":")
        name, seed = (side[:-2], int(side[-1])) if side[-1].isdigit() else (side, 0)
        print(json.dumps(bare(model) if name == "bare" else trained(model, *TRAINED[name], seed=seed)))
        return
    kept = OUT / "universal.json"
    found: dict[str, dict] = json.loads(kept.read_text()) if kept.is_file() else {}
    for model, side in itertools.product(arguments.models.split(","), SIDES):
        sides = found.setdefault(model, {})
        if side in sides and f"{model}:{side}" not in arguments.again.split(","):
            continue
        command = [sys.executable, __file__, "--side", f"{model}:{side}"]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        sides[side] = json.loads(output.splitlines()[-1])
        kept.write_text(json.dumps(found))
        log_trial(benchmark="universal", model=model, side=side, **sides[side])
    write_result("universal", "\n".join(table(found)) + "\n")


def table(found: dict) -> list[str]:
    """Return the tables as lines."""
    lines = [
        f"Defaults, cn_a_share, look-back 60, bf16 where the processor has it, {machine()}; one epoch each.", "",
        "| model | labels a second | epoch | `stop` RankIC | seconds to the best look, four epochs at most | loop over bare steps |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for model, sides in found.items():
        ours = sides["stretches"]
        cost = sides["bare"]["labels_per_second"] / ours["labels_per_second"] - 1
        lines.append(
            f"| {model} | {ours['labels_per_second']:,.0f} | {ours['seconds']:.1f} s | {ours['stop']:.4f} "
            f"| {sides['default']['seconds_to_best']:.0f} | {cost:+.0%} |"
        )
    lines += [
        "",
        f"Windows against stretches of 120: every fourth symbol teaches and is judged by plain windows, the same on "
        f"both sides; means over {len(SEEDS)} seeds, with the lowest and the highest `stop` RankIC.", "",
        "| model | labels a second, stretches | windows | ratio | `stop`, one epoch of stretches | one of windows | at most four of stretches | seconds of these, to the best look | of an epoch of windows |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    return [*lines, *(against_windows(model, sides) for model, sides in found.items())]


def against_windows(model: str, sides: dict) -> str:
    """Return a row of the second table."""
    few, whole, windows = ([sides[f"{side} {seed}"] for seed in SEEDS] for side in SEEDED)

    def mean(runs: list[dict], key: str) -> float:
        return statistics.fmean(run[key] for run in runs)

    def score(runs: list[dict]) -> str:
        scores = [run["stop"] for run in runs]
        return f"{statistics.fmean(scores):.4f} ({min(scores):.4f} to {max(scores):.4f})"

    fast, slow = mean(few, "labels_per_second"), mean(windows, "labels_per_second")
    return (
        f"| {model} | {fast:,.0f} | {slow:,.0f} | {fast / slow:.1f} x | {score(few)} | {score(windows)} | {score(whole)} "
        f"| {mean(whole, 'seconds_to_best'):.0f} | {mean(windows, 'seconds'):.0f} |"
    )


if __name__ == "__main__":
    main()
