"""``barcast data check`` and ``barcast features check``: stored bars, and features on them, tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from barcast.core.workspace import Workspace
from barcast.features import FeatureSet, check_causal, load_user_features
from barcast.features.checks import MAX_SYMBOLS
from barcast.pipeline.dataset import resolve_features
from barcast.pipeline.market import load_bars, quality_policy
from barcast.pipeline.settings import DataConfig
from barcast.quality import QualityPolicy, QualityReport, check_bars
from barcast.store import MarketStore

#: Sessions at which stored history is cut: what looks ahead on few days only shows at few of them.
REAL_CUTS = 30


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
    chosen = store.resolve(symbols, version) if symbols else None
    frame = store.frame(symbols=chosen, version=version)
    calendar, conflicts = store.calendar(version), store.conflicts(version)
    return check_bars(frame, calendar, store.meta.market, conflicts), policy


def check_features(workspace: Workspace, name: str) -> tuple[FeatureSet, int]:
    """Recompute features on cut histories: of made-up bars, and of stored ones where there is a store.

    Real bars have what made-up ones lack (volumes that are missing or zero, holes, late listings), so a
    feature that looks ahead only there is found only there.

    Parameters
    ----------
    name : str
        A feature set, several joined by ``+``, or a Python file of user features.

    Returns
    -------
    tuple of FeatureSet and int
        What was checked, and on how many stored symbols (0 without a store).

    Raises
    ------
    LeakError, UsageError
        See ``barcast.features.check_causal``.
    """
    made = load_user_features([Path(name)])[0] if name.endswith(".py") else resolve_features(workspace, name)
    if not (workspace.market / "store.json").is_file():
        return made, 0
    symbols = MarketStore.open(workspace.market).symbols()
    some = np.random.default_rng(0).permutation(symbols)[:MAX_SYMBOLS].tolist()
    bars = load_bars(workspace, DataConfig(symbols=tuple(sorted(some)))).bars
    check_causal(made, bars, num_cuts=REAL_CUTS)
    return made, bars.num_symbols
