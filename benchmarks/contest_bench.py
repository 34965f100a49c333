"""Do universal networks beat ridge and boosted trees? Three markets, five seeds, one contrast named beforehand.

    python benchmarks/contest_bench.py                  # fit what is missing; tables of `route`
    python benchmarks/contest_bench.py --open-test      # then, once: the contrast on `test`
    python benchmarks/contest_bench.py --sizes          # presets of cn_a_share after one epoch each, on `route`;
                                                        # draws docs/images/sizes.png with matplotlib

Every model learns from every symbol's `fit` and stops on `stop`, and is judged by RankIC on the same rows: those
of every third symbol. An ensemble is the mean of the outputs of its seeds, of LightGBM too. The contrast is the
network ensemble that `route` prefers against the better of ridge and the LightGBM ensemble there, paired by
session; outcomes of `test` are looked up once, after `route` has chosen, and a second time is refused. Fits are
kept under ``out/contest`` by their config (remove them after a change of code), so a bench that was killed goes
on, in the middle of a network's fit too; two of them run at a time, with one thread each, presets one at a time with all threads.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from barcast.core.config import digest
from barcast.evaluation.metrics import rank_ic
from common import (
    HORIZON,
    OUT,
    RESULTS,
    SEGMENTS,
    estimated,
    log_trial,
    machine,
    shown,
    workspace_for,
    write_result,
)

MARKETS = ("cn_a_share", "us_long", "us_market")
NETWORKS, TABULAR = ("lstm", "gru", "transformer"), ("ridge", "lightgbm")
NUM_SEEDS, NUM_PROCESSES = 5, 2
#: Every how manieth symbol is judged, of the contest and of the presets, whose forecasts take hours: of these every
#: third session too, which costs little certainty where outcomes span five.
EVERY, EVERY_SIZED, SESSIONS_SIZED = 3, 9, 3
SCORED = ("route", "test")
SIZED = (
    ("lstm", None), ("transformer", None), ("lstm", "small"), ("transformer", "small"), ("lstm", "balanced"),
    ("transformer", "balanced"), ("lstm", "large"), ("transformer", "large"), ("transformer", "xl"),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One fit: a model in one size, on one market, from one seed."""

    market: str
    model: str
    seed: int = 0
    size: str | None = None
    epochs: int | None = None

    @property
    def flags(self) -> dict:
        """Options of the run."""
        steps = (
            {} if self.model in TABULAR else {"epochs": self.epochs, "threads": None if self.epochs else 1}
        )
        own = {"size": self.size, "seed": self.seed, **steps}
        asof = {"asof": "2025-08-22"} if self.market == "cn_a_share" else {}
        # one look at the end, and parts that fit beside other work: neither changes what is learned
        sized = (
            {"evaluations_per_epoch": 1, "gradient_accumulation_steps": 8} if self.epochs and steps else {}
        )
        return {"segments": SEGMENTS[self.market], "horizons": (HORIZON,), **asof, **own, **sized}

    @property
    def scored(self) -> tuple[str, ...]:
        """Segments that it is judged on; presets on the first alone."""
        return SCORED[:1] if self.epochs else SCORED

    @property
    def every(self) -> int:
        """Every how manieth symbol judges it."""
        return EVERY_SIZED if self.epochs else EVERY


def contest(market: str) -> list[Job]:
    """Return what takes part in a market; ridge depends on no seed."""
    seeded = ("lightgbm", *NETWORKS, "mlp")
    return [
        Job(market, "ridge"),
        *(Job(market, model, seed) for seed in range(NUM_SEEDS) for model in seeded),
    ]


def sizes() -> list[Job]:
    """Return ridge and the presets, one epoch each."""
    return [Job("cn_a_share", model, size=size, epochs=1) for model, size in (("ridge", None), *SIZED)]


