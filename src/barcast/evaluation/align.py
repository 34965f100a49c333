"""From the predictions table to arrays on the rows that every model covers.

A model that answers only where the answer is easy would win any comparison; so models meet on common rows,
and each row of the comparison says what share of the labelled rows its model covered.

Letters: R rows, T sessions, S symbols, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl

from barcast.core.arrays import F64, I32, I64, Bools, Times
from barcast.core.errors import DataError, UsageError
from barcast.evaluation.grouped import Groups, Sorted
from barcast.evaluation.sums import Outputs

#: Outcomes of one row may differ between two runs by rounding, not by more.
_SAME_OUTCOME = 1e-6
_NEEDED = (
    "run", "model", "seed", "symbol", "time", "segment", "horizon", "delay", "target", "score", "y_hat",
    "p_up", "quantiles", "y", "tradable", "route",
)  # fmt: skip


@dataclass(frozen=True)
class Forecast:
    """What one model, trained with one seed, said on the common rows.

    Attributes
    ----------
    name : str
        The model, with its run where two runs trained one model differently.
    family : str
        The model without its run.
    run : str
        The run that trained it.
    seed : int
        Its seed.
    outputs : Outputs
        R rows.
    """

    name: str
    family: str
    run: str
    seed: int
    outputs: Outputs


@dataclass(frozen=True)
class CommonRows:
    """The labelled rows that every model covers, by session, then symbol.

    Attributes
    ----------
    segment, target : str
        What was aligned.
    horizon, delay : int
        Of every label, in sessions.
    symbols : tuple of str
        All S symbols with a labelled row, sorted.
    times : Times, shape (T,)
        The decision times of the rows, sorted.
    session, symbol : I32, shape (R,)
        Position of each row in ``times`` and in ``symbols``.
    y : F64, shape (R,)
        Realised log returns as fractions, finite.
    tradable : Bools, shape (R,)
        Whether the entry could be traded; true where the table does not say.
    forecasts : tuple of Forecast
        One a model and seed, by name and seed.
    coverage : mapping of str to float
        For each name the share of labelled rows that the model (each of its seeds) covers. A model that
        covers none is named here only: it does not empty the table for the others.
    naive : frozenset of str
        Names whose rows are all routed ``naive``.
    num_labelled : int
        Rows of the table with a known outcome, forecast or not.
    routed : frozenset of str
        Names whose symbols are served by several models.
    """

    segment: str
    target: str
    horizon: int
    delay: int
    symbols: tuple[str, ...]
    times: Times
    session: I32
    symbol: I32
    y: F64
    tradable: Bools
    forecasts: tuple[Forecast, ...]
    coverage: Mapping[str, float]
    naive: frozenset[str]
    num_labelled: int
    routed: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.y)

    @property
    def num_sessions(self) -> int:
        """T."""
        return len(self.times)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The models, each once, sorted."""
        return tuple(sorted({forecast.name for forecast in self.forecasts}))

    @cached_property
    def by_y(self) -> Sorted:
        """Outcomes sorted by session, then value."""
        return Sorted.by(self.y, Groups(self.session, self.num_sessions))

    def of(self, name: str) -> tuple[Forecast, ...]:
        """Return the seeds of one model.

        Raises
        ------
        UsageError
            On a model that is not in the table.
        """
        found = tuple(forecast for forecast in self.forecasts if forecast.name == name)
        if not found:
            raise UsageError(
                f"no model `{name}` among the predictions", f"choose one of {', '.join(self.names)}"
            )
        return found

    def take(self, keep: Bools) -> CommonRows:
        """Return the rows where ``keep`` is true; sessions without rows are dropped."""
        sessions, session = np.unique(self.session[keep], return_inverse=True)
        return replace(
            self,
            times=self.times[sessions],
            session=session.astype(np.int32),
            symbol=self.symbol[keep],
            y=self.y[keep],
            tradable=self.tradable[keep],
            forecasts=tuple(replace(f, outputs=f.outputs.take(keep)) for f in self.forecasts),
        )


@dataclass(frozen=True)
class _Member:
    """The rows of one run, model and seed, sorted by key (session, then symbol)."""

    run: str
    model: str
    seed: int
    key: I64
    y: F64
    tradable: Bools
    outputs: Outputs
    is_covered: Bools
    is_naive: bool
    is_routed: bool

    @property
    def covered(self) -> I64:
        """Keys of the rows with a usable forecast."""
        return self.key[self.is_covered]

    def says_the_same(self, other: _Member) -> bool:
        """Whether both give the same forecasts of the same rows."""
        if not np.array_equal(self.key, other.key):
            return False
        mine, theirs = self.outputs, other.outputs
        return _equal(mine.score, theirs.score) and _equal(mine.y_hat, theirs.y_hat)


def _equal(one: F64 | None, other: F64 | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other, equal_nan=True)


