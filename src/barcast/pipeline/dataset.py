"""From labelled rows to what models read: features, normalisation, targets, vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from barcast.core.arrays import F32, F64, I8, I64, Bools
from barcast.core.bars import Bars
from barcast.core.errors import DataError, UsageError
from barcast.core.memory import give_back
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.evaluation.metrics import auc, rank_ic
from barcast.features import (
    FeatureSet,
    Panel,
    build_panel,
    feature_set,
    load_user_features,
    user_feature_sets,
)
from barcast.labels import TargetSpec, build_target
from barcast.pipeline.attributes import Values, identity_codes, vocabularies
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
        As asked for, ``auto`` resolved.
    vocabulary : tuple of str
        Symbols with an embedding of their own, in order; index 0 is everybody else.
    embedding : I64, shape (S,) or (S, 1 + A)
        Embedding index of each symbol of the bars, and of its attributes where the model reads them.
    scaler : FittedScaler or None
        What the inputs were normalised with; None for session statistics or raw logs.
    teach : Bools, shape (R,)
        Rows whose labels may teach: `fit`, or every known label for a final refit.
    attributes : mapping
        Vocabulary of each attribute that the model reads, in the order of its options.
    """

    market: Market
    features: FeatureSet
    inputs: F32
    target: F32
    target_name: str
    vocabulary: tuple[str, ...]
    embedding: I64
    scaler: FittedScaler | None

    teach: Bools
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def rows_to_score(self, *segments: str) -> I64:
        """Return the rows of the named segments that get a prediction, in order."""
        return np.flatnonzero(self.market.rows_of(*segments) & enough_history(self.market))

    def rows_to_judge(self, *segments: str) -> I64:
        """Return the rows of the named segments that may choose or calibrate: held-out symbols may not."""
        rows = self.rows_to_score(*segments)
        return rows[~_held_rows(self.market)[rows]]

    def stop_score(self) -> Callable[[I64, F32 | F64], float]:
        """Return the function that judges scores on `stop`: mean RankIC.

        For a small universe R² of the target, or of a direction twice the area under the curve less one.
        """
        market, target = self.market, self.target
        y, session = market.labels.y, market.bars.session
        num_sessions = len(market.bars.calendar)

        def across(rows: I64, outputs: F32 | F64) -> float:
            series = [
                rank_ic(y[rows, h], outputs[:, h].astype(np.float64), session[rows], num_sessions)
                for h in range(outputs.shape[1])
            ]
            means = [values[np.isfinite(values)].mean() for values in series if np.isfinite(values).any()]
            return float(np.mean(means)) if means else float("nan")

        def calls(rows: I64, outputs: F32 | F64) -> float:
            pairs = zip(target[rows].T, outputs.T, strict=True)
            return float(np.mean([2 * auc(t.astype(np.float64), o.astype(np.float64)) - 1 for t, o in pairs]))

        def through_time(rows: I64, outputs: F32 | F64) -> float:
            wanted = target[rows]
            known = np.isfinite(wanted)
            error = np.square(np.where(known, wanted - outputs, 0.0)).sum()
            return float(1.0 - error / max(float(np.square(wanted[known]).sum()), 1e-12))

        if not market.small_universe:
            return across
        return calls if self.target_name == "direction" else through_time


def enough_history(market: Market) -> Bools:
    """Return which rows have at least 20 own bars, shape (R,)."""
    return own_bars(market.bars.life_start) >= MIN_BARS


def _held_rows(market: Market) -> Bools:
    return held_out(market.bars.symbols, market.config.hold_out_fold)[market.bars.symbol_of_row]


def teaching_rows(market: Market, target: F32, final: bool = False) -> Bools:
    """Return rows whose labels may teach: `fit`, or every known label for a final refit."""
    rows = market.labels.known.any(axis=1) if final else market.rows_of("fit")
    return rows & enough_history(market) & ~_held_rows(market) & np.isfinite(target).any(axis=1)


def build_dataset(
    market: Market, workspace: Workspace, features: FeatureSet, *, tabular: bool, final: bool = False,
    attributes: Values | None = None,
) -> Dataset:  # fmt: skip
    """Compute (or fetch from the cache) the features and normalise them.

    Parameters
    ----------
    features : FeatureSet
        As resolved for the run.
    tabular : bool
        Whether the model sees one row at a time.
    final : bool
        Whether every known label teaches (a refit) rather than `fit` alone.
    attributes : mapping, optional
        Values of the attributes that the model reads, for each symbol of the bars.

    Raises
    ------
    UsageError
        When a window-normalised feature set is asked of a model that sees one row at a time.
    DataError
        When no row is left that could teach.
    """
    if features.window_normalised and tabular:
        raise UsageError(
            f"feature set `{features.name}` is measured within a window; this model sees one row at a time",
            "use a network, or another set: `barcast features list`",
        )
    target, target_name = make_target(market)  # before the panel lies beside what this needs for a while
    teach = teaching_rows(market, target, final)
    if not teach.any():
        raise DataError(
            "no label is left that could teach: every row of `fit` is too early in its life, held out, or "
            "without a target (are all prices equal?)",
            "barcast data check; give more history, or another --target",
        )
    identity = _identity(market.bars, teach, attributes or {})
    give_back()
    panel = make_panel(market.bars, features, workspace, market.data_digest)
    scaler = None
    if market.small_universe and not features.window_normalised:
        scaler = FittedScaler.fit(panel.values, market.rows_of("fit") & ~_held_rows(market))
    everyone = np.ones(market.bars.num_symbols, bool)
    return Dataset(
        market=market,
        features=features,
        inputs=normalised(panel, market.bars, features, scaler, everyone),
        target=target,
        target_name=target_name,
        scaler=scaler,
        teach=teach,
        **identity,
    )


