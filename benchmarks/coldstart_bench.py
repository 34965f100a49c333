"""Cold start where the truth is known: a made-up market in which every symbol behaves in its own way.

    python benchmarks/coldstart_bench.py --folds 3 --seed 1

The default `id_dropout` and the make-up of the embedding were chosen on the market of seed 0.

Volume is drawn at random, and the return two sessions later answers to it: with one strength that all symbols
share, one of the symbol's industry, and one of its own. A twentieth of the symbols is kept out of training in each
fold. LSTMs are trained on the same rows: without identity; with it, as it is by default; with it and the industry
(``--static industry``); and with it where samples are seldom shown as unknown (``--id-dropout 0.1``). On symbols that taught, identity must win, or nothing was planted that could be learned; on symbols held out, a model with
identity must not fall behind the one without.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from barcast.core.calendar import exchange_days
from barcast.core.predictions import read_predictions
from barcast.core.progress import Progress
from barcast.core.workspace import Workspace
from barcast.evaluation.coldstart import SessionScores, difference, pooled, retains, session_scores, skill
from barcast.pipeline.beside import add_facts
from barcast.pipeline.data import import_data
from barcast.pipeline.market import held_out
from barcast.pipeline.settings import resolve
from barcast.pipeline.train import train
from barcast.sources.options import ImportOptions
from common import log_trial, machine, write_result

#: Answer of the return, in its own standard deviations, to one standard deviation of volume.
COMMON, INDUSTRY, OWN = 0.45, 0.3, 0.3
NOISE, NUM_INDUSTRIES = 0.015, 8
HORIZON, DELAY = 1, 1
MODELS = {
    "without identity": {"stock_embedding_dim": 0},
    "with identity": {},
    "with identity and industry": {"static": ("industry",)},
    "with identity, id_dropout 0.1": {"id_dropout": 0.1},
}
WITHOUT = "without identity"
CONSTANT = "a constant"


@dataclass(frozen=True)
class Size:
    """How large the market is, and how long the networks learn."""

    num_symbols: int = 600
    num_sessions: int = 520
    epochs: int = 16


def make_market(root: Path, size: Size, seed: int = 0) -> Workspace:
    """Import the made-up market and put the industries on record."""
    rng = np.random.default_rng(seed)
    shape = (size.num_symbols, size.num_sessions)
    industry = rng.integers(0, NUM_INDUSTRIES, size.num_symbols)
    apart = np.linspace(-1, 1, NUM_INDUSTRIES)  # evenly, so that no luck decides how much industry matters
    answer = COMMON + INDUSTRY * (apart / apart.std())[industry] + rng.normal(0, OWN, size.num_symbols)
    volume, noise = rng.normal(size=shape), rng.normal(size=shape)
    returns = noise.copy()
    returns[:, 2:] += answer[:, None] * volume[:, :-2]
    close = 50 * np.exp(np.cumsum(NOISE * returns, axis=1))
    days = exchange_days("XNYS", np.datetime64("2018-01-02").item(), np.datetime64("2024-12-31").item())
    names = np.array([f"SYN{number:04d}" for number in range(size.num_symbols)])
    frame = pl.DataFrame(
        {
            "symbol": np.repeat(names, size.num_sessions),
            "date": np.tile(np.array(days[: size.num_sessions]), size.num_symbols),
            **{name: (close * factor).ravel() for name, factor in
               (("open", 1.0), ("high", 1.002), ("low", 0.998), ("close", 1.0))},
            "volume": np.round(1e6 * np.exp(0.7 * volume)).ravel(),
        }
    )  # fmt: skip
    import_data(root, frame, ImportOptions(market="us", basis="raw", volume_unit="share"))
    add_facts(root, pl.DataFrame({"symbol": names, "industry": [f"I{code}" for code in industry]}))
    return Workspace(root)


def route_rows(place: Workspace, size: Size, fold: int, options: dict) -> pl.DataFrame:
    """Train without the fold's symbols and return the rows of `route`, with who was held out."""
    flags = {
        "features": "core12", "horizons": (HORIZON,), "delay": DELAY, "shares": (0.5, 0.08, 0.12, 0.25, 0.05),
        "hold_out_fold": fold, "hidden_size": 24, "num_layers": 1, "look_back_window": 20, "stretch_length": 40,
        "batch_size": 4000, "lr": 3e-3, "epochs": size.epochs, "amp": "off", "threads": 1, **options,
    }  # fmt: skip
    trained = train(place, resolve(place, "lstm", flags), progress=Progress(False))
    rows = read_predictions(trained.run.predictions).filter(segment="route").sort("time", "symbol")
    symbols = tuple(rows["symbol"].unique().sort())
    held = {name for name, out in zip(symbols, held_out(symbols, fold), strict=True) if out}
    return rows.with_columns(held=pl.col("symbol").is_in(list(held)))