def path_of(job: Job) -> Path:
    """Return where a fit's outputs are kept: its name, and a digest of its config."""
    from barcast.core.workspace import Workspace
    from barcast.pipeline.settings import resolve

    config = resolve(Workspace.find(workspace_for(job.market)), job.model, job.flags)
    size = "sized" if job.epochs and job.model in TABULAR else job.size  # judged on other rows, of one config
    name = "-".join(str(part) for part in (job.model, size, job.seed) if part is not None)
    return OUT / "contest" / job.market / f"{name}-{digest(config.identity())[:8]}.npz"


def load(name: str):
    """Return the labelled rows of a market."""
    from barcast.core.workspace import Workspace
    from barcast.pipeline.market import load_market
    from barcast.pipeline.settings import resolve

    place = Workspace.find(workspace_for(name))
    return load_market(place, resolve(place, "ridge", Job(name, "ridge").flags).data)


def judged_rows(market, job: Job):
    """Return the rows that a fit is judged by, in order."""
    from barcast.pipeline.dataset import enough_history

    rows, bars = np.flatnonzero(market.rows_of(*job.scored) & enough_history(market)), market.bars
    rows = rows[bars.symbol_of_row[rows] % job.every == 0]
    return rows[bars.session[rows] % SESSIONS_SIZED == 0] if job.epochs else rows


class Fitter:
    """Fits jobs of one market, which is read once."""

    def __init__(self, market: str) -> None:
        from barcast.core.memory import keep_freed_memory
        from barcast.core.workspace import Workspace

        keep_freed_memory()
        self.place, self.market = Workspace.find(workspace_for(market)), load(market)
        self._datasets: dict = {}

    def dataset(self, config, *, tabular: bool):
        """Return the market's rows as models of a kind read them."""
        from barcast.pipeline.dataset import build_dataset, resolve_features

        if tabular not in self._datasets:
            self._datasets.clear()
            features = resolve_features(self.place, config.data.features)
            self._datasets[tabular] = build_dataset(self.market, self.place, features, tabular=tabular)
        return self._datasets[tabular]

    def fit(self, job: Job, path: Path) -> None:
        """Fit, and keep the outputs on the rows that are judged."""
        from barcast.core.progress import Progress
        from barcast.core.runs import RunFolder
        from barcast.models.registry import model_entry
        from barcast.pipeline.fit import fit_model
        from barcast.pipeline.settings import resolve

        config, entry = resolve(self.place, job.model, job.flags), model_entry(job.model)
        dataset = self.dataset(config, tabular=entry.kind == "tabular")
        rows = judged_rows(self.market, job)
        run = RunFolder(path.with_suffix(""))
        if not run.path.is_dir():
            run.path.mkdir()
            run.write("run.json", {"name": path.stem})
        outcome = fit_model(entry, config, dataset, run, Progress(True))
        scores = np.asarray(outcome.predict(rows))[:, 0].astype(np.float32)
        part = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(part, scores=scores, facts=json.dumps(outcome.facts))
        part.rename(path)
        shutil.rmtree(run.path)


