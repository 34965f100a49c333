"""Options that several commands share, and the two ways a flag holds a list."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from barcast.core.errors import UsageError

if TYPE_CHECKING:
    from barcast.core.texts import Language

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", "-w", help="Folder to work in (or BARCAST_WORKSPACE; default: here)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, nothing else.")]
TimeBudgetOption = Annotated[
    str | None,
    typer.Option(
        metavar="MINUTES", help="For trials and run where --size auto chooses (120); 30m, 1h30m too."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but the result, in short.")]
TrackOption = Annotated[
    str | None, typer.Option(help="Mirror the run: swanlab, mlflow, tensorboard; several: a,b; or none.")
]
TrackProjectOption = Annotated[
    str | None, typer.Option(help="SwanLab project, MLflow experiment, TensorBoard folder.")
]
TrackWorkspaceOption = Annotated[str | None, typer.Option(help="SwanLab workspace (organisation).")]
TrackOnlineOption = Annotated[
    bool, typer.Option("--track-online", help="Let trackers use the network; keys from the environment.")
]


def language(text: str) -> Language:
    """Read ``--lang``.

    Raises
    ------
    UsageError
        When the project does not speak it.
    """
    if text not in ("en", "zh"):
        raise UsageError(f"--lang {text}: not a language of barcast", "--lang en or --lang zh")
    return cast("Language", text)


def words(text: str | None) -> tuple[str, ...] | None:
    """Split ``a,b c`` at commas (Chinese ones too) and blanks; None stays None.

    Raises
    ------
    UsageError
        On a list without a word, which would mean everything.
    """
    if text is None:
        return None
    found = tuple(re.sub("[,，、]", " ", text).split())
    if not found:
        raise UsageError(f"a list with nothing in it: `{text}`", "name at least one, or leave the option out")
    return found


def minutes(text: str | None, flag: str = "--time-budget") -> float | None:
    """Read minutes: a number, or a duration with its unit, such as ``30m`` or ``1h30m``.

    Raises
    ------
    UsageError
        On anything else.
    """
    from barcast.core.durations import minutes_of

    try:
        return minutes_of(None if text is None else float(text), flag)
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        return minutes_of(text, flag)


def numbers(text: str | None, flag: str) -> tuple[int, ...] | None:
    """Split whole numbers.

    Raises
    ------
    UsageError
        Naming the flag and what is not a number.
    """
    try:
        return None if text is None else tuple(int(word) for word in words(text) or ())
    except ValueError as error:
        raise UsageError(
            f"{flag}: expected whole numbers such as 1,5,20, found `{text}`", f"{flag} 5, or {flag} 1,5,20"
        ) from error
