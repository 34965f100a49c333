"""Whether a challenger may take the champion's place: a paired test on `route`, and health checks.

The champion is scored with the weights of its own evaluation, on the rows that the challenger calls `route`,
and only where it had seen no label: rows decided after the last label that taught, stopped, chose or
calibrated it became known. Both are scored on the same rows, session by session, and the interval of the
difference comes from blocks of sessions, as in every comparison.

Routed runs choose by labels of `route` who serves whom. What they chose by judges neither of two: rows are
compared that lie after the labels that the champion chose by and after the first half of `route`, and who
serves whom in the challenger is decided again, for the gate alone, by the labels known until then.

A retrained model is first of all a *refresh*: the same recipe on newer bars. So the question is by default
"not worse by more than a margin", and only with ``min_gain`` "better".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from barcast.core.config import from_plain
from barcast.core.errors import BarcastError, UsageError
from barcast.core.predictions import read_predictions
from barcast.core.runs import RunFolder
from barcast.core.texts import counted
from barcast.core.workspace import Workspace
from barcast.evaluation.align import CommonRows, align
from barcast.evaluation.intervals import Bootstrap, plan_blocks
from barcast.evaluation.scoring import paired_score, score_model
from barcast.evaluation.words import METRIC_NAMES
from barcast.pipeline.dataset import enough_history, run_features
from barcast.pipeline.forecast import prediction_rows
from barcast.pipeline.market import Market
from barcast.pipeline.predict import Forecasts
from barcast.pipeline.record import known_until, load_maps
from barcast.pipeline.route import routed_by, served_rows
from barcast.pipeline.routed_parts import is_routed, open_routes, recorded_parts
from barcast.pipeline.scoring import score_rows
from barcast.pipeline.settings import from_run

CHAMPION, CHALLENGER = "champion", "challenger"
#: How much worse a challenger may be and still pass, in units of the score that decides.
DEFAULT_MARGINS = {"rank_ic": 0.01, "r2": 0.005}
#: Two-sided level of the interval: its lower end then holds with 95 %.
LEVEL = 0.90
#: A challenger that serves a smaller share of the champion's symbols is not promoted.
MIN_COVERAGE = 0.95
#: Nor is one whose typical standard deviation is so many times the champion's, or that share of it.
MAX_SIGMA_RATIO = 3.0

Answer = Literal["passes", "unclear", "fails"]


@dataclass(frozen=True, kw_only=True)
class GatePolicy:
    """What a challenger must show.

    Attributes
    ----------
    margin : float, optional
        Promote when the lower end of the interval of (challenger - champion) lies above ``-margin``; by
        default 0.01 RankIC, or 0.005 R² in a small universe.
    min_gain : float, optional
        Instead of a margin: the lower end must lie above this gain, 0 or more.
    when_unclear : str
        ``keep`` the champion, or ``promote`` the challenger, where sessions are too few for an answer or
        the interval lies on both sides of the bound. With ``promote`` the difference itself must still lie
        above the bound wherever there is one.
    min_sessions : int
        Fewest compared sessions for an answer.
    """

    margin: float | None = None
    min_gain: float | None = None
    when_unclear: Literal["keep", "promote"] = "keep"
    min_sessions: int = 20

    def __post_init__(self) -> None:
        if self.margin is not None and self.min_gain is not None:
            raise UsageError(
                "`margin` asks for not worse and `min_gain` for better: one question at a time",
                "give one of --margin and --min-gain",
            )
        for name in ("margin", "min_gain"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UsageError(f"`{name}` is 0 or more and below 1, got {value}", "as in 0.01")
        if self.min_sessions < 1:
            raise UsageError(f"`min_sessions` must be at least 1, got {self.min_sessions}")

    @classmethod
    def of(
        cls, margin: float | None, min_gain: float | None, when_unclear: str, min_sessions: int
    ) -> GatePolicy:
        """Make a policy of what was typed."""
        return from_plain(
            cls,
            {
                "margin": margin,
                "min_gain": min_gain,
                "when_unclear": when_unclear,
                "min_sessions": min_sessions,
            },
            "retrain",
        )

    def bound(self, metric: str) -> float:
        """Return what the lower end of the difference must lie above."""
        if self.min_gain is not None:
            return self.min_gain
        return -(DEFAULT_MARGINS[metric] if self.margin is None else self.margin)


@dataclass(frozen=True)
class Difference:
    """Challenger less champion on common rows, for one horizon.

    Attributes
    ----------
    horizon : int
    metric : str
        ``rank_ic``, or ``r2`` in a small universe.
    num_sessions : int
        Sessions compared; 0 where none is left, and all scores are NaN.
    first, last : str
        Of these sessions.
    champion, challenger : float
        Their scores.
    value, low, high : float
        The paired difference and its 90 % interval; NaN ends where the sessions are too few for one.
    bound : float
        What ``low`` must lie above.
    answer : str
        ``passes``, ``unclear`` or ``fails`` (the whole interval lies below the bound).
    """

    horizon: int
    metric: str
    num_sessions: int
    first: str
    last: str
    champion: float
    challenger: float
    value: float
    low: float
    high: float
    bound: float
    answer: Answer

    @property
    def leans(self) -> bool:
        """Whether the difference itself does not speak against a promotion."""
        return math.isnan(self.value) or self.value > self.bound

    def sentence(self) -> str:
        """Say it in a line."""
        if not self.num_sessions:
            return f"horizon {self.horizon}: no session of `route` that the champion had not seen"
        name = METRIC_NAMES[self.metric].en
        return (
            f"horizon {self.horizon}: {name} {self.challenger:.4f} against {self.champion:.4f} on "
            f"{counted(self.num_sessions, 'session')} of `route` ({self.first} to {self.last}), "
            f"difference {self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]; must be above {self.bound:+g}"
        )


def compare_with_champion(
    workspace: Workspace, champion: RunFolder, challenger: RunFolder, market: Market, policy: GatePolicy
) -> tuple[Difference, ...]:
    """Score both on the rows of the challenger's `route` that neither had seen, one difference a horizon.

    Parameters
    ----------
    champion, challenger : RunFolder
        Evaluated runs, not their refits, which have seen these rows.
    market : Market
        The labelled rows that the challenger was trained on.
    """
    after = compared_from(market, champion)
    if is_routed(challenger):
        own = routed_by(workspace, challenger, after)
    else:
        own = read_predictions(challenger.predictions, segment="route")
    own = own.filter(pl.col("time") > pl.lit(after))
    rows = fresh_rows(market, champion)
    metric = "r2" if market.small_universe else "rank_ic"
    if not len(rows) or own.is_empty():
        nothing = (0, "", "", *[math.nan] * 5, policy.bound(metric), "unclear")
        return tuple(Difference(h, metric, *nothing) for h in market.labels.spec.horizons)  # type: ignore[arg-type]
    table = pl.concat(
        [_rows_of(workspace, champion, market, rows), own.with_columns(model=pl.lit(CHALLENGER))]
    )
    aligned = (align(table, segment="route", horizon=horizon) for horizon in market.labels.spec.horizons)
    return tuple(difference(one, metric, policy) for one in aligned)


def compared_from(market: Market, champion: RunFolder) -> np.datetime64:
    """Return the time after which rows are compared: the evaluated champion saw the label of none of them.

    Where runs are routed, the first half of the challenger's `route` is left to what it chooses by.
    """
    known = np.datetime64(known_until(champion), "us")
    if not is_routed(champion):
        return known
    first, last = market.plan.spans["route"]
    return max(known, market.bars.calendar.times[(first + last) // 2].astype("datetime64[us]"))


def fresh_rows(market: Market, champion: RunFolder) -> np.ndarray:
    """Return the rows (n,) of `route` with enough history that are compared."""
    decided = market.bars.calendar.times[market.bars.session]
    fresh = market.rows_of("route") & enough_history(market) & (decided > compared_from(market, champion))
    return np.flatnonzero(fresh)


def _rows_of(workspace: Workspace, run: RunFolder, market: Market, rows: np.ndarray) -> pl.DataFrame:
    """Return what a run's evaluation says of rows that came after it, by its own features and scaler."""
    if is_routed(run):
        parts = recorded_parts(workspace, run)
        universal, fleet = (_rows_of(workspace, part, market, rows) for part in parts)
        served = served_rows(universal, fleet, open_routes(run), run.name)
        return served.with_columns(model=pl.lit(CHAMPION))
    config, state = from_run(run.read("config.json")), run.read("state.json")
    features = run_features(run, state["feature_set"])
    universe = np.isin(np.array(market.bars.symbols), np.array(state["universe"]))
    scores, _ = score_rows(workspace, run, config, state, market.bars, features, universe, rows)
    return prediction_rows(market, rows, scores, load_maps(run), run=run.name, model=CHAMPION)