def work(market: str, jobs: list[Job], claims: Path) -> None:
    """Fit what nobody has claimed yet in the folder of this bench's claims."""
    fitter = None
    for job in jobs:
        path = path_of(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(claims / path.stem, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        if not path.is_file():
            fitter = fitter or Fitter(market)
            started = time.perf_counter()
            fitter.fit(job, path)
            print(f"{path.stem}: {time.perf_counter() - started:.0f} s", file=sys.stderr)


def fit_all(which: str, markets: tuple[str, ...]) -> None:
    """Fit every job of every market, with a few processes at a time."""
    alone = {"OMP_NUM_THREADS": "1"} if which == "contest" else {}
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **alone}
    for market in markets:
        with tempfile.TemporaryDirectory() as claims:
            command = [sys.executable, __file__, "--work", market, "--claims", claims]
            command += ["--sizes"] if which == "sizes" else []
            workers = [
                subprocess.Popen(command, env=environment) for _ in range(NUM_PROCESSES if alone else 1)
            ]
            codes = [worker.wait() for worker in workers]
        if any(codes):
            raise SystemExit("a worker failed, see above; run again to go on")


class Judged:
    """RankIC by session of everything that took part in a market, on one segment."""

    def __init__(self, jobs: list[Job], market, *, test: bool) -> None:
        self.series: dict[str, np.ndarray] = {}
        self.facts: dict[str, list[dict]] = {}
        outputs: dict[str, list[np.ndarray]] = {}
        rows = judged_rows(market, jobs[0])
        own = np.isin(rows, np.flatnonzero(market.rows_of("test"))) == test
        y, session = market.labels.y[rows[own], 0], market.bars.session[rows[own]]
        for job in jobs:
            with np.load(path_of(job)) as file:
                name = job.model if job.size is None else f"{job.model} {job.size}"
                outputs.setdefault(name, []).append(file["scores"][own].astype(np.float64))
                self.facts.setdefault(name, []).append(json.loads(str(file["facts"])))
        self.num_symbols = len(np.unique(market.bars.symbol_of_row[rows[own]]))
        self.num_sessions = len(np.unique(session))
        session = session - session.min()

        def by_session(scores):
            return rank_ic(y, scores, session, int(session.max()) + 1)

        for name, members in outputs.items():
            self.series[name] = np.mean([by_session(scores) for scores in members], axis=0)
            if len(members) > 1:
                self.series[ensemble_of(name)] = by_session(np.mean(members, axis=0))

    def estimate(self, name: str, against: str = "") -> tuple[float, float, float]:
        """Return mean RankIC, or the paired difference, with its 95 % interval by blocks of sessions."""
        return estimated(self._less(name, against))

    def shown(self, name: str, against: str = "") -> str:
        """Write an estimate for people."""
        return shown(self._less(name, against))

    def _less(self, name: str, against: str) -> np.ndarray:
        return self.series[name] - (self.series[against] if against else 0.0)

    def best(self, names: list[str]) -> str:
        """Return the name with the highest mean."""
        return max(names, key=lambda name: float(np.nanmean(self.series[name])))


def ensemble_of(model: str) -> str:
    """Name the mean of a model's seeds."""
    return f"{model}, {NUM_SEEDS} seeds together"


def contrast_of(route: Judged) -> tuple[str, str]:
    """Name the two that meet on `test`, by `route` alone."""
    return route.best([ensemble_of(model) for model in NETWORKS]), route.best(
        ["ridge", ensemble_of("lightgbm")]
    )


def openings(market: str) -> list[str]:
    """Return which benchmarks have looked at `test` of a market, by the log of trials."""
    lines = (RESULTS / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    opened = [json.loads(line) for line in lines]
    return [one["benchmark"] for one in opened if one.get("segment") == "test" and one["data"] == market]


def contest_lines(market: str, *, open_test: bool) -> list[str]:
    """Tabulate a market."""
    jobs, rows = contest(market), load(market)
    route = Judged(jobs, rows, test=False)
    ours, control = contrast_of(route)
    num_sessions = len(route.series[ours])
    lines = [
        f"## {market}", "",
        f"`route`, {num_sessions} sessions; a seed's row is the mean over {NUM_SEEDS} seeds.", "",
        f"| model | RankIC on `route` | less {control} |", "| --- | ---: | ---: |",
    ]  # fmt: skip
    for name in route.series:
        paired = "" if name == control else route.shown(name, control)
        lines.append(f"| {name} | {route.shown(name)} | {paired} |")
        log_trial(
            benchmark="contest", data=market, segment="route", model=name, value=route.estimate(name)[0]
        )
    lines += ["", f"The contrast, named by `route`: **{ours}** against **{control}**.", ""]
    if open_test:
        before = sorted(set(openings(market)))
        if "contest" in before:
            raise SystemExit(
                f"`test` of {market} has been opened by this benchmark: its line is in trials.jsonl"
            )
        test = Judged(jobs, rows, test=True)
        mean, low, high = test.estimate(ours, control)
        verdict = "above zero" if low > 0 else "below zero" if high < 0 else "neither above nor below zero"
        lines += [
            f"On `test`, {len(test.series[ours])} sessions, opened once by this benchmark "
            f"({f'before it by {before[0]}' if before else 'never before'}): {ours} {test.shown(ours)}, {control} "
            f"{test.shown(control)}, difference {test.shown(ours, control)}: {verdict}. A true difference below "
            f"about {(high - low) / 2:.3f} could not have been told from none.", "",
        ]  # fmt: skip
        log_trial(
            benchmark="contest", data=market, segment="test", model=f"{ours} less {control}", value=mean, low=low,
            high=high,
        )  # fmt: skip
    return lines


def size_lines(route: Judged) -> list[str]:
    """Tabulate the presets."""
    lines = [
        f"Presets on cn_a_share, one epoch each, one seed; RankIC on `route` of every ninth symbol, every third session: "
        f"{route.num_symbols} symbols, {route.num_sessions} sessions; zero has none; {machine()}", "",
        "| preset | parameters | RankIC on `route` | best `stop` | seconds of training |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, (facts,) in route.facts.items():
        counted = f"{facts['num_parameters']:,}" if "num_parameters" in facts else ""
        lines.append(
            f"| {name} | {counted} | {route.shown(name)} | {facts['best_score']:.4f} | {facts['seconds']:,.0f} |"
        )
        log_trial(benchmark="sizes", model=name, value=route.estimate(name)[0], **facts)
    return lines


def draw_sizes(route: Judged, path: Path, words: tuple[str, str, str]) -> None:
    """Draw RankIC on `route` with its interval against the number of parameters, a line a model."""
    import matplotlib.pyplot as plt

    plt.rcParams["font.sans-serif"] = ["Noto Sans CJK SC", "DejaVu Sans"]
    across, up, title = words
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for model, colour in (("lstm", "#1f6feb"), ("transformer", "#d1580f")):
        names = [name for name in route.facts if name.split()[0] == model]
        numbers = [route.facts[name][0]["num_parameters"] for name in names]
        means, lows, highs = zip(*(route.estimate(name) for name in names), strict=True)
        errors = [np.subtract(means, lows), np.subtract(highs, means)]
        axes.errorbar(numbers, means, errors, color=colour, marker="o", capsize=3, label=model)
    axes.axhline(route.estimate("ridge")[0], color="#888", linewidth=0.8, linestyle="--", label="ridge")
    axes.axhline(0, color="#888", linewidth=0.8)
    axes.set(xscale="log", xlabel=across, ylabel=up, title=title)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


#: Words of the picture: across, up, title.
PICTURES = {
    "sizes.png": ("parameters", "RankIC on route, 95 % interval", "Presets on A-shares, one epoch each"),
    "sizes.zh-CN.png": ("参数个数", "route 上的 RankIC，95 % 区间", "A 股上的各档预设，各训练一轮"),
}


def main() -> None:
    """Fit what is missing and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--markets", default=",".join(MARKETS))
    parser.add_argument("--sizes", action="store_true", help="the presets instead")
    parser.add_argument(
        "--open-test", action="store_true", help="open `test`, once, when all else is decided"
    )
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--claims", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, sizes() if given.sizes else contest(given.work), given.claims)
        return
    if given.sizes:
        fit_all("sizes", ("cn_a_share",))
        route = Judged(sizes(), load("cn_a_share"), test=False)
        write_result("sizes", "\n".join(size_lines(route)) + "\n")
        for name, words in PICTURES.items():
            draw_sizes(route, Path(__file__).parents[1] / "docs" / "images" / name, words)
        return
    fit_all("contest", tuple(given.markets.split(",")))
    markets = [name for name in MARKETS if all(path_of(job).is_file() for job in contest(name))]
    if given.open_test and len(markets) < len(MARKETS):
        raise SystemExit(f"fitted are {', '.join(markets)}: `test` is opened when every market is decided")
    head = [
        f"Universal networks against ridge and LightGBM, defaults, rank of the {HORIZON}-session return, {machine()}. "
        f"95 % intervals by blocks of sessions; differences are paired by session.", "",
    ]  # fmt: skip
    lines = [line for market in markets for line in contest_lines(market, open_test=given.open_test)]
    write_result("contest", "\n".join([*head, *lines]))


if __name__ == "__main__":
    main()