def scores_of(rows: pl.DataFrame, *, constant: bool = False) -> SessionScores:
    """Score rows; a constant says the same of each: the mean of the model's expected returns."""
    session = rows["time"].rank("dense").cast(pl.Int32).to_numpy() - 1
    y, score, y_hat = (rows[name].to_numpy() for name in ("y", "score", "y_hat"))
    if constant:
        score, y_hat = np.zeros_like(score), np.full_like(y_hat, y_hat.mean())
    return session_scores(y, score, y_hat, session, int(session.max()) + 1)


def run_folds(place: Workspace, size: Size, num_folds: int) -> dict[bool, dict[str, SessionScores]]:
    """Return the scores of every model on symbols held out (True) and on those that taught (False)."""
    parts: dict[bool, dict[str, list[SessionScores]]] = {True: {}, False: {}}
    for fold in range(num_folds):
        for name, options in MODELS.items():
            rows = route_rows(place, size, fold, options)
            for held in (True, False):
                own = rows.filter(held=held)
                parts[held].setdefault(name, []).append(scores_of(own))
                if name == WITHOUT:
                    parts[held].setdefault(CONSTANT, []).append(scores_of(own, constant=True))
    return {held: {name: pooled(folds) for name, folds in found.items()} for held, found in parts.items()}


def lines_of(found: dict[str, SessionScores], title: str) -> list[str]:
    """Tabulate skill, and the differences to the model without identity."""
    how = {"horizon": HORIZON, "delay": DELAY}
    base = found[WITHOUT]
    lines = [f"| {title} | RankIC | R² against zero | retains it |", "| --- | ---: | ---: | --- |"]
    for name, scores in found.items():
        measured = skill(scores, **how)
        verdict = "" if scores is base else "yes" if retains(scores, base, **how) else "no"
        lines.append(f"| {name} | {_shown(measured.rank_ic)} | {_shown(measured.r2)} | {verdict} |")
    for name in [name for name in MODELS if name != WITHOUT]:
        gap = difference(found[name], base, **how)
        lines.append(f"| {name}, less without | {_shown(gap.rank_ic)} | {_shown(gap.r2)} | |")
    return lines


def _shown(estimate) -> str:
    if not np.isfinite(estimate.value):
        return "undefined"
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def main() -> None:
    """Run the folds and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="of the market")
    given = parser.parse_args()
    folds, seed = given.folds, given.seed
    started, size = time.perf_counter(), Size()
    with tempfile.TemporaryDirectory() as folder:
        found = run_folds(make_market(Path(folder) / "ws", size, seed), size, folds)
    seconds = time.perf_counter() - started
    how = {"horizon": HORIZON, "delay": DELAY}
    base = found[True][WITHOUT]
    verdicts = {name: retains(scores, base, **how) for name, scores in found[True].items()}
    assert not verdicts[CONSTANT], "a constant must fail"
    lines = [
        f"A made-up market of {size.num_symbols} symbols and {size.num_sessions} sessions (seed {seed}), `route`, {folds} folds of "
        f"5 % of the symbols, {seconds:.0f} s, {machine()}. Answer to volume: {COMMON} of all symbols, "
        f"{INDUSTRY} (standard deviation) by industry, {OWN} of the symbol's own. 95 % intervals by blocks of "
        "sessions; a model retains its skill when both scores stand above zero and neither difference lies below.",
        "", *lines_of(found[True], "symbols held out"), "", *lines_of(found[False], "symbols that taught"),
    ]  # fmt: skip
    for name, scores in found[True].items():
        measured = skill(scores, **how)
        log_trial(
            benchmark="coldstart", model=name, folds=folds, seed=seed, rank_ic=measured.rank_ic.value, r2=measured.r2.value,
            retains=verdicts[name],
        )  # fmt: skip
    write_result("coldstart", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
