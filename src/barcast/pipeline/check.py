"""``barcast data check``: what is wrong with the stored bars, and what the policy does about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from barcast.core.workspace import Workspace
from barcast.pipeline.market import chosen_symbols, quality_policy
from barcast.pipeline.settings import DataConfig
from barcast.quality import QualityPolicy, QualityReport, check_bars
from barcast.store import MarketStore


def check_store(
    workspace: Workspace, symbols: Sequence[str] = (), choices: Mapping[str, str] | None = None
) -> tuple[QualityReport, QualityPolicy]:
    """Check the last version of the store, or some of its symbols.

    Raises
    ------
    UsageError
        On an unknown kind or policy.
    SymbolError
        When a symbol is not in the store.
    """
    policy = quality_policy(workspace, choices or {})
    store = MarketStore.open(workspace.market)
    frame = store.frame(symbols=chosen_symbols(store, DataConfig(symbols=tuple(symbols))))
    return check_bars(frame, store.calendar(), store.meta.market, store.conflicts()), policy
