"""The challenger of a retrain: the champion's recorded recipe on the data as of now.

What a champion rests on is made first, each by its own recorded recipe: the universal run that a residual
fleet corrects, the two runs that a routed one is made of. Whatever was finished before is found again.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from barcast.core.progress import Progress
from barcast.core.runs import RunFolder
from barcast.core.workspace import Workspace
from barcast.models.registry import model_entry
from barcast.pipeline.fleet_universal import recorded_universal
from barcast.pipeline.route import route_runs
from barcast.pipeline.routed_parts import FACT, Parts, is_routed, recorded_parts
from barcast.pipeline.searched import with_search
from barcast.pipeline.settings import RunConfig, from_run
from barcast.pipeline.tracked import train_tracked
from barcast.pipeline.train import train
from barcast.pipeline.workflow import TrainedAndCompared, compare_and_report
from barcast.tracking.registry import open_mirror

if TYPE_CHECKING:
    from barcast.pipeline.fleet import FleetHow


def recipe_of(run: RunFolder) -> RunConfig:
    """Return the recorded config of a run, with the search that had chosen it."""
    return with_search(from_run(run.read("config.json")), run)


def comes_first(workspace: Workspace, evaluated: RunFolder) -> tuple[RunFolder, ...]:
    """Return the runs whose recipes are made before a champion's own, in order.

    Raises
    ------
    RunError
        When one of them is gone, or another one now.
    """
    if is_routed(evaluated):
        parts = recorded_parts(workspace, evaluated)
        found = [each for part in parts for each in (*comes_first(workspace, part), part)]
        return tuple({each.name: each for each in found}.values())
    universal = recorded_universal(workspace, evaluated)
    return () if universal is None else (universal.run,)


def train_challenger(
    workspace: Workspace, evaluated: RunFolder, *, report: bool, progress: Progress
) -> TrainedAndCompared:
    """Train the recipe of the champion's evaluation on the data as of now, refit it and compare it.

    A routed challenger has no refit of its own: it serves by those of the two runs that it is made of.
    Trackers of the settings file follow every training.

    Raises
    ------
    RunError
        When what the champion rests on is gone, or another one now.
    UsageError
        When a tracker of the settings file cannot be had.
    """
    if not is_routed(evaluated):
        return _trained_again(workspace, evaluated, report=report, progress=progress)
    before = recorded_parts(workspace, evaluated)
    progress.note(f"{evaluated.name} routes between {before[0].name} and {before[1].name}, which come first")
    universal, fleet = (
        _trained_again(workspace, part, report=False, progress=progress).run for part in before
    )
    run = evaluated
    if evaluated.info.get(FACT) != Parts(universal, fleet).plain():  # else nothing is new
        policy = from_run(evaluated.read("config.json")).options.policy
        run = route_runs(workspace, universal, fleet, policy, progress=progress).run
    return compare_and_report(workspace, run, report=report, progress=progress)


def _trained_again(
    workspace: Workspace, evaluated: RunFolder, *, report: bool, progress: Progress
) -> TrainedAndCompared:
    """Train a run's recipe, a fleet's within its limits; what is finished stays as it is."""
    config = _on_what_is_known_now(workspace, evaluated, progress)
    return train_tracked(
        workspace, config, open_mirror(workspace), final=True, report=report, keep_forecasts=False,
        progress=progress, fleet=_takes(evaluated), extend=False,
    )  # fmt: skip


def _takes(evaluated: RunFolder) -> FleetHow | None:
    """Return what the fits of a fleet might take; of any other run None."""
    if model_entry(str(evaluated.info["model"])).kind != "fleet":
        return None
    from barcast.pipeline.fleet_takes import recorded_how  # local: who retrains no fleet pays for none

    return recorded_how(evaluated)


def _on_what_is_known_now(workspace: Workspace, evaluated: RunFolder, progress: Progress) -> RunConfig:
    """Return a run's recipe; of a residual fleet on its universal model as of now, trained where it must be.

    Raises
    ------
    RunError
        When the run that it corrects is gone, or another one now.
    """
    config, before = recipe_of(evaluated), recorded_universal(workspace, evaluated)
    if before is None:
        return config
    progress.note(f"{evaluated.name} corrects {before.run.name}, which comes first")
    mirror = open_mirror(workspace)
    follow = partial(mirror.follow, progress=progress)
    with mirror.closing():
        universal = train(workspace, recipe_of(before.run), progress=progress, follow=follow).run
    return replace(config, options=replace(config.options, universal=universal.name))
