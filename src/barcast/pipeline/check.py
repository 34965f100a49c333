"""``barcast data check``: what is wrong with the stored bars, and what the policy does about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from barcast.core.workspace import Workspace
from barcast.pipeline.market import quality_policy, resolve_symbols
from barcast.quality import QualityPolicy, QualityReport, check_bars
from barcast.store import MarketStore


def check_store(
    workspace: Workspace, symbols: Sequence[str] = (), choices: Mapping[str, str] | None = None
) -> tuple[QualityReport, QualityPolicy]:
    """Check the last version of the store, or some of its symbols, in any spelling.

    Raises
    ------
    UsageError
        On an unknown kind or policy.
    SymbolError
        When a symbol is not in the store.
    """
    policy = quality_policy(workspace, choices or {})
    store = MarketStore.open(workspace.market)
    version = store.version  # one version throughout, whatever another process publishes meanwhile
    chosen = resolve_symbols(store, symbols, version) if symbols else None
    frame = store.frame(symbols=chosen, version=version)
    calendar, conflicts = store.calendar(version), store.conflicts(version)
    return check_bars(frame, calendar, store.meta.market, conflicts), policy
