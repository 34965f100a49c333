"""``barcast retrain``: the champion's recipe on the data as of now, a gate, and perhaps a new champion.

Every step is found again when it was finished before (the challenger's training and its refit are runs like
any other; who serves whom takes seconds), so that a killed retrain goes on with the same command. The pointer
is written when all else is known; only the history comes after it, and it decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.champion import ALIAS, Reign, champion_folder, read_champions
from barcast.core.config import to_plain
from barcast.core.errors import BarcastError, OverlapError, RunError, StoreBusyError, explained
from barcast.core.lock import writer_lock
from barcast.core.progress import Progress
from barcast.core.runs import RunFolder, open_run
from barcast.core.workspace import Workspace
from barcast.evaluation.results import without_nan
from barcast.pipeline.challenger import comes_first, recipe_of, train_challenger
from barcast.pipeline.champion import promote
from barcast.pipeline.compare import market_of
from barcast.pipeline.gate import (
    Difference,
    GatePolicy,
    compare_with_champion,
    decide,
    fresh_rows,
    health_problems,
)
from barcast.pipeline.market import load_market
from barcast.pipeline.predict import Forecasts, predict
from barcast.pipeline.workflow import TrainedAndCompared


@dataclass(frozen=True)
class Retrained:
    """What a retrain came to.

    Attributes
    ----------
    champion : Reign
        Who was champion when it began.
    challenger : str
        The evaluated run on the data as of now.
    serving : str
        Its refit, what is promoted; a routed challenger itself, which serves by the refits of its two runs.
    cutoff : str
        The last session that the challenger knows.
    passes : bool
        Whether the gate lets it through.
    promoted : bool
        Whether it is champion now; false where nobody asked for it.
    reason : str
        Why, in a sentence.
    differences : tuple of Difference
        One a horizon; none where there was nothing to compare.
    problems : tuple of str
        What the health checks found.
    """

    champion: Reign
    challenger: str
    serving: str
    cutoff: str
    passes: bool
    promoted: bool
    reason: str
    differences: tuple[Difference, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def decision(self) -> str:
        """``promoted``, ``kept``, or ``would promote`` where nobody asked for a promotion."""
        if self.promoted:
            return "promoted"
        return "would promote" if self.passes else "kept"

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON; numbers that do not exist become null."""
        found: dict[str, Any] = without_nan({"decision": self.decision, **to_plain(self)})
        return found


def retrain(
    workspace: Workspace,
    policy: GatePolicy | None = None,
    *,
    promote_if_better: bool = False,
    report: bool = True,
    progress: Progress | None = None,
) -> Retrained:
    """Train a challenger by the champion's recorded config, judge it, and promote its refit if it passes.

    The outcome is written into the challenger's run.json and appended to ``champion/retrain.jsonl``.

    Raises
    ------
    OverlapError
        When another retrain of this workspace is at work.
    RunError
        When there is no champion, or a run that it corrects or routes between is gone.
    """
    progress = progress or Progress(enabled=False)
    with _alone(workspace):
        champion, evaluated = _champion(workspace)
        progress.note(f"champion: {champion.run}, since {champion.since}")
        result = train_challenger(workspace, evaluated, report=report, progress=progress)
        found = _judge(workspace, champion, evaluated, result, policy or GatePolicy(), progress)
        if found.serving == champion.run:
            return found  # nothing was new: no attempt to write down
        if found.passes and promote_if_better:
            why = f"retrained: {found.reason}"
            promote(workspace, found.serving, why=why, instead_of=champion.run)
            found = replace(found, promoted=True)
        _write_down(workspace, result.run, found)
        return found


def describe_retrain(workspace: Workspace, policy: GatePolicy | None = None) -> dict[str, Any]:
    """Return what `retrain` would do, without training anything."""
    policy = policy or GatePolicy()
    champion, evaluated = _champion(workspace)
    config = recipe_of(evaluated)
    market = load_market(workspace, config.data)
    times, cutoff = market.bars.calendar.times, str(evaluated.info["cutoff"])
    first, last = market.plan.spans["route"]
    metric = "r2" if market.small_universe else "rank_ic"
    return {
        "champion": asdict(champion),
        "model": config.model,
        "first": [run.name for run in comes_first(workspace, evaluated)],
        "champion_cutoff": cutoff,
        "cutoff": market.cutoff,
        "new_sessions": int((times > np.datetime64(cutoff)).sum()),
        "route": {"first": str(times[first]), "last": str(times[last])},
        "sessions_to_compare": len(np.unique(market.bars.session[fresh_rows(market, evaluated)])),
        "min_sessions": policy.min_sessions,
        "metric": metric,
        "bound": policy.bound(metric),
        "when_unclear": policy.when_unclear,
    }


def _champion(workspace: Workspace) -> tuple[Reign, RunFolder]:
    """Return the champion and the run that holds its evidence."""
    champions = read_champions(workspace)
    if champions is None:
        raise RunError(
            "there is no champion to retrain", "barcast train lstm --final, then barcast promote RUN"
        )
    open_run(workspace, ALIAS)  # says so where its folder is gone
    return champions.current, open_run(workspace, champions.current.evaluated)


def _judge(
    workspace: Workspace, champion: Reign, evaluated: RunFolder, result: TrainedAndCompared,
    policy: GatePolicy, progress: Progress,
) -> Retrained:  # fmt: skip
    """Return what gate and health checks say; nothing is promoted yet."""
    run, final = result.run, result.final or result.run
    found = Retrained(champion, run.name, final.name, str(run.info["cutoff"]), False, False, "")
    if final.name == champion.run:
        return replace(
            found, reason="nothing is new: these bars and options are the champion's own; barcast data update"
        )
    progress.note(f"comparing {run.name} with {evaluated.name} on `route`")
    differences = compare_with_champion(workspace, evaluated, run, market_of(workspace, run), policy)
    problems = health_problems(result.forecasts, _forecasts(workspace, champion.run))
    champions = read_champions(workspace)
    passes, reason = decide(differences, policy)
    if problems:
        passes, reason = False, problems[0]
    elif champions and any(one.run == final.name for one in champions.withdrawn):
        passes, reason = False, f"a rollback took it back; barcast promote {final.name} is for you to say"
    return replace(found, passes=passes, reason=reason, differences=differences, problems=tuple(problems))


def _forecasts(workspace: Workspace, name: str) -> Forecasts | BarcastError:
    """Return what the champion says of the newest session, to compare with; or why it says nothing."""
    try:
        return predict(workspace, open_run(workspace, name), allow_old=True, save=False)
    except BarcastError as error:
        return error


def _write_down(workspace: Workspace, run: RunFolder, found: Retrained) -> None:
    """Write the outcome into the challenger's run.json and append it to the history."""
    outcome = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **found.plain()}
    run.update(retrain=outcome)
    path = history_file(workspace)
    with explained("writing", path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(outcome, ensure_ascii=False) + "\n")


def history_file(workspace: Workspace) -> Path:
    """Return where the outcome of every retrain is written, one JSON object a line."""
    return champion_folder(workspace) / "retrain.jsonl"


@contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    """Hold the lock of retraining; predicting, promoting and other trainings go on beside it.

    Raises
    ------
    OverlapError
        When another process holds it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(writer_lock(champion_folder(workspace) / "retrain"))
        except StoreBusyError as error:
            raise OverlapError(
                f"another retrain is at work: {error.found}", "nothing to do: let it end"
            ) from error
        yield
