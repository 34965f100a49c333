"""What the report adds for a fleet, and for a routed run, as plain typed values.

A page of thousands of symbols stays small: what is one number a symbol stands in packed columns, curves are
there for some symbols, chosen by :func:`shown_in_detail`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from barcast.core.texts import Text
from barcast.reports.data import Column

#: Numbers of all curves together, of forecasts and outcomes each; they are what makes a page large.
MOST_POINTS = 30_000
#: Sessions of one curve.
MOST_SESSIONS = 300
#: Why a symbol is served by whom: in the page's words.
Why = Literal["better", "luck", "worse", "little", "none", "policy"]


@dataclass(frozen=True, kw_only=True)
class MemberWeights:
    """What one member of the ensembles weighs over all symbols, and the evidence for it.

    Attributes
    ----------
    name : Text
    num_symbols : int
        That have this member.
    mean : float
        Of the weights of those.
    quantiles : tuple of float
        5, 25, 50, 75 and 95 % of them.
    market : float
        Weight by the evidence of the whole market.
    leads : float
        Share of all symbols in which it weighs most.
    log_score : float or None
        Mean log score a row on `weigh` less that of zero, in nats.
    """

    name: Text
    num_symbols: int
    mean: float
    quantiles: tuple[float, float, float, float, float]
    market: float
    leads: float
    log_score: float | None


@dataclass(frozen=True, kw_only=True)
class MemberErrors:
    """How one member of one symbol did on rows that it did not learn from.

    Attributes
    ----------
    name : str
    trees, most : int
        Trees kept, and those that its options allow.
    stops : bool
        Whether it may end early.
    rmse : mapping of str to float
        By segment, in units of the target; None without rows.
    r2 : mapping of str to float
        Against zero on the same rows.
    """

    name: str
    trees: int
    most: int
    stops: bool
    rmse: Mapping[str, float | None]
    r2: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How the network of one symbol learned.

    Attributes
    ----------
    train_loss, stop_score : tuple of float
        One an epoch.
    best_epoch : int
    """

    train_loss: tuple[float | None, ...]
    stop_score: tuple[float | None, ...]
    best_epoch: int


@dataclass(frozen=True, kw_only=True)
class Detail:
    """The curves of one symbol.

    Attributes
    ----------
    symbol : str
    forecast, outcome : tuple of float
        In :attr:`Fleet.times`; basis points of log return, or scores where forecasts have no size. None
        where there is no row.
    errors : tuple of MemberErrors
        Of an ensemble.
    learning : Learning or None
        Of a network.
    """

    symbol: str
    forecast: tuple[float | None, ...] = ()
    outcome: tuple[float | None, ...] = ()
    errors: tuple[MemberErrors, ...] = ()
    learning: Learning | None = None


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """A model for each symbol: what they cost, how good they are, who has none.

    Attributes
    ----------
    kind : str
    run : str
        What ``barcast fleet show`` is asked for.
    counts : mapping of str to int
        Symbols by status.
    seconds : float
        Of computing, all fits together.
    ledger_bytes : int
    segment : str
        On which skill was judged.
    num_sessions : int
        That were judged.
    has_size : bool
        Whether forecasts are returns; else only their order says something.
    skill : Column
        What the skill of one symbol is.
    symbols : mapping of str to sequence
        Columns over the finished symbols: ``symbol, preset, skill, low, high, judged, seconds, bytes,
        memory, rows``, and of trees ``trees NAME`` and ``weight N`` for the N-th of ``members``, of networks
        ``epoch``.
    members : tuple of MemberWeights
    strength : float or None
        Share of symbols' own evidence in the weights, their mean.
    times : tuple of str
        Sessions of the curves.
    details : tuple of Detail
    universal : str
        The run that a residual fleet corrects.
    """

    kind: Literal["trees", "networks"]
    run: str
    counts: Mapping[str, int]
    seconds: float
    ledger_bytes: int
    segment: str
    num_sessions: int
    has_size: bool
    skill: Column
    symbols: Mapping[str, Sequence[Any]]
    members: tuple[MemberWeights, ...] = ()
    strength: float | None = None
    times: tuple[str, ...] = ()
    details: tuple[Detail, ...] = ()
    universal: str = ""


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Who serves whom, and why.

    Attributes
    ----------
    universal, fleet, policy : str
        The two runs, and the rule.
    symbols : mapping of str to sequence
        Columns: ``symbol, server, gain, low, high, expected, probability, rows, blocks, why, detail``. Gains
        are squared errors in units of the universal forecast's variance: 0.01 is one percent of it.
    """

    universal: str
    fleet: str
    policy: str
    symbols: Mapping[str, Sequence[Any]]


def shown_in_detail(skill: Sequence[float | None], num_points: int) -> list[int]:
    """Return whose curves are on the page, by position, the best first.

    All of them where that is no more than the page can hold; else the best and the worst, a quarter each, and
    the others evenly between. Symbols without a skill come last.

    Parameters
    ----------
    skill : sequence of float or None
    num_points : int
        Of one curve.
    """
    order = sorted(range(len(skill)), key=lambda i: -_known(skill[i]))
    most = max(MOST_POINTS // max(num_points, 1), 8)
    if len(order) <= most:
        return order
    judged = [i for i in order if skill[i] is not None] or order
    quarter = min(most, len(judged)) // 4
    end = len(judged) - quarter
    first, middle, last = judged[:quarter], judged[quarter:end], judged[end:]
    num = min(most - 2 * quarter, len(middle))
    return [*first, *(middle[k * len(middle) // num] for k in range(num)), *last]


def _known(skill: float | None) -> float:
    return float("-inf") if skill is None else skill