def difference(rows: CommonRows, metric: str, policy: GatePolicy) -> Difference:
    """Return challenger less champion on aligned rows, with what the policy makes of it."""
    blocks = plan_blocks(rows.num_sessions, rows.horizon, rows.delay, Bootstrap(level=LEVEL))
    scored = {
        name: score_model(rows, name, blocks, cross_sectional=metric == "rank_ic")
        for name in (CHAMPION, CHALLENGER)
    }
    gap = paired_score(metric, scored[CHALLENGER], scored[CHAMPION], blocks)
    bound = policy.bound(metric)
    return Difference(
        horizon=rows.horizon,
        metric=metric,
        num_sessions=rows.num_sessions,
        first=str(rows.times[0])[:10],
        last=str(rows.times[-1])[:10],
        champion=scored[CHAMPION].value(metric),
        challenger=scored[CHALLENGER].value(metric),
        value=gap.value,
        low=gap.low,
        high=gap.high,
        bound=bound,
        answer=_answer(gap.low, gap.high, bound, rows.num_sessions, policy.min_sessions),
    )


def _answer(low: float, high: float, bound: float, num_sessions: int, min_sessions: int) -> Answer:
    if num_sessions < min_sessions or math.isnan(low):
        return "unclear"
    if low > bound:
        return "passes"
    return "fails" if high <= bound else "unclear"


