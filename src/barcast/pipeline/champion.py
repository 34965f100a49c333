"""``barcast promote`` and ``barcast rollback``: who predicts when nobody is named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from barcast.core.champion import (
    ALIAS,
    Champions,
    Reign,
    champion_folder,
    read_champions,
    write_champions,
)
from barcast.core.errors import RunError, StoreBusyError
from barcast.core.lock import writer_lock
from barcast.core.runs import RunFolder, command_to_type, open_run
from barcast.core.workspace import Workspace
from barcast.pipeline.fleet_universal import recorded_universal
from barcast.pipeline.load import load_model
from barcast.pipeline.predict import newest_run, refits_of
from barcast.pipeline.record import check_market, known_until
from barcast.pipeline.routed_parts import is_routed, open_routes, recorded_parts
from barcast.pipeline.settings import from_run
from barcast.pipeline.unfinished import check_done
from barcast.store import MarketStore
from barcast.windows.normalise import MIN_COVERAGE

#: How long a promotion waits for another one, which takes milliseconds.
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Change:
    """What a promotion or a rollback did.

    Attributes
    ----------
    now : Reign
        Who is champion.
    before : Reign or None
        Who was until then; None for the first champion, ``now`` itself where nothing changed.
    served_by : tuple of str
        Of a routed champion the runs that forecast for it: of both that it is made of the newest refits.
    """

    now: Reign
    before: Reign | None
    served_by: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether another run predicts from now on."""
        return self.before is None or self.before.run != self.now.run

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        before = asdict(self.before) if self.before else None
        return {
            "champion": asdict(self.now), "before": before, "changed": self.changed,
            "served_by": list(self.served_by),
        }  # fmt: skip


def promote(
    workspace: Workspace, name: str, *, why: str = "promoted by hand", instead_of: str = ""
) -> Change:
    """Make a run the champion: of an evaluated run its newest refit, which is what predicts.

    A routed run has no refit of its own: it predicts by the newest ones of the two that it is made of.

    Parameters
    ----------
    why : str
        Kept with the pointer.
    instead_of : str
        Promote only while this run is champion; empty: whoever is.

    Raises
    ------
    RunError
        When the run is not finished, damaged, or cannot serve this workspace's store; when another run than
        ``instead_of`` has become champion meanwhile.
    """
    serving = _checked_with_refit(workspace, open_run(workspace, name))
    served_by = _served_by(workspace, serving)
    reign = Reign.now(serving.name, str(serving.info.get("parent", serving.name)), why)
    with _changing(workspace):
        champions = read_champions(workspace)
        if champions is None:
            write_champions(workspace, Champions(current=reign))
            return Change(reign, None, served_by)
        if champions.current.run == reign.run:
            return Change(champions.current, champions.current, served_by)
        if instead_of not in ("", champions.current.run):
            raise RunError(
                f"`{champions.current.run}` has become champion meanwhile, in place of `{instead_of}`",
                "run the same command again: it compares with the new one",
            )
        write_champions(workspace, champions.followed_by(reign))
        return Change(reign, champions.current, served_by)


def rollback(workspace: Workspace, to: str = "") -> Change:
    """Go back to the champion before, or to the earlier one named ``to``; what comes after it is withdrawn.

    Raises
    ------
    RunError
        When there is none, or when it cannot serve any more.
    """
    with _changing(workspace):
        champions = read_champions(workspace)
        if champions is None:
            raise RunError("this workspace has no champion to go back from", "barcast promote RUN")
        earlier = champions.back(to)
        run = _folder(workspace, earlier.current.run)
        try:
            check_can_serve(workspace, run)
        except RunError as error:
            further = command_to_type(workspace, "rollback", "--to", "RUN")
            raise RunError(f"cannot go back: {error.found}", f"{further} goes further back") from error
        write_champions(workspace, earlier)
        return Change(earlier.current, champions.current, _served_by(workspace, run))


def run_to_serve(workspace: Workspace, name: str | None, asof: str = "") -> RunFolder:
    """Return the run that answers: the named one, else the champion, else what `newest_run` chooses.

    As of a session that the champion's refit knows more than, the run it was refitted from answers: that
    one's own labels may end early enough.
    """
    if name not in (None, ALIAS) or (name is None and read_champions(workspace) is None):
        return newest_run(workspace, name)
    run = open_run(workspace, ALIAS)
    if asof and run.is_done and np.datetime64(known_until(run)) > np.datetime64(asof):
        return _folder(workspace, str(run.info.get("parent", run.name)))
    return run


def check_can_serve(workspace: Workspace, run: RunFolder) -> None:
    """Refuse a run that could not predict the symbols of the workspace's store.

    Raises
    ------
    RunError
        When it is not finished or not among the workspace's runs, when its weights or state, or the runs that
        it corrects or routes between, are missing, damaged or others now, when it was trained on another
        market or frequency, or when the store no longer holds its symbols.
    """
    if run.path.resolve().parent != workspace.runs.resolve():
        raise RunError(f"{run.path} is no run of {workspace.root}", "name one of its own: barcast runs")
    check_done(run)
    if is_routed(run):
        open_routes(run)
        for part in recorded_parts(workspace, run):
            _checked_with_refit(workspace, part)
    else:
        load_model(run, from_run(run.read("config.json")), run.read("state.json"))
        recorded_universal(workspace, run)
    check_market(workspace, run)
    universe = set(run.read("state.json")["universe"])
    held = len(universe & set(MarketStore.open(workspace.market).symbols()))
    if held < MIN_COVERAGE * len(universe):
        raise RunError(
            f"the store holds {held} of the {len(universe)} symbols that `{run.name}` was trained on",
            "promote a run of this store: barcast runs",
        )


def _checked_with_refit(workspace: Workspace, run: RunFolder) -> RunFolder:
    """Return what predicts for a run: its newest refit, else itself; refuse where either could not serve."""
    check_can_serve(workspace, run)
    serving = _newest_refit(workspace, run)
    if serving != run:
        check_can_serve(workspace, serving)
    return serving


def _newest_refit(workspace: Workspace, run: RunFolder) -> RunFolder:
    """Return the finished refit of a run that knows most, the newest of several, else the run itself."""
    return max(reversed(refits_of(workspace, run)), key=known_until, default=run)


def _served_by(workspace: Workspace, run: RunFolder) -> tuple[str, ...]:
    """Return the runs that forecast for a routed one; none for any other."""
    if not is_routed(run):
        return ()
    return tuple(_newest_refit(workspace, part).name for part in recorded_parts(workspace, run))


def _folder(workspace: Workspace, name: str) -> RunFolder:
    return RunFolder(workspace.runs / name)


@contextmanager
def _changing(workspace: Workspace) -> Iterator[None]:
    """Hold the pointer's lock, waiting for whoever has it."""
    folder: Path = champion_folder(workspace)
    until = time.monotonic() + PATIENCE_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(writer_lock(folder))
                break
            except StoreBusyError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        yield