def align(
    predictions: pl.DataFrame,
    *,
    segment: str,
    horizon: int | None = None,
    delay: int | None = None,
    target: str | None = None,
) -> CommonRows:
    """Bring the models of a predictions table onto the rows that all of them cover.

    A model covers a row when its score is finite and, where it gives ``y_hat`` at all, that is too. Two runs
    with the same model and seed are taken once where they say the same, else told apart by their run.

    Parameters
    ----------
    predictions : pl.DataFrame
        The predictions table, rows in any order, one or several runs.
    segment : str
        The segment to score.
    horizon, delay, target : optional
        Which label, where the table holds several.

    Raises
    ------
    UsageError
        Where the table holds several labels and none is chosen, or not the one asked for.
    DataError
        Where nothing can be scored: no rows, no known outcome, no common row; on a forecast given twice; and
        on runs whose outcomes disagree. Each with the rows concerned.
    """
    frame = _select(predictions, segment, {"horizon": horizon, "delay": delay, "target": target})
    symbols, times = frame["symbol"].unique().sort(), frame["time"].unique().sort()
    frame = frame.with_columns(_key=_keys(frame, symbols, times)).drop("symbol", "time")
    members = _tell_apart([_member(part, symbols, times) for part in _parts(frame)])
    base, y, tradable = _outcomes([member for _, member in members], symbols, times)
    coverage = _coverage(members, base)
    present = [(name, member) for name, member in members if coverage[name]]
    common = _common_keys(present, base, coverage)
    rows = _places(common, base)
    sessions, session = np.unique(common // len(symbols), return_inverse=True)
    head = frame.row(0, named=True)
    return CommonRows(
        segment=segment,
        target=head["target"] or "return",
        horizon=int(head["horizon"] or 0),
        delay=int(head["delay"] or 0),
        symbols=tuple(symbols),
        times=times.to_numpy()[sessions],
        session=session.astype(np.int32),
        symbol=(common % len(symbols)).astype(np.int32),
        y=y[rows],
        tradable=tradable[rows],
        forecasts=tuple(
            Forecast(name, member.model, member.run, member.seed, _rows_of(member, common))
            for name, member in present
        ),
        coverage=coverage,
        naive=frozenset(coverage) - {name for name, member in members if not member.is_naive},
        num_labelled=len(base),
        routed=frozenset(name for name, member in members if member.is_routed),
    )


def _select(predictions: pl.DataFrame, segment: str, chosen: Mapping[str, int | str | None]) -> pl.DataFrame:
    missing = [name for name in _NEEDED if name not in predictions.columns]
    if missing:
        raise DataError(f"not a predictions table: no column {', '.join(missing)}")
    frame = predictions.select(_NEEDED).filter(pl.col("segment") == segment)
    if frame.is_empty():
        found = sorted(predictions["segment"].drop_nulls().unique())
        raise DataError(
            f"no predictions in segment `{segment}`", f"the table has {', '.join(found) or 'no rows'}"
        )
    for name, value in chosen.items():
        kinds = ", ".join(map(str, sorted(frame[name].drop_nulls().unique())))
        if value is not None:
            frame = frame.filter(pl.col(name) == value)
        if frame.is_empty():
            raise UsageError(f"no predictions with {name} {value} in segment `{segment}`", f"it has {kinds}")
        if frame[name].n_unique() > 1:
            raise UsageError(
                f"segment `{segment}` holds predictions with {name} {kinds}",
                f"choose one {name}: scores of different labels cannot stand in one table",
            )
    return frame.with_columns(pl.col("run", "model").fill_null(""), pl.col("seed").fill_null(0))


def _keys(frame: pl.DataFrame, symbols: pl.Series, times: pl.Series) -> pl.Series:
    symbol = frame["symbol"].cast(pl.Enum(symbols)).to_physical().to_numpy().astype(np.int64)
    session = np.searchsorted(times.to_numpy(), frame["time"].to_numpy())
    return pl.Series(session * len(symbols) + symbol)


def _parts(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield the rows of each run, model and seed (several times faster here than `partition_by`)."""
    columns = ("run", "model", "seed")
    for values in frame.select(columns).unique().iter_rows():
        yield frame.filter([pl.col(name) == value for name, value in zip(columns, values, strict=True)])


def _member(frame: pl.DataFrame, symbols: pl.Series, times: pl.Series) -> _Member:
    head = frame.row(0, named=True)
    score, y_hat = _column(frame, "score"), _column(frame, "y_hat")
    gives_y_hat = np.isfinite(y_hat).any()
    key = frame["_key"].to_numpy()
    order = np.argsort(key)
    key = key[order]
    repeated = np.flatnonzero(key[1:] == key[:-1])
    if len(repeated):
        raise DataError(
            f"model `{head['model']}` (seed {head['seed']}, run {head['run']}) gives {len(repeated)} "
            f"forecasts twice: {_name_rows(key[repeated], symbols, times)}",
            "keep one row for each run, model, seed, symbol, time and label",
        )
    covered = np.isfinite(score) & (np.isfinite(y_hat) | ~gives_y_hat)
    outputs = Outputs(score, y_hat if gives_y_hat else None, _column(frame, "p_up"), _quantiles(frame))
    return _Member(
        run=head["run"],
        model=head["model"],
        seed=int(head["seed"]),
        key=key,
        y=_column(frame, "y")[order],
        tradable=frame["tradable"].fill_null(True).to_numpy()[order],
        outputs=outputs.take(order),
        is_covered=covered[order],
        is_naive=bool((frame["route"] == "naive").fill_null(False).all()),
        is_routed=frame["route"].n_unique() > 1,
    )


def _column(frame: pl.DataFrame, name: str) -> F64:
    return frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _quantiles(frame: pl.DataFrame) -> F64 | None:
    lengths = frame["quantiles"].list.len()
    if lengths.null_count() or lengths.n_unique() != 1 or not lengths[0]:
        return None
    flat = frame["quantiles"].list.explode().cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return flat.reshape(len(frame), -1)


def _tell_apart(members: Sequence[_Member]) -> list[tuple[str, _Member]]:
    """Name each member, without repetitions; runs of one model and seed that differ are named by run."""
    kept: dict[tuple[str, int], list[_Member]] = {}
    for member in sorted(members, key=lambda m: (m.model, m.seed, m.run)):
        same = kept.setdefault((member.model, member.seed), [])
        if not any(member.says_the_same(other) for other in same):
            same.append(member)
    differing = {model for (model, _), same in kept.items() if len(same) > 1}
    return [
        (f"{member.model} [{member.run}]" if member.model in differing else member.model, member)
        for same in kept.values()
        for member in same
    ]


def _outcomes(members: Sequence[_Member], symbols: pl.Series, times: pl.Series) -> tuple[I64, F64, Bools]:
    """Return the keys with a known outcome, sorted, their outcomes, and whether they could be traded."""
    known = [np.isfinite(member.y) for member in members]
    base = members[0].key[known[0]]
    for member, here in zip(members[1:], known[1:], strict=True):
        if not np.array_equal(member.key[here], base):  # models mostly cover the same rows
            base = np.union1d(base, member.key[here])
    if not len(base):
        raise DataError(
            "no outcome is known in this segment: its labels lie beyond the data, or it is still sealed",
            "score an earlier segment, add newer bars, or open the test segment",
        )
    y, tradable = np.full(len(base), np.nan), np.ones(len(base), bool)
    for member, here in zip(members, known, strict=True):
        rows = _places(member.key[here], base)
        own, before = member.y[here], y[rows]
        apart = np.abs(own - before) > _SAME_OUTCOME * (1 + np.abs(own))
        if apart.any():
            raise DataError(
                f"outcomes of {apart.sum()} rows differ between runs (one is {member.run}): "
                f"{_name_rows(base[rows[apart]], symbols, times)}",
                "compare runs made from one store version and one label",
            )
        y[rows] = np.where(np.isfinite(before), before, own)
        tradable[rows] &= member.tradable[here]
    return base, y, tradable


def _common_keys(members: Sequence[tuple[str, _Member]], base: I64, coverage: Mapping[str, float]) -> I64:
    if not members:
        raise DataError(
            f"no model has a usable forecast of the {len(base)} labelled rows: no score is a number",
            "look at the training log of the run: its losses are probably not numbers either",
        )
    votes = np.zeros(len(base), np.int32)
    for _, member in members:
        votes[_places(member.covered, base)] += 1
    common: I64 = base[votes == len(members)]
    if not len(common):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in coverage.items())
        raise DataError(
            f"no row is covered by every model (of {len(base)} labelled rows: {shares})",
            "leave out the model that covers least, or predict the same symbols and sessions with each",
        )
    return common


def _coverage(members: Sequence[tuple[str, _Member]], base: I64) -> dict[str, float]:
    covered: dict[str, Bools] = {}
    for name, member in members:
        here = np.zeros(len(base), bool)
        here[_places(member.covered, base)] = True
        covered[name] = covered[name] & here if name in covered else here
    return {name: float(here.mean()) for name, here in covered.items()}


def _places(key: I64, base: I64) -> I64:
    """Return where the keys that stand in ``base`` stand there; both are sorted."""
    if np.array_equal(key, base):
        return np.arange(len(base))
    place = np.minimum(np.searchsorted(base, key), len(base) - 1)
    found: I64 = place[base[place] == key]
    return found


def _rows_of(member: _Member, common: I64) -> Outputs:
    rows = _places(common, member.key)
    outputs = member.outputs.take(rows)
    return replace(outputs, p_up=_complete(outputs.p_up), quantiles=_complete(outputs.quantiles))


def _complete(column: F64 | None) -> F64 | None:
    return column if column is not None and np.isfinite(column).all() else None


def _name_rows(keys: I64, symbols: pl.Series, times: pl.Series, limit: int = 3) -> str:
    named = [f"{symbols[int(key % len(symbols))]} {times[int(key // len(symbols))]}" for key in keys[:limit]]
    return ", ".join(named) + (", ..." if len(keys) > limit else "")
