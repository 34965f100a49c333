"""What the report says of a routed run: who serves whom, with the evidence that decided it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from barcast.core.errors import RunError
from barcast.core.runs import RunFolder
from barcast.core.texts import Text
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.pipeline.report_fleet import Z_95, number, reason_text
from barcast.pipeline.routed_parts import open_routes
from barcast.pipeline.settings import from_run
from barcast.reports.fleet import Routing, Why


def routing_part(run: RunFolder, horizon: int) -> Routing:
    """Collect what the page shows of who serves whom at one horizon.

    Raises
    ------
    RunError
        When the routes are not there.
    """
    options = from_run(run.read("config.json")).options
    without = _without_model(run, options.fleet)
    lines = open_routes(run).filter(horizon=horizon).sort("symbol").to_dicts()
    whys = [_why(line, options.policy, without) for line in lines]
    error = [None if line["standard_error"] is None else Z_95 * line["standard_error"] for line in lines]
    columns: dict[str, list[Any]] = {
        "symbol": [line["symbol"] for line in lines],
        "server": [line["decision"] for line in lines],
        "gain": [number(line["gain"]) for line in lines],
        "low": [_beside(line["gain"], half, -1) for line, half in zip(lines, error, strict=True)],
        "high": [_beside(line["gain"], half, 1) for line, half in zip(lines, error, strict=True)],
        "expected": [number(line["posterior_mean"]) for line in lines],
        "probability": [number(line["probability"]) for line in lines],
        "rows": [line["num_rows"] for line in lines],
        "blocks": [line["num_blocks"] for line in lines],
        "why": whys,
        "detail": [
            without.get(line["symbol"]) if why == "none" else None
            for line, why in zip(lines, whys, strict=True)
        ],
    }
    return Routing(universal=options.universal, fleet=options.fleet, policy=options.policy, symbols=columns)


def _beside(gain: float | None, half: float | None, sign: int) -> float | None:
    return None if gain is None or half is None else number(gain + sign * half)


def _why(line: Mapping[str, Any], policy: str, without: Mapping[str, Text]) -> Why:
    """Return which of the page's sentences says why a symbol is served by whom."""
    judged = number(line["probability"]) is not None
    if line["symbol"] in without or (not without and not line["num_rows"]):
        return "none"
    if policy != "evidence":
        return "policy"
    if line["decision"] == "dedicated":
        return "better"
    if not judged:
        return "little"
    return "worse" if line["posterior_mean"] <= 0 else "luck"


def _without_model(run: RunFolder, fleet: str) -> dict[str, Text]:
    """Return why symbols have no model of their own; nothing where the fleet is gone."""
    path = RunFolder(run.path.parent / fleet).fleet / LEDGER
    try:
        with Ledger.open(path) as ledger:
            rows = ledger.rows(status=["failed", "left_out", "pending", "running"])
    except RunError:
        return {}
    return {row.symbol: reason_text(row.reason) for row in rows}
