"""What dedicated models are worth: presets, averaging, members, the universal model, residuals, routing.

    python benchmarks/fleet_quality_bench.py                # train what is missing; tables of `route`
    python benchmarks/fleet_quality_bench.py --open-test    # then, once: two contrasts on `test`

Every run is one of the bench's workspace, so a bench that was killed goes on; the part of a market that was not asked
for stays as it was. All learn the rank of the 5-session
return from `fit`, stop on `stop` and weigh on `weigh`. The first table is of runs, on rows that all of them forecast:
RankIC, and the log score of the return by one volatility for all, its width of each symbol from `weigh`. The second
is of the presets beside `high`: each was trained in a process of its own, looked at ten times a second. The third is of the
members of `standard`, in units of what they learn. The fourth is two by two: pooled or a model a symbol, LSTM or trees,
on the same features, target and rows. Intervals are by blocks of sessions, differences paired.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from common import (
    DELAY,
    HORIZON,
    OUT,
    RESULTS,
    SEGMENTS,
    estimated,
    log_trial,
    machine,
    shown,
    watched,
    workspace_for,
    write_result,
)
from fleet_quality_members import Members, by_session

MARKETS = ("cn_a_share", "us_long")
PRESETS = ("extreme", "fast", "standard", "high", "published")
#: Which trees stand for dedicated ones beside the universal network.
FLEET, RESIDUAL, ROUTED, UNIVERSAL = "standard", "standard on residual", "routed", "lstm"
KEYS = ["symbol", "time"]


def asked(market: str) -> dict:
    """Options of every run of a market."""
    asof = {"asof": "2025-08-22"} if market == "cn_a_share" else {}
    return {"segments": SEGMENTS[market], "horizons": (HORIZON,), "report": False, "progress": True, **asof}


def trained(market: str) -> dict[str, str]:
    """Train what is missing; return names of runs by what they are."""
    import barcast

    place, options = workspace_for(market), asked(market)

    def pooled(model: str, **more) -> str:
        return barcast.train(model, workspace=place, **options, **more).run.name

    def fleet(kind: str, preset: str, **more) -> str:
        return barcast.train_fleet(kind=kind, workspace=place, preset=preset, **options, **more).run.name

    def measured(preset: str) -> str:
        return looked_at(market, preset)["run"]

    runs = {model: pooled(model) for model in ("ridge", "lightgbm", UNIVERSAL)}
    runs |= {preset: measured(preset) for preset in PRESETS}
    runs[RESIDUAL] = fleet("trees", FLEET, on="residual", universal=runs[UNIVERSAL])
    runs[ROUTED] = barcast.route(runs[UNIVERSAL], runs[FLEET], workspace=place, progress=True).run.name
    runs |= {
        "pooled lstm": pooled("lstm", features="core12"),
        "pooled trees": pooled("lightgbm", features="core12"),
        "lstm a symbol": fleet("lstm", "64"),
    }
    return runs


def preset_run(market: str, preset: str) -> dict[str, str]:
    """Train a preset as the command does."""
    import barcast
    from barcast.core.memory import keep_freed_memory

    keep_freed_memory()
    result = barcast.train_fleet(workspace=workspace_for(market), preset=preset, **asked(market))
    info = result.run.info
    if info["train_seconds"] < info["fit_seconds"] / 2:
        raise SystemExit(
            f"{result.run.name} was fitted before, in part: delete it, and its seconds are of all"
        )
    return {"run": result.run.name}


def kept_or(market: str, name: str, measure: Callable[[], dict]) -> dict:
    """Return what was measured once on a market, measured now where it was not."""
    kept = workspace_for(market) / "measured.json"
    results = json.loads(kept.read_text()) if kept.is_file() else {}
    if name not in results:
        results[name] = measure()
        kept.write_text(json.dumps(results, indent=1))
    return results[name]


def looked_at(market: str, preset: str) -> dict:
    """Return the run of a preset, its seconds and the most memory that its process tree held while it was trained."""

    def measure() -> dict:
        seen = watched(sys.executable, __file__, "--markets", market, "--preset", preset)
        return {**json.loads(seen.printed.splitlines()[-1]), "peak": seen.peak(), "seconds": seen.seconds}

    return kept_or(market, preset, measure)


@dataclass(frozen=True)
class Rows:
    """Forecasts of several runs on the rows that all of them have: a column a run."""

    table: pl.DataFrame  # symbol, time, y, sigma, scale, and of each run `NAME` (score) and `NAME y_hat`
    session: np.ndarray
    coverage: dict[str, float]

    def rank_ic(self, name: str) -> np.ndarray:
        """RankIC by session of a run."""
        from barcast.evaluation.metrics import rank_ic

        y, score = self.table["y"].to_numpy(), self.table[name].to_numpy()
        return rank_ic(y, score, self.session, int(self.session.max()) + 1)

    def log_score(self, name: str) -> np.ndarray:
        """Mean log density of the outcomes by session; ``zero`` is a run too."""
        from barcast.ensemble.densities import log_densities

        y, scale = (self.table[column].to_numpy() for column in ("y", "scale"))
        y_hat = np.zeros(len(y)) if name == "zero" else self.table[f"{name} y_hat"].to_numpy()
        density = log_densities(y, y_hat[:, None], scale)[:, 0]
        return by_session(density, self.session)


def outcomes(market: str) -> pl.DataFrame:
    """Every labelled row of the market: symbol, time, y."""
    from barcast.core.workspace import Workspace
    from barcast.pipeline.market import load_market, session_times
    from barcast.pipeline.settings import resolve

    place = Workspace.find(workspace_for(market))
    options = {name: value for name, value in asked(market).items() if name not in ("report", "progress")}
    rows = load_market(place, resolve(place, "ridge", options).data)
    bars = rows.bars
    return pl.DataFrame({
        "symbol": np.array(bars.symbols)[bars.symbol_of_row], "time": session_times(bars, bars.session),
        "y": rows.labels.y[:, 0],
    }).with_columns(pl.col("time").cast(pl.Datetime("us"))).filter(pl.col("y").is_finite())  # fmt: skip


def widths(market: str, run: str) -> pl.DataFrame:
    """The factor of each symbol by which sigma becomes the scale, from `weigh`: symbol, width."""
    from barcast.ensemble.densities import fit_widths

    table = predictions(market, run, "weigh").filter(pl.col("y").is_not_null()).sort(KEYS)
    sizes = table.group_by("symbol", maintain_order=True).len()
    offsets = np.concatenate([[0], np.cumsum(sizes["len"].to_numpy())]).astype(np.int64)
    width = fit_widths(table["y"].to_numpy(), table["sigma"].to_numpy(), offsets)
    return sizes.select("symbol").with_columns(width=pl.Series(width))


def predictions(market: str, run: str, segment: str) -> pl.DataFrame:
    """A run's rows of a segment."""
    from barcast.core.predictions import read_predictions
    from barcast.core.runs import open_run
    from barcast.core.workspace import Workspace

    place = Workspace.find(workspace_for(market))
    return read_predictions(open_run(place, run).predictions, segment=segment, horizon=HORIZON)


