"""Rows of rules that need no training, computed once for each data and label."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from barcast.core.cache import evict, touch
from barcast.core.config import digest
from barcast.core.errors import ResourceError
from barcast.core.predictions import read_predictions, write_predictions
from barcast.core.progress import Progress
from barcast.core.workspace import Workspace
from barcast.models.registry import model_entries
from barcast.pipeline.forecast import base_rows, naive_rows
from barcast.pipeline.market import Market
from barcast.pipeline.train import SCORED

#: What the cache of naive rows may hold; the newest entry is always kept.
NAIVE_CACHE_BYTES = 1 << 30


@contextmanager
def spared(progress: Progress, what: str) -> Iterator[None]:
    """Go on with a note where the workspace cannot be written: what was computed is not lost for it."""
    try:
        yield
    except (ResourceError, OSError) as error:
        found = error.found if isinstance(error, ResourceError) else str(error)
        progress.note(f"not kept, {what}: {found}")


def naive_tables(
    workspace: Workspace, market: Market, segment: str, horizon: int, progress: Progress
) -> list[pl.DataFrame]:
    """Return every rule's rows of a segment and horizon.

    They come from the cache where the same code was asked before about this data and label. One rule at a
    time is computed for all segments and put there.
    """
    rules = [entry for entry in model_entries() if entry.kind == "naive"]
    modules = {entry.build.__module__ for entry in rules} | {base_rows.__module__}
    code = [Path(sys.modules[name].__file__ or "").read_text(encoding="utf-8") for name in sorted(modules)]
    asked = digest([market.data_key, _labels_digest(market), market.config.target == "quantiles", code])
    folder, found, writable = workspace.cache / "naive", [], True
    for rule in rules:
        path = folder / f"{asked}-{rule.name}.parquet"
        if path.is_file():
            touch(path)
            found.append(read_predictions(path, segment=segment, horizon=horizon))
            continue
        if not found:
            progress.note("naive rows")
        table = naive_rows(market, np.flatnonzero(market.rows_of(*SCORED)), rule.name, rule.build)
        writable = writable and _keep(path, table, progress)
        found.append(table.filter(pl.col("segment") == segment, pl.col("horizon") == horizon))
    return found


def _keep(path: Path, table: pl.DataFrame, progress: Progress) -> bool:
    """Put an entry into the cache; False, with a note, where that cannot be."""
    with spared(progress, "the cache of naive rows"):
        write_predictions(path, table)
        evict(path.parent, ".parquet", NAIVE_CACHE_BYTES, keep=path)
        return True
    return False


def _labels_digest(market: Market) -> str:
    """Name what naive rows say of each row, by its values: whatever code or options made them."""
    labels, state = market.labels, hashlib.blake2b(repr(market.label_key).encode(), digest_size=16)
    for array in (labels.y, labels.known_at, labels.tradable, market.segment, market.volatility):
        state.update(np.ascontiguousarray(array).view(np.uint8).data)
    return state.hexdigest()
