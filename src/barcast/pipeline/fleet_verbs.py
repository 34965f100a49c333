"""What is fitted of a fleet that is there: another try of what failed, a plan of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from barcast.core.errors import RunError
from barcast.core.lock import writer_lock
from barcast.core.progress import Progress
from barcast.core.runs import run_folder
from barcast.core.workspace import Workspace
from barcast.fleet.budget import Plan
from barcast.fleet.ledger import LEDGER, Ledger
from barcast.pipeline.compare import market_again
from barcast.pipeline.dataset import build_dataset
from barcast.pipeline.fleet import FleetHow, check_options, has_more_to_fit, plan_fits
from barcast.pipeline.fleet_residual import residual_of
from barcast.pipeline.fleet_seen import fleet_run
from barcast.pipeline.fleet_takes import recorded_how
from barcast.pipeline.record import begin
from barcast.pipeline.settings import RunConfig, from_run
from barcast.pipeline.train import Trained, identity_of, prepare, train
from barcast.pipeline.unfinished import INTERRUPTED, failure_recorded


def retry_failed(
    workspace: Workspace, name: str = "", *, workers: int | None = None, progress: Progress | None = None
) -> tuple[Trained, Sequence[str]]:
    """Fit what failed once more, on the rows it was fitted on; return the fleet and who that was.

    So is what an earlier call began and did not end. Who was left out by a limit stays so: fits may take
    what those of the fleet might, on other workers where they are given.

    Raises
    ------
    RunError
        When the run is a refit, which is made again from its evaluation.
    """
    progress = progress or Progress(enabled=False)
    run = fleet_run(workspace, name)
    if run.info.get("final"):
        raise RunError(
            f"`{run.name}` is a refit: what failed in it is fitted again with the others",
            f"barcast train --refit {run.info['parent']} --fresh",
        )
    with writer_lock(run.path), Ledger.open(run.fleet / LEDGER, readonly=False) as ledger:
        ledger.retry_failed()
        again = tuple(row.symbol for row in ledger.rows(status=["pending", "running"]))
    market = market_again(workspace, run, progress)
    if not again:
        return Trained(run, market), again
    how = replace(recorded_how(run, workers), only=frozenset(again))
    config = from_run(run.read("config.json"))
    return train(workspace, config, market=market, progress=progress, fleet=how), again


def plan_fleet(
    workspace: Workspace, config: RunConfig, how: FleetHow, progress: Progress | None = None
) -> list[Plan]:
    """Measure presets on a few symbols, which are kept as fitted, and return what the rest will take.

    Where `stop` is to choose the width and has not yet, the widest is planned. A fleet that was finished, as
    far as limits allowed, serves, and stays as it is: of it nothing is kept.

    Returns
    -------
    list of Plan
        Usually one; none where everything is fitted.
    """
    progress = progress or Progress(enabled=False)
    ready = prepare(workspace, config, progress=progress, compare_widths=False)
    identity = identity_of(ready.config.identity(), ready.market, ready.features, ready.attributes, None)
    run = run_folder(workspace, config.model, identity)
    if run.is_done and not has_more_to_fit(run):
        progress.note(f"{run.name} is there already: nothing to plan (--fresh to fit it again)")
        return []
    dataset = build_dataset(ready.market, workspace, ready.features, tabular=True)
    check_options(ready.config, dataset)
    with writer_lock(run.path), failure_recorded(run):
        serves = run.is_done
        if serves:
            progress.note(f"{run.name} serves and stays as it is: nothing is kept of what is measured")
        else:
            run = begin(workspace, ready.config, identity, dataset, fresh=False)
        residual = residual_of(workspace, run, ready.config, dataset, progress)
        learned = dataset if residual is None else residual.learned
        plans = plan_fits(ready.config, learned, run, progress, how, keep=not serves)
        if not serves:
            run.update(status=INTERRUPTED)
    return plans
