"""From labelled rows to what models read: features, normalisation, targets, vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from barcast.core.arrays import F32, F64, I64, Bools
from barcast.core.bars import Bars
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace
from barcast.evaluation.metrics import rank_ic
from barcast.features import FeatureSet, Panel, build_panel, feature_set, user_feature_sets
from barcast.labels import TargetSpec, build_target
from barcast.pipeline.market import Market, held_out
from barcast.windows.index import MIN_BARS, own_bars
from barcast.windows.normalise import FittedScaler, session_normalise


@dataclass(frozen=True)
class Dataset:
    """Rows as models read them.

    Attributes
    ----------
    market : Market
        Bars, labels and segments of the same R rows.
    features : FeatureSet
        Where the inputs come from.
    inputs : F32, shape (R, F + 1)
        Normalised features and validity; raw logs for a window-normalised set.
    target : F32, shape (R, H)
        Training target on every labelled row; which rows may teach is ``fit``.
    target_name : str
        ``rank`` or ``volatility_scaled`` or ``return``.
    vocabulary : tuple of str
        Symbols with an embedding of their own, in order; index 0 is everybody else.
    embedding : I64, shape (S,)
        Embedding index of each symbol of the bars.
    scaler : FittedScaler or None
        What the inputs were normalised with; None for session statistics or raw logs.
    """

    market: Market
    features: FeatureSet
    inputs: F32
    target: F32
    target_name: str
    vocabulary: tuple[str, ...]
    embedding: I64
    scaler: FittedScaler | None

    @property
    def enough_history(self) -> Bools:
        """Rows with at least 20 own bars, shape (R,)."""
        return own_bars(self.market.bars.life_start) >= MIN_BARS

    def teaching_rows(self, final: bool = False) -> Bools:
        """Return rows whose labels may teach: `fit`, or every known label for a final refit."""
        market = self.market
        rows = market.labels.known.any(axis=1) if final else market.rows_of("fit")
        held = held_out(market.bars.symbols, market.config.hold_out_fold)[market.bars.symbol_of_row]
        return rows & self.enough_history & ~held & np.isfinite(self.target).any(axis=1)

    def rows_to_score(self, *segments: str) -> I64:
        """Return the rows of the named segments that get a prediction, in order."""
        return np.flatnonzero(self.market.rows_of(*segments) & self.enough_history)

    def stop_score(self) -> Callable[[I64, F32 | F64], float]:
        """Return the function that judges outputs on `stop`: mean RankIC, or R² of the target if small."""
        market, target = self.market, self.target
        y, session = market.labels.y, market.bars.session
        num_sessions = len(market.bars.calendar)

        def across(rows: I64, outputs: F32 | F64) -> float:
            values = [
                np.nanmean(rank_ic(y[rows, h], outputs[:, h].astype(np.float64), session[rows], num_sessions))
                for h in range(outputs.shape[1])
            ]
            return float(np.mean(values))

        def through_time(rows: I64, outputs: F32 | F64) -> float:
            wanted = target[rows]
            known = np.isfinite(wanted)
            error = np.square(np.where(known, wanted - outputs, 0.0)).sum()
            return float(1.0 - error / max(float(np.square(wanted[known]).sum()), 1e-12))

        return through_time if market.small_universe else across


def build_dataset(market: Market, workspace: Workspace, *, tabular: bool) -> Dataset:
    """Compute (or fetch from the cache) the features and normalise them.

    Raises
    ------
    UsageError
        When a window-normalised feature set is asked of a model that sees one row at a time.
    """
    features = resolve_features(workspace, market.config.features)
    if features.window_normalised and tabular:
        raise UsageError(
            f"feature set `{features.name}` is measured within a window; this model sees one row at a time",
            "use a network, or another set: `barcast features list`",
        )
    panel = make_panel(market.bars, features, workspace, market.data_digest)
    fit = market.rows_of("fit")
    scaler = None
    if market.small_universe and not features.window_normalised:
        scaler = FittedScaler.fit(panel.values, fit)
    everyone = np.ones(market.bars.num_symbols, bool)
    target, target_name = make_target(market)
    teaches = np.isin(np.arange(market.bars.num_symbols), np.unique(market.bars.symbol_of_row[fit]))
    teaches &= ~held_out(market.bars.symbols, market.config.hold_out_fold)
    vocabulary = tuple(s for s, known in zip(market.bars.symbols, teaches, strict=True) if known)
    return Dataset(
        market=market,
        features=features,
        inputs=normalised(panel, market.bars, features, scaler, everyone),
        target=target,
        target_name=target_name,
        vocabulary=vocabulary,
        embedding=embedding_index(market.bars.symbols, vocabulary),
        scaler=scaler,
    )


def normalised(
    panel: Panel, bars: Bars, features: FeatureSet, scaler: FittedScaler | None, universe: Bools
) -> F32:
    """Return inputs (R, F + 1): per session over ``universe`` (S,), by a fitted scaler, or raw logs."""
    if features.window_normalised:
        present = np.isfinite(panel.values)
        validity = present.mean(axis=1, keepdims=True, dtype=np.float32)
        return np.concatenate([np.where(present, panel.values, 0.0), validity], axis=1).astype(np.float32)
    if scaler is not None:
        return scaler.transform(panel.values)
    members = universe[bars.symbol_of_row]
    return session_normalise(panel.values, bars.session, len(bars.calendar), members)


def make_panel(
    bars: Bars, features: FeatureSet, workspace: Workspace | None, data_digest: str, cached: bool = True
) -> Panel:
    """Build the feature panel of the bars, through the workspace's cache where one is given."""
    cache = workspace.cache / "panels" if workspace is not None and cached else None
    return build_panel(bars, features, cache=cache, key={"data": data_digest})


def resolve_features(workspace: Workspace, name: str) -> FeatureSet:
    """Return a built-in set or one of the user's own (``[features] files`` in ``barcast.toml``)."""
    return feature_set(name, user_feature_sets(workspace))


def make_target(market: Market) -> tuple[F32, str]:
    """Return the training target (R, H), unit variance where it is a rank, and its name."""
    name = market.config.target
    if name == "auto":
        name = "volatility_scaled" if market.small_universe else "rank"
    values = build_target(TargetSpec(name=name), market.bars, market.labels)
    return values.value.astype(np.float32), name


def embedding_index(symbols: tuple[str, ...], vocabulary: tuple[str, ...]) -> I64:
    """Return each symbol's embedding row, 0 where the vocabulary does not have it."""
    position = {symbol: index + 1 for index, symbol in enumerate(vocabulary)}
    return np.array([position.get(symbol, 0) for symbol in symbols], np.int64)
