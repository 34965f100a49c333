"""Stored fleets in Python: whose models decayed, fitting them again, taking one out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from barcast.api.checked import checked
from barcast.api.places import Names, Place, names_of, place_of
from barcast.core.progress import Progress

if TYPE_CHECKING:
    from barcast.pipeline.fleet_decay import FleetDecay
    from barcast.pipeline.fleet_export import Exported
    from barcast.pipeline.fleet_refresh import Refreshed


@checked
def fleet_decay(
    run: str = "", *, workspace: Place = None, since: str = "", progress: bool = False
) -> FleetDecay:
    """Say whether a fleet's stored models lost their skill since training, whose did, and since when.

    Parameters
    ----------
    run : str
        A fleet; by default the newest, or the refit that serves for it.
    since : str
        First session watched; by default the first after all that taught, chose or judged the run.

    Raises
    ------
    UsageError
        On a ``since`` before which something was learned, or in a `test` that is sealed.
    """
    from barcast.pipeline.fleet_decay import fleet_decay as decay

    return decay(place_of(workspace), run, since=since, progress=Progress(enabled=progress))


@checked
def fleet_refresh(
    symbols: Names = (), run: str = "", *, workspace: Place = None, named: bool = False,
    workers: int | None = None, progress: bool = False,
) -> Refreshed:  # fmt: skip
    """Fit symbols again on everything known now, in a refit that takes over the models of all others.

    Parameters
    ----------
    symbols : str or sequence of str
        In any spelling.
    run : str
        A fleet; by default the newest, or the refit that serves for it.
    named : bool
        Also those whose models decayed.

    Raises
    ------
    UsageError
        When nobody is to be fitted, or somebody who had no model when the fleet was evaluated.
    RunError
        When nothing is new, or the models could not be taken over as they are.
    """
    from barcast.pipeline.fleet_refresh import fleet_refresh as refresh

    return refresh(
        place_of(workspace), names_of(symbols, "symbols"), run, named=named, workers=workers,
        progress=Progress(enabled=progress),
    )  # fmt: skip


@checked
def fleet_export(
    symbol: str, to: Path | str, run: str = "", *, workspace: Place = None, kind: str = ""
) -> Exported:
    """Write one symbol's model of a fleet to a file that other programs read.

    Parameters
    ----------
    run : str
        A fleet; by default the newest, or the refit that serves for it.
    to : path
        ``.zip``: each member of an ensemble in its library's own format; ``.safetensors``: all trees, or a
        network, as arrays; ``.onnx``: the final forecast, weights and calibration included (it needs
        ``barcast[onnx]``).
    kind : str
        ``native``, ``safetensors`` or ``onnx``; by default as the file ends.

    Raises
    ------
    UsageError
        On a folder, an ending of no known format, or a symbol without a model of its own.
    """
    from barcast.pipeline.fleet_export import fleet_export as export

    return export(place_of(workspace), symbol, Path(to), run, kind)
