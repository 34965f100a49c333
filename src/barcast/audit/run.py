"""``barcast audit``: a run, or a feature set on stored bars, searched for values that saw their future."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import numpy as np

from barcast.audit.findings import AuditReport, in_order
from barcast.audit.laboratory import Ledger, choose_cuts, examine
from barcast.audit.records import Recorded, check_records
from barcast.audit.stamps import check_against, check_session_hours
from barcast.audit.workings import Moment, standard_workings
from barcast.audit.world import World
from barcast.core.errors import RunError, UsageError
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.pipeline.compare import market_of
from barcast.pipeline.dataset import resolve_features, run_features
from barcast.pipeline.market import Market, load_market
from barcast.pipeline.record import check_market
from barcast.pipeline.settings import DataConfig, from_run, resolve
from barcast.pipeline.unfinished import check_done
from barcast.store import MarketStore

_STAMPS = "intraday bars start where the exchange's hours allow"
_AGAINST = "bars end at the same prices and moments as those of a second store"


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """How closely to look."""

    num_cuts: int = 8
    """Sessions at which history is cut."""
    num_symbols: int = 200
    """Symbols in the sample whose whole history is recomputed."""
    seed: int = 0
    """Chooses symbols, cuts and altered futures."""
    acts_at: Moment = "close"
    """``open``: values are used at the open of their session, so its close must not be in them."""
    against: Workspace | None = None
    """A workspace with a second source of the same market, to compare stamps with."""

    def __post_init__(self) -> None:
        if self.num_cuts < 1 or self.num_symbols < 1:
            raise UsageError(
                f"an audit needs at least one cut and one symbol, got {self.num_cuts} and {self.num_symbols}"
            )
        if self.acts_at not in ("open", "close"):
            raise UsageError(f"`{self.acts_at}` is not a moment of a session", "--act-at open|close")


def audit_run(
    workspace: Workspace, run: RunFolder, settings: AuditSettings | None = None, *,
    progress: Progress | None = None,
) -> AuditReport:  # fmt: skip
    """Look for any value of a run that saw beyond its cutoff.

    Parameters
    ----------
    workspace : Workspace
        Holds the store that the run was made from.
    run : RunFolder
        A finished run; of a refit only the pipeline is checked, since it has no scores of its own.

    Returns
    -------
    AuditReport
        Findings, the cause first; ``raise_if_leaking`` turns them into an error.

    Raises
    ------
    RunError
        When the run is unfinished, or the store's rows are not those it was made from.
    """
    settings, progress = settings or AuditSettings(), progress or Progress(enabled=False)
    started = time.perf_counter()
    check_done(run)
    check_market(workspace, run)
    config, info = from_run(run.read("config.json")), run.info
    progress.note("reading the store and making labels")
    market = market_of(workspace, run)
    if market.data_digest != info["data_digest"] or market.label_key != info["label_key"]:
        raise RunError(
            f"the store has changed since `{run.name}` was trained (rows up to {info['cutoff']}): what "
            "differs could be a correction as well as a leak",
            f"train again on the data as it is: barcast train {config.model}",
        )
    features = run_features(run, config.data.features)
    recorded = Recorded(workspace, run, config, run.read("state.json"), market, features)
    workings = standard_workings(market, features, score=recorded.score, acts_at=settings.acts_at)
    world = _sample(workspace, market, settings)
    cuts = choose_cuts(market, settings.num_cuts, warmup=features.max_warmup, seed=settings.seed)
    ledger = examine(workings, world, cuts, seed=settings.seed, progress=progress)
    notes = [*_stamps(market, settings, ledger), *_limits_of_sight(market, world)]
    if info.get("final"):
        notes.append(
            f"a refit has no scores of its own: barcast audit {info['parent']} checks what judged it"
        )
    else:
        check_records(recorded, ledger, seed=settings.seed, progress=progress)
    return _report(run.name, market, ledger, notes, cuts, started)


def audit_features(
    workspace: Workspace, name: str, settings: AuditSettings | None = None, *,
    progress: Progress | None = None,
) -> AuditReport:  # fmt: skip
    """Look for leaks in a feature set, and in the pipeline around it, on the stored bars.

    Parameters
    ----------
    name : str
        A built-in set, one of the user's, or several joined by ``+``.
    """
    settings, progress = settings or AuditSettings(), progress or Progress(enabled=False)
    started = time.perf_counter()
    config: DataConfig = resolve(workspace, "ridge", {"features": name}).data
    features = resolve_features(workspace, name)
    progress.note("reading the store and making labels")
    market = load_market(workspace, config)
    world = _sample(workspace, market, settings)
    cuts = choose_cuts(market, settings.num_cuts, warmup=features.max_warmup, seed=settings.seed)
    workings = standard_workings(market, features, acts_at=settings.acts_at)
    ledger = examine(workings, world, cuts, seed=settings.seed, progress=progress)
    notes = [*_stamps(market, settings, ledger), *_limits_of_sight(market, world)]
    return _report(f"features {name}", market, ledger, notes, cuts, started)


def _report(
    subject: str, market: Market, ledger: Ledger, notes: list[str], cuts: Iterable[int], started: float
) -> AuditReport:
    times = market.bars.calendar.times
    return AuditReport(
        subject=subject,
        checks=ledger.checks,
        findings=in_order(list(ledger.findings.values())),
        notes=tuple(notes),
        cuts=tuple(str(times[session]) for session in cuts),
        seconds=time.perf_counter() - started,
    )


def _sample(workspace: Workspace, market: Market, settings: AuditSettings) -> World:
    """Read the whole history of a sample of symbols, as stored."""
    symbols = [s for s, n in zip(market.bars.symbols, np.diff(market.bars.offsets), strict=True) if n]
    rng = np.random.default_rng([settings.seed, 4])
    if len(symbols) > settings.num_symbols:
        chosen = rng.choice(len(symbols), settings.num_symbols, replace=False)
        symbols = [symbols[position] for position in sorted(chosen.tolist())]
    store = MarketStore.open(workspace.market)
    end: date = market.bars.calendar.days[-1].item()
    frame = store.frame(symbols=symbols, end=end)
    return World(frame, market.bars.calendar, market.bars.market, store.status(), store.conflicts())


def _stamps(market: Market, settings: AuditSettings, ledger: Ledger) -> list[str]:
    calendar, notes = market.bars.calendar, []
    if not calendar.is_daily:
        findings, note = check_session_hours(calendar)
        ledger.add("intraday stamp", findings, 0 if note else len(calendar), _STAMPS)
        if note and settings.against is None:
            notes.append(note)
    if settings.against is not None:
        other = MarketStore.open(settings.against.market)
        shared = sorted(set(other.symbols()) & set(market.bars.symbols))[: settings.num_symbols]
        findings, compared, note = check_against(market.bars, other.bars(symbols=shared))
        ledger.add("second source", findings, compared, _AGAINST)
        if note:
            notes.append(note)
    return notes


def _limits_of_sight(market: Market, world: World) -> list[str]:
    """Say what no recomputation can see."""
    notes = []
    if len(world.symbols) < market.bars.num_symbols:
        notes.append(f"features and labels were recomputed for {len(world.symbols)} of "
                     f"{market.bars.num_symbols} symbols (--sample takes more)")  # fmt: skip
    if market.quality.survivors_only:
        notes.append("survivors only: the data itself was chosen at its end, which no recomputation can see")
    if market.config.symbols or market.config.limit:
        notes.append("the symbols were chosen by hand: whether with later knowledge cannot be seen")
    if market.config.delay == 0:
        notes.append("delay 0 enters at the very close that was just read: nobody can trade that")
    return notes