def taught_by(dataset: Dataset, teach: Bools, attributes: Values) -> Dataset:
    """Return a dataset in which other rows (R,) teach: only symbols among them have an identity of their own.

    ``attributes`` are those that `build_dataset` was given.
    """
    return replace(dataset, teach=teach, **_identity(dataset.market.bars, teach, attributes))


def _identity(bars: Bars, teach: Bools, attributes: Values) -> dict[str, Any]:
    """Return vocabularies of the symbols that teach, and everybody's places in them."""
    taught = np.isin(np.arange(bars.num_symbols), bars.symbol_of_row[teach])
    vocabulary = tuple(bars.symbols[position] for position in np.flatnonzero(taught))
    known = vocabularies(attributes, taught)
    embedding = identity_codes(embedding_index(bars.symbols, vocabulary), attributes, known)
    return {"vocabulary": vocabulary, "embedding": embedding, "attributes": known}


def recut(dataset: Dataset, workspace: Workspace, segment: I8) -> Dataset:
    """Return a dataset whose rows are cut otherwise (R,), and what was fitted on `fit` is fitted anew.

    The vocabulary stays: models that read one symbol have none.
    """
    market = replace(dataset.market, segment=segment)
    inputs, scaler = dataset.inputs, dataset.scaler
    if scaler is not None:
        panel = make_panel(market.bars, dataset.features, workspace, market.data_digest)
        scaler = FittedScaler.fit(panel.values, market.rows_of("fit") & ~_held_rows(market))
        inputs = scaler.transform(panel.values)
    teach = teaching_rows(market, dataset.target)
    return replace(dataset, market=market, inputs=inputs, scaler=scaler, teach=teach)


def normalised(
    panel: Panel, bars: Bars, features: FeatureSet, scaler: FittedScaler | None, universe: Bools
) -> F32:
    """Return inputs (R, F + 1): per session over ``universe`` (S,), by a fitted scaler, or raw logs."""
    if features.window_normalised:
        present = np.isfinite(panel.values)
        validity = present.mean(axis=1, keepdims=True, dtype=np.float32)
        return np.concatenate([panel.values, validity], axis=1).astype(np.float32)
    if scaler is not None:
        return scaler.transform(panel.values)
    members = universe[bars.symbol_of_row]
    return session_normalise(panel.values, bars.session, len(bars.calendar), members)


def make_panel(
    bars: Bars, features: FeatureSet, workspace: Workspace | None, data_digest: str, cached: bool = True
) -> Panel:
    """Build the feature panel of the bars, through the workspace's cache where one is given."""
    cache = workspace.cache if workspace is not None and cached else None
    return build_panel(bars, features, cache=cache, key={"data": data_digest})


def resolve_features(workspace: Workspace, name: str) -> FeatureSet:
    """Return a built-in set or one of the user's own (``[features] files`` in ``barcast.toml``)."""
    return feature_set(name, user_feature_sets(workspace))


def run_features(run: RunFolder, name: str) -> FeatureSet:
    """Return the feature set as the run used it: user features come from the run's own copy."""
    files = sorted((run.path / "features").glob("*.py"))
    return feature_set(name, load_user_features(files) if files else ())


def make_target(market: Market) -> tuple[F32, str]:
    """Return the training target (R, H) and its name.

    A rank has unit variance; a direction is -1 or 1; quantiles are of the volatility-scaled return.
    """
    name = target_name(market)
    learned = "volatility_scaled" if name == "quantiles" else name
    value = build_target(TargetSpec(name=learned), market.bars, market.labels).value
    if name == "direction":
        value = 2.0 * value - 1.0  # a score of 0 is no opinion, whatever kind of model gives it
    return value.astype(np.float32), name


def target_name(market: Market) -> str:
    """Return what is learned, ``auto`` resolved."""
    name: str = market.config.target
    if name == "auto":
        name = "volatility_scaled" if market.small_universe else "rank"
    return name


def embedding_index(symbols: tuple[str, ...], vocabulary: tuple[str, ...]) -> I64:
    """Return each symbol's embedding row, 0 where the vocabulary does not have it."""
    position = {symbol: index + 1 for index, symbol in enumerate(vocabulary)}
    return np.array([position.get(symbol, 0) for symbol in symbols], np.int64)