def decide(differences: Sequence[Difference], policy: GatePolicy) -> tuple[bool, str]:
    """Return whether the scores allow a promotion, and why; every horizon must."""
    size, answers = f"than {abs(differences[0].bound):g} on `route`", {one.answer for one in differences}
    strict = policy.min_gain is not None
    yes = f"it is better by more {size}" if strict else f"it is worse by no more {size}"
    if "fails" in answers:
        return False, f"it is not better by more {size}" if strict else f"it is worse by more {size}"
    if "unclear" not in answers:
        return True, yes
    said = f"whether {yes} is unclear ({_why_unclear(differences, policy)})"
    if policy.when_unclear == "keep":
        return False, f"{said}; --when-unclear keep"
    if not all(one.leans for one in differences):
        return False, f"{said}, and the difference itself speaks against it"
    return True, f"{said}; --when-unclear promote"


def _why_unclear(differences: Sequence[Difference], policy: GatePolicy) -> str:
    fewest = min(one.num_sessions for one in differences)
    if fewest < policy.min_sessions:
        return f"{counted(fewest, 'session')} to compare, {policy.min_sessions} are needed"
    if any(math.isnan(one.low) for one in differences):
        return f"{counted(fewest, 'session')} make fewer than 5 blocks: no interval"
    return "the interval lies on both sides"


def health_problems(challenger: Forecasts | BarcastError, champion: Forecasts | BarcastError) -> list[str]:
    """Say what is wrong with a challenger's forecasts of the newest session, beside the champion's."""
    if isinstance(challenger, BarcastError):
        return [f"it does not predict: {challenger.found}"]
    problems = []
    for (horizon,), own in challenger.table.group_by("horizon", maintain_order=True):
        values = own.select("score", "y_hat", "sigma").to_numpy()
        if not np.isfinite(values).all() or (values[:, 2] <= 0).any():
            problems.append(f"horizon {horizon}: forecasts that are no numbers, or a sigma of 0")
        elif len(own) > 1 and own["score"].n_unique() == 1:
            problems.append(f"horizon {horizon}: every symbol has the same score")
        elif isinstance(champion, Forecasts):
            problems += _beside(int(horizon), own, champion.table.filter(horizon=horizon))
    return problems if len(challenger.table) else ["it forecasts no symbol"]


def _beside(horizon: int, own: pl.DataFrame, theirs: pl.DataFrame) -> list[str]:
    """Compare coverage and typical sigma on one horizon."""
    found = []
    if len(own) < MIN_COVERAGE * len(theirs):
        found.append(f"horizon {horizon}: it forecasts {len(own)} symbols, the champion {len(theirs)}")
    both = own.join(theirs, on="symbol", suffix="_champion")
    ratio = (both["sigma"] / both["sigma_champion"]).median()
    if isinstance(ratio, float) and not 1 / MAX_SIGMA_RATIO <= ratio <= MAX_SIGMA_RATIO:
        found.append(f"horizon {horizon}: its typical sigma is {ratio:.2g} times the champion's")
    return found
