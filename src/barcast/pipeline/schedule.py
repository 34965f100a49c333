"""Ready lines for systemd and cron that retrain a workspace every Sunday night; nothing is installed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from barcast.core.champion import champion_folder
from barcast.core.config import nearest
from barcast.core.errors import UsageError
from barcast.core.workspace import Workspace

#: What can be asked for, and the file that it fills in.
TEMPLATES = {
    "systemd-service": "barcast-retrain.service.j2",
    "systemd-timer": "barcast-retrain.timer.j2",
    "cron": "barcast-retrain.cron.j2",
}
#: Where systemd looks for a user's units.
_USER_UNITS = "~/.config/systemd/user"


def schedule(workspace: Workspace, kind: str, options: Sequence[str] = ()) -> str:
    """Return a unit or a crontab line with this barcast and this workspace filled in, quoted for its reader.

    Parameters
    ----------
    options : sequence of str
        More words of the command that it runs, beside ``--promote-if-better --quiet``.

    Raises
    ------
    UsageError
        On a kind that there is none of, a path that its reader cannot hold, or options for a timer.
    """
    if kind not in TEMPLATES:
        raise UsageError(f"no template `{kind}`", nearest(kind, TEMPLATES))
    if options and kind == "systemd-timer":
        raise UsageError(
            f"a timer only says when, and has no use for {' '.join(options)}",
            "leave them out here; --template systemd-service takes them",
        )
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("barcast.pipeline", "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # no page: each value is quoted for its reader
    )
    quote: Callable[[str], str] = for_cron if kind == "cron" else for_systemd
    return environment.get_template(TEMPLATES[kind]).render(
        program=" ".join(map(quote, this_program())),
        options="".join(f" {quote(word)}" for word in options),
        workspace=quote(str(workspace.root)),
        log=quote(str(champion_folder(workspace) / "retrain.log")),
        folder=_USER_UNITS,
    )


def this_program() -> tuple[str, ...]:
    """Return the words that call this installation of barcast from anywhere."""
    script = Path(sys.executable).with_name("barcast")
    return (str(script),) if script.is_file() else (sys.executable, "-m", "barcast")


def for_systemd(word: str) -> str:
    """Quote a word of ``ExecStart``: ``%`` and ``$`` stand for other things there unless doubled."""
    _refuse_breaks(word)
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def for_cron(word: str) -> str:
    """Quote a word of a crontab line, which a shell reads; an unescaped ``%`` would end the line there."""
    _refuse_breaks(word)
    return shlex.quote(word).replace("%", "\\%")


def _refuse_breaks(word: str) -> None:
    if "\n" in word or "\r" in word:
        raise UsageError(f"{word!r}: a line break cannot stand in a unit or a crontab", "another folder name")
