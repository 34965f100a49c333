"""What a model is trained on, made from forward returns: the return, its direction, its rank.

A target of row ``t`` may read the labels of session ``t`` and what was known at ``t``; it is known when the
label is. Every entry of ``TARGETS`` goes through the same truncation test: registering is being tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from barcast.core.arrays import F64, I32, I64, Bools
from barcast.core.bars import MIN_SYMBOLS, Bars
from barcast.core.errors import UsageError
from barcast.labels.forward import Labels

#: Returns that a trailing volatility needs before it says anything.
MIN_VOLATILITY_RETURNS = 10
#: A move of this many trailing volatilities counts as this many, so that one crash does not own a fit.
VOLATILITY_CLIP = 10.0


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """Which target, and its settings."""

    name: str = "rank"
    """One of ``TARGETS``."""
    up: float = 0.0
    """``direction``: a move of at least this much (and above 0) is up."""
    down: float = 0.0
    """``direction``: a move of at most minus this much is down; what lies between is flat."""
    unit: Literal["return", "simple_return", "volatility"] = "return"
    """What ``up`` and ``down`` count: log return, simple return, or trailing volatilities known at ``t``."""
    flat: Literal["keep", "as_down", "drop"] = "as_down"
    """``direction``: flat is a class of its own, is down, or leaves the training rows."""
    volatility_bars: int = 20
    """Own bars in the trailing volatility."""
    min_symbols: int = MIN_SYMBOLS
    """``rank``: sessions with fewer labels have no rank."""

    def __post_init__(self) -> None:
        if self.name not in TARGETS:
            raise UsageError(f"unknown target `{self.name}`", f"choose one of {', '.join(TARGETS)}")
        if self.up < 0 or self.down < 0:
            raise UsageError(f"`up` and `down` are sizes of moves, got {self.up} and {self.down}")
        if self.volatility_bars < MIN_VOLATILITY_RETURNS:
            raise UsageError(
                f"`volatility_bars` must be at least {MIN_VOLATILITY_RETURNS}, got {self.volatility_bars}"
            )


@dataclass(frozen=True)
class TargetInputs:
    """What a target may read.

    Attributes
    ----------
    spec : TargetSpec
        Settings.
    bars : Bars, R rows
        Only rows up to ``t`` may shape the value at ``t``.
    labels : Labels
        Forward returns of the same rows, H horizons.
    train : Bools, shape (R,)
        Rows that training may see; only ``flat="drop"`` treats them differently.
    members : Bools, shape (R,)
        Rows whose symbols belong to the universe as of their session; session statistics read these.
    """

    spec: TargetSpec
    bars: Bars
    labels: Labels
    train: Bools
    members: Bools


@dataclass(frozen=True)
class TargetValues:
    """A target for R rows and H horizons.

    Attributes
    ----------
    spec : TargetSpec
        What was asked for.
    value : F64, shape (R, H)
        The target; NaN where there is none. Classes count from 0: down, (flat,) up.
    known_at : I32, shape (R, H)
        Session at which the value is known, -1 where there is none.
    """

    spec: TargetSpec
    value: F64
    known_at: I32

    @property
    def mask(self) -> Bools:
        """Where there is a value, shape (R, H): horizons of one row become known one after the other."""
        return self.known_at >= 0


#: Every target by name.
TARGETS: dict[str, Callable[[TargetInputs], F64]] = {}


def register_target(name: str) -> Callable[[Callable[[TargetInputs], F64]], Callable[[TargetInputs], F64]]:
    """Add a target under ``name``; a name that is taken is an error."""

    def add(build: Callable[[TargetInputs], F64]) -> Callable[[TargetInputs], F64]:
        if name in TARGETS:
            raise ValueError(f"target `{name}` is registered twice")
        TARGETS[name] = build
        return build

    return add


def build_target(
    spec: TargetSpec, bars: Bars, labels: Labels, *, train: Bools | None = None, members: Bools | None = None
) -> TargetValues:
    """Make a target from labels.

    Parameters
    ----------
    spec : TargetSpec
        Which one.
    bars, labels
        R rows and their labels.
    train : Bools, shape (R,), optional
        Training rows, by default all; matters for ``flat="drop"`` only.
    members : Bools, shape (R,), optional
        The recorded universe of each session, by default all rows.
    """
    everything = np.ones(len(bars), bool)
    inputs = TargetInputs(
        spec,
        bars,
        labels,
        train=everything if train is None else train,
        members=everything if members is None else members,
    )
    value = TARGETS[spec.name](inputs)
    known_at = np.where(np.isfinite(value), labels.known_at, -1).astype(np.int32)
    return TargetValues(spec, value, known_at)


@register_target("return")
def forward_return(inputs: TargetInputs) -> F64:
    """Give the forward log return itself, a fraction."""
    return inputs.labels.y.copy()


@register_target("volatility_scaled")
def volatility_scaled(inputs: TargetInputs) -> F64:
    """Forward return over what ``h`` sessions moved of late: ``y / (sigma_t sqrt(h))``, clipped at 10.

    NaN where the trailing volatility is not known or zero.
    """
    scaled = inputs.labels.y / _expected_move(inputs)
    return np.clip(scaled, -VOLATILITY_CLIP, VOLATILITY_CLIP)


@register_target("direction")
def direction(inputs: TargetInputs) -> F64:
    """Classes of the move: 0 down, 1 up; or 0 down, 1 flat, 2 up where flat is kept.

    With the default thresholds of 0 a return of exactly 0 is down.

    Warnings
    --------
    ``flat="drop"`` takes flat rows out of the *training* rows only. Elsewhere they stay, with the class of
    their sign (zero is down): whether tomorrow will be flat is not known today, so a score on moving rows
    alone answers a question that nobody can trade.
    """
    spec, y = inputs.spec, inputs.labels.y
    move = np.expm1(y) if spec.unit == "simple_return" else y
    if spec.unit == "volatility":
        move = y / _expected_move(inputs)
    up, down = (move >= spec.up) & (move > 0), move <= -spec.down
    if spec.flat == "keep":
        classes = np.where(up, 2.0, np.where(down, 0.0, 1.0))
    elif spec.flat == "as_down":
        classes = up.astype(np.float64)
    else:
        dropped = inputs.train[:, None] & ~up & ~down
        classes = np.where(dropped, np.nan, (move > 0).astype(np.float64))
    return np.where(np.isfinite(move), classes, np.nan)


@register_target("rank")
def session_rank(inputs: TargetInputs) -> F64:
    """Rank of the label among the session's labels, scaled to mean 0 and variance 1; ties share their mean.

    The ranks compare the universe's members whose exit traded at the exit session itself: these labels all
    become known together, so the comparison is fixed from then on. A late or terminal label, and a row
    outside the universe, is given the place it would take among them; it moves nobody. NaN in sessions with
    fewer than ``min_symbols`` such members, or where all of these returned the same.
    """
    labels = inputs.labels
    value = np.full(labels.y.shape, np.nan)
    for column in range(labels.y.shape[1]):
        known = np.flatnonzero(labels.known[:, column])
        punctual = ~(labels.late | labels.terminal)[known, column] & inputs.members[known]
        value[known, column] = _scaled_ranks(
            inputs.bars.session[known], labels.y[known, column], punctual, inputs.spec.min_symbols
        )
    return value


def trailing_volatility(bars: Bars, num_bars: int = 20) -> F64:
    """Root mean square of the last ``num_bars`` own log returns up to and including each row, shape (R,).

    Returns are fractions a bar. A hole of more than 20 sessions starts anew; NaN below 10 returns. Window
    sums are added up afresh for each row, not taken from running totals, so cut history gives the same bits.
    """
    rows = len(bars)
    squares = np.zeros(rows)
    squares[1:] = np.diff(np.log(bars.close)) ** 2
    returns = np.arange(rows, dtype=np.int64) - bars.life_start  # how many the life has had
    squares[returns == 0] = 0.0
    total = np.zeros(rows)
    for back in range(min(num_bars, rows)):
        total[back:] += np.where(returns[back:] > back, squares[: rows - back], 0.0)
    count = np.minimum(returns, num_bars)
    mean = np.divide(total, count, out=np.full(rows, np.nan), where=count >= MIN_VOLATILITY_RETURNS)
    return np.asarray(np.sqrt(mean))


def _expected_move(inputs: TargetInputs) -> F64:
    """Trailing volatility times the root of the horizon, NaN where zero, shape (R, H)."""
    sigma = trailing_volatility(inputs.bars, inputs.spec.volatility_bars)
    sigma = np.where(sigma > 0, sigma, np.nan)
    return sigma[:, None] * np.sqrt(np.array(inputs.labels.spec.horizons, np.float64))


def _scaled_ranks(session: I32, y: F64, member: Bools, min_symbols: int) -> F64:
    """Place every value among its session's members: ``below + (equal + 1) / 2``, then standardise."""
    ranks = np.full(len(y), np.nan)
    if not len(y):
        return ranks
    order = np.argsort(y)
    narrow = session.astype(np.min_scalar_type(session.max()))  # two-byte numbers sort by radix, fast
    order = order[np.argsort(narrow[order], kind="stable")]
    session, y, member = session[order], y[order], member[order]
    new_session = np.r_[True, session[1:] != session[:-1]]
    new_value = new_session | np.r_[True, y[1:] != y[:-1]]
    counted = np.r_[0, np.cumsum(member)]
    below, equal = _run_counts(counted, new_value)
    before, size = _run_counts(counted, new_session)
    place = below - before + (equal + 1) / 2

    centred = place - (size + 1) / 2
    starts = np.flatnonzero(new_session)
    total = np.add.reduceat(np.where(member, centred**2, 0.0), starts)
    variance = np.repeat(total, np.diff(np.r_[starts, len(y)])) / np.maximum(size, 1)
    usable = (size >= min_symbols) & (variance > 0)
    scaled = np.full(len(y), np.nan)
    scaled[usable] = centred[usable] / np.sqrt(variance[usable])
    ranks[order] = scaled
    return ranks


def _run_counts(counted: I64, new_run: Bools) -> tuple[I64, I64]:
    """Return for each row the members before its run and in its run, given their running count."""
    starts = np.flatnonzero(new_run)
    stops = np.r_[starts[1:], len(new_run)]
    lengths = stops - starts
    return np.repeat(counted[starts], lengths), np.repeat(counted[stops] - counted[starts], lengths)