def common_rows(market: str, runs: dict[str, str], segment: str, y: pl.DataFrame) -> Rows:
    """Join the runs on the rows that all of them forecast."""
    first = next(iter(runs.values()))
    base = predictions(market, first, segment).select(*KEYS, "sigma").join(y, on=KEYS)
    table, coverage = base.join(widths(market, first), on="symbol"), {}
    for name, run in runs.items():
        own = predictions(market, run, segment).select(
            *KEYS, pl.col("score").alias(name), pl.col("y_hat").alias(f"{name} y_hat")
        )
        coverage[name] = len(base.join(own, on=KEYS, how="semi")) / len(base)
        table = table.join(own, on=KEYS)
    table = table.with_columns(scale=pl.col("sigma") * pl.col("width")).sort(KEYS)
    session = table["time"].rank("dense").to_numpy().astype(np.int64) - 1
    return Rows(table, session, coverage)


def runs_lines(market: str, rows: Rows, facts: dict[str, dict]) -> list[str]:
    """Tabulate runs: skill, log score, cost."""
    lines = [
        f"`route`, {len(np.unique(rows.session))} sessions, {rows.table['symbol'].n_unique():,} symbols that all "
        "forecast; log score in thousandths of a nat.", "",
        f"| run | RankIC | less {UNIVERSAL} | log score less zero | coverage | seconds | kB a symbol |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    zero, ours = rows.log_score("zero"), rows.rank_ic(UNIVERSAL)
    for name, fact in facts.items():
        series = rows.rank_ic(name)
        paired = "" if name == UNIVERSAL else shown(series - ours)
        lines.append(
            f"| {name} | {shown(series)} | {paired} | {shown(1e3 * (rows.log_score(name) - zero), 2)} "
            f"| {rows.coverage[name]:.0%} | {fact['seconds']:,.0f} | {fact['kB']:,.1f} |"
        )
        log_trial(
            benchmark="fleet_quality", data=market, segment="route", model=name, value=estimated(series)[0]
        )
    return lines


def presets_lines(market: str, rows: Rows, facts: dict[str, dict]) -> list[str]:
    """Tabulate presets: cost, and skill less that of the heaviest."""
    lines = [
        f"Presets, {facts[FLEET]['models']:,} models each, two workers; the whole command, from its start to the "
        "comparison.", "",
        "| preset | seconds | peak memory | kB a symbol | RankIC less `high` | log score less `high` |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    ic, score = rows.rank_ic("high"), rows.log_score("high")
    for preset in PRESETS:
        fact, seen = facts[preset], looked_at(market, preset)
        paired = " | ".join(
            "" if preset == "high" else shown(difference, digits)
            for difference, digits in (
                (rows.rank_ic(preset) - ic, 4), (1e3 * (rows.log_score(preset) - score), 2)
            )
        )  # fmt: skip
        lines.append(
            f"| {preset} | {seen['seconds']:,.0f} | {seen['peak'] / 2**30:.2f} GiB | {fact['kB']:,.1f} | {paired} |"
        )
        log_trial(
            benchmark="fleet_presets",
            data=market,
            preset=preset,
            models=fact["models"],
            kB=fact["kB"],
            **seen,
        )
    return lines


def members_lines(market: str, run: str) -> list[str]:
    """Tabulate the members of a fleet's ensembles beside their averages, on `route`, in units of the target."""
    said = Members.of(market, run, "route")
    lines = [
        f"Members of `{FLEET}` on `route`, {len(np.unique(said.session))} sessions, in units of the rank they learn.", "",
        "| forecast | RankIC | log score less zero, thousandths of a nat |", "| --- | ---: | ---: |",
    ]  # fmt: skip
    zero = said.log_score({"zero": 1.0})
    for name, weights in said.mixtures().items():
        ic = "" if name == "zero" else shown(said.rank_ic(weights))
        lines.append(f"| {name} | {ic} | {shown(1e3 * (said.log_score(weights) - zero), 2)} |")
    own, equal = said.mixtures()["BMA"], said.mixtures()["equal weights, zero among them"]
    plain = said.mixtures()["equal weights of the trees"]
    for name, other in (("equal weights, zero among them", equal), ("equal weights of the trees", plain)):
        ic = shown(said.rank_ic(own) - said.rank_ic(other))
        score = shown(1e3 * (said.log_score(own) - said.log_score(other)), 2)
        lines.append(f"| BMA less {name} | {ic} | {score} |")
    return lines


def square_lines(rows: Rows, facts: dict[str, dict], added: float) -> list[str]:
    """Tabulate two by two."""
    cells = {
        ("pooled", "LSTM"): "pooled lstm", ("pooled", "trees"): "pooled trees",
        ("a symbol", "LSTM"): "lstm a symbol", ("a symbol", "trees"): FLEET,
    }  # fmt: skip
    lines = [
        "Two by two: `core12`, the same target and rows. To add a symbol: seconds of computing; a pooled LSTM serves it "
        "at once as unknown, or learns its embedding (with the store's reading). To update: the whole training again.", "",
        "| models | kind | RankIC on `route` | less pooled LSTM | coverage | add a symbol | update | disk |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    base = rows.rank_ic("pooled lstm")
    for (models, kind), name in cells.items():
        series, fact = rows.rank_ic(name), facts[name]
        own = fact.get("a symbol", added if kind == "LSTM" else 0.0)
        lines.append(
            f"| {models} | {kind} | {shown(series)} | {'' if name == 'pooled lstm' else shown(series - base)} "
            f"| {rows.coverage[name]:.0%} | {own:.2f} s | {fact['seconds']:,.0f} s | {fact['MB']:,.1f} MB |"
        )
    return lines


def facts_of(market: str, run: str) -> dict:
    """Seconds of a run from reading to comparison, its size, and what a symbol of a fleet takes."""
    from barcast.core.runs import open_run
    from barcast.core.workspace import Workspace

    opened = open_run(Workspace.find(workspace_for(market)), run)
    info = opened.info
    parts = list(opened.fleet.glob("*")) if opened.fleet.is_dir() else [opened.weights]
    size = sum(
        part.stat().st_size for part in parts if part.suffix != ".sqlite-shm"
    )  # shared memory, not disk
    found = {"seconds": info["total_seconds"], "MB": size / 1e6, "kB": size / 1e3 / info["num_symbols"]}
    if info.get("num_models"):
        each = {"a symbol": info["fit_seconds"] / info["num_models"], "kB": size / 1e3 / info["num_models"]}
        found |= {**each, "models": info["num_models"]}
    return found


def seconds_to_add(market: str) -> float:
    """Seconds in which a symbol that a pooled LSTM never saw gets an embedding, the store's reading included."""
    import time

    import barcast

    place = workspace_for(market)
    symbols = outcomes(market)["symbol"].value_counts(sort=True)["symbol"][:201].to_list()
    run = barcast.train("lstm", workspace=place, symbols=symbols[:200], **asked(market)).run.name
    started = time.perf_counter()
    barcast.adapt(run, workspace=place, symbols=symbols[200], anyway=True)
    return time.perf_counter() - started


def test_lines(market: str, runs: dict[str, str], y: pl.DataFrame) -> list[str]:
    """Open `test` for the contrasts that were named beforehand."""
    if opened(market):
        raise SystemExit(f"`test` of {market} has been opened by this benchmark: see trials.jsonl")
    named = [RESIDUAL, ROUTED, FLEET, UNIVERSAL]
    rows = common_rows(market, {name: runs[name] for name in named}, "test", y)
    ours = rows.rank_ic(UNIVERSAL)
    lines = [
        f"`test`, {len(np.unique(rows.session))} sessions, opened once:", "",
        f"| run | RankIC | less {UNIVERSAL} |", "| --- | ---: | ---: |",
    ]  # fmt: skip
    for name in named:
        series = rows.rank_ic(name)
        lines.append(f"| {name} | {shown(series)} | {'' if name == UNIVERSAL else shown(series - ours)} |")
        mean, low, high = estimated(series - ours) if name != UNIVERSAL else estimated(series)
        log_trial(
            benchmark="fleet_quality", data=market, segment="test", model=name, value=mean, low=low, high=high
        )
    said = Members.of(market, runs[FLEET], "test")
    mixtures = said.mixtures()
    plain = mixtures["equal weights of the trees"]
    ic = said.rank_ic(None) - said.rank_ic(plain)
    score = 1e3 * (said.log_score(None) - said.log_score(plain))
    lines += [
        "", f"BMA less equal weights of the trees on `test`: RankIC {shown(ic)}, log score {shown(score, 2)} "
        "thousandths of a nat.",
    ]  # fmt: skip
    return lines


def opened(market: str) -> bool:
    """Whether this benchmark has looked at `test` of a market."""
    lines = (RESULTS / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return any(
        one["benchmark"] == "fleet_quality" and one["data"] == market and one.get("segment") == "test"
        for one in found
    )


def market_lines(market: str, *, open_test: bool) -> list[str]:
    """All tables of a market."""
    runs, y = trained(market), outcomes(market)
    facts = {name: facts_of(market, run) for name, run in runs.items()}
    lines = [f"## {market}", ""]
    first = {
        name: run
        for name, run in runs.items()
        if name not in ("pooled lstm", "pooled trees", "lstm a symbol")
    }
    rows = common_rows(market, first, "route", y)
    lines += [*runs_lines(market, rows, {name: facts[name] for name in first}), ""]
    lines += [*presets_lines(market, rows, facts), ""]
    lines += [*members_lines(market, runs[FLEET]), ""]
    four = {name: runs[name] for name in ("pooled lstm", "pooled trees", "lstm a symbol", FLEET)}
    square = common_rows(market, four, "route", y)
    added = kept_or(market, "seconds to add", lambda: {"seconds": seconds_to_add(market)})
    lines += [*square_lines(square, facts, added["seconds"]), ""]
    if open_test:
        lines += [*kept_or(market, "test", lambda: {"lines": test_lines(market, runs, y)})["lines"], ""]
    return lines


def main() -> None:
    """Train what is missing and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--markets", default=",".join(MARKETS))
    parser.add_argument("--open-test", action="store_true", help="once, when all else is decided")
    parser.add_argument("--preset", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.preset:
        print(json.dumps(preset_run(given.markets, given.preset)))
        return
    head = [
        f"Rank of the {HORIZON}-session return, {DELAY} session of delay, {machine()}. 95 % intervals by blocks of sessions.",
        "",
    ]  # fmt: skip
    for market in given.markets.split(","):
        lines = market_lines(market, open_test=given.open_test)
        (OUT / market / "fleet_quality.md").write_text("\n".join(lines), encoding="utf-8")
        done = [OUT / each / "fleet_quality.md" for each in MARKETS]
        parts = [part.read_text(encoding="utf-8") for part in done if part.is_file()]
        write_result("fleet_quality", "\n".join([*head, *parts]))


if __name__ == "__main__":
    main()
