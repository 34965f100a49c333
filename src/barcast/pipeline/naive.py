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
from barcast.models.registry import ModelEntry, model_entries
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


class NaiveTables:
    """Every rule's rows about one data and label, segment by segment.

    They come from the cache where the same code was asked before. One rule at a time is computed for all
    segments and put there; what cannot be put there stays in memory, so that no rule is computed twice.
    """

    def __init__(self, workspace: Workspace, market: Market, progress: Progress) -> None:
        self.market, self.progress, self.folder = market, progress, workspace.cache / "naive"
        self.rules = [entry for entry in model_entries() if entry.kind == "naive"]
        modules = {entry.build.__module__ for entry in self.rules} | {base_rows.__module__}
        code = [
            Path(sys.modules[name].__file__ or "").read_text(encoding="utf-8") for name in sorted(modules)
        ]
        with_quantiles = market.config.target == "quantiles"
        self.asked = digest([market.data_key, _labels_digest(market), with_quantiles, code])
        self.unkept: dict[str, pl.DataFrame] = {}

    def of(self, segment: str, horizon: int) -> list[pl.DataFrame]:
        """Return the rows of a segment and horizon, one table a rule."""
        return [self._of_rule(rule, segment, horizon) for rule in self.rules]

    def _of_rule(self, rule: ModelEntry, segment: str, horizon: int) -> pl.DataFrame:
        path = self.folder / f"{self.asked}-{rule.name}.parquet"
        if path.is_file():
            touch(path)
            return read_predictions(path, segment=segment, horizon=horizon)
        table = self.unkept.get(rule.name)
        if table is None:
            if rule is self.rules[0]:
                self.progress.note("naive rows")
            rows = np.flatnonzero(self.market.rows_of(*SCORED))
            table = naive_rows(self.market, rows, rule.name, rule.build)
            if self.unkept or not _keep(path, table, self.progress):
                self.unkept[rule.name] = table
        return table.filter(pl.col("segment") == segment, pl.col("horizon") == horizon)


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
