"""A training that trackers follow, from its first evaluation to its report."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from barcast.core.progress import Progress
from barcast.core.workspace import Workspace
from barcast.pipeline.results import check_output_dir, copy_results
from barcast.pipeline.settings import RunConfig
from barcast.pipeline.workflow import TrainedAndCompared, train_and_report
from barcast.tracking.base import below
from barcast.tracking.mirror import Mirror


def train_tracked(
    workspace: Workspace,
    config: RunConfig,
    mirror: Mirror,
    *,
    fresh: bool = False,
    output_dir: Path | None = None,
    progress: Progress | None = None,
    **how: Any,
) -> TrainedAndCompared:
    """Train as `train_and_report` does, with its options; ``mirror`` follows.

    A run that is there already is sent to the trackers as it stands. ``output_dir`` gets a copy of the run's
    folder.

    Raises
    ------
    UsageError
        When ``output_dir`` is a place that nothing can be copied to.
    ResourceError
        When it cannot be written.
    """
    progress = progress or Progress(enabled=False)
    if output_dir is not None:
        check_output_dir(output_dir)
    with mirror.closing():
        follow = partial(mirror.follow, progress=progress, fresh=fresh)
        result = train_and_report(workspace, config, fresh=fresh, progress=progress, follow=follow, **how)
        mirror.follow(result.run, progress)
        mirror.results(final_scores(result), _made(workspace, result))
    if output_dir is not None:
        copy_results(result.run, output_dir)
        progress.note(f"copied to {output_dir}")
    return result


def final_scores(result: TrainedAndCompared) -> dict[str, float]:
    """Return the run's scores as ``{"route/h5/rank_ic": ...}``; NaN where one is undefined."""
    scores: dict[str, float] = {}
    for found, rows in zip(result.compared.comparisons, result.compared.rows, strict=True):
        own = {forecast.name for forecast in rows.forecasts if forecast.run == result.run.name}
        for row in found.all_rows.rows:
            if row.model in own:
                place = f"{found.segment}/h{found.horizon}"
                scores |= {f"{place}/{name}": score.value for name, score in row.scores.items()}
    return scores


def _made(workspace: Workspace, result: TrainedAndCompared) -> dict[str, str]:
    """Return where in the workspace lies what the run made."""
    run = result.run
    files = {"weights": run.weights, "predictions": run.predictions, "metrics": run.metrics}
    if result.report:
        files["report"] = result.report
    if result.final:
        files["refit"] = result.final.path
    return {f"path/{name}": below(path, workspace.root) for name, path in files.items() if path.exists()}
