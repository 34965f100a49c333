"""Quality and time on a real market, from the store to predictions, comparison and report.

    python benchmarks/market_bench.py cn_a_share              # weigh and route only
    python benchmarks/market_bench.py cn_a_share --open-test  # once, at the end: opens the sealed segment

Every run appends a line to ``results/trials.jsonl``.
"""

import argparse
import re
import time

import polars as pl

from barcast.core.atomic import read_json
from barcast.core.memory import keep_freed_memory
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.evaluation.render import to_markdown
from barcast.pipeline.compare import compare_runs
from barcast.pipeline.predict import predict
from barcast.pipeline.settings import resolve
from barcast.pipeline.workflow import train_and_report
from common import SEGMENTS, log_trial, machine, workspace_for, write_result


def rate_of(facts: dict) -> str:
    """Return a network's labels a second as words, nothing for other models."""
    rate = facts.get("labels_per_second")
    return f", {rate:,.0f} labels a second" if rate else ""


def refusals(place: Workspace, run: RunFolder) -> list[str]:
    """Return every reason why a symbol got no prediction or no forecast, with counts and examples."""
    tables = [
        ("prediction", pl.DataFrame(read_json(run.path / "failures.json"))),
        ("next forecast", predict(place, run, asof=run.info["cutoff"], allow_old=True).reasons),
    ]
    lines = ["**Symbols without a prediction, by reason**", "", "| without | why | symbols | such as |",
             "| --- | --- | ---: | --- |"]  # fmt: skip
    for what, table in tables:
        if not len(table):
            continue
        why = table["reason"].map_elements(lambda text: re.sub(r"\d[\d-]*", "N", text), pl.String)
        for (reason,), part in table.with_columns(why=why).group_by("why", maintain_order=True):
            lines.append(f"| {what} | {reason} | {len(part):,} | {', '.join(part['symbol'][:3])} |")
    return lines


def main() -> None:
    """Train lstm, ridge and lightgbm and compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=["cn_a_share", "us_long", "us_market", "crypto_1h"])
    parser.add_argument("--models", default="lstm,lightgbm")
    parser.add_argument("--horizon", type=int, default=5)
    parser.add_argument("--open-test", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()
    place = Workspace.find(workspace_for(arguments.data))
    flags = {"horizons": (arguments.horizon,)}
    if arguments.data in SEGMENTS:
        flags |= {"segments": SEGMENTS[arguments.data]}
    if arguments.data == "cn_a_share":
        flags |= {"asof": "2025-08-22"}  # later rows carry another anchor
    lines, runs = [f"`{arguments.data}`, {machine()}", ""], []
    for model in arguments.models.split(","):
        started = time.perf_counter()
        done = train_and_report(place, resolve(place, model, flags), fresh=True, progress=Progress(True))
        seconds = time.perf_counter() - started
        runs.append(done.run)
        facts = done.run.info
        lines.append(
            f"- `{model}`: store to predictions, comparison and report in {seconds:.0f} s "
            f"(trained in {facts['train_seconds']:.0f} s{rate_of(facts)})"
        )
    compared = compare_runs(place, runs, segments=("weigh", "route"), open_test=arguments.open_test)
    for comparison in compared.comparisons:
        lines += ["", to_markdown(comparison)]
        for row in comparison.all_rows.rows:
            score = row.scores[comparison.primary]
            log_trial(
                benchmark="market", data=arguments.data, segment=comparison.segment, model=row.model,
                metric=comparison.primary, value=round(score.value, 6), low=round(score.low, 6),
                high=round(score.high, 6), openings=compared.openings.total,
            )  # fmt: skip
    lines += ["", *refusals(place, done.run)]
    suffix = "test" if arguments.open_test else "route"
    write_result(f"market_{arguments.data}_{suffix}", "\n".join(lines))


if __name__ == "__main__":
    main()
