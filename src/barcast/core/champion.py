"""The champion: the one run of a workspace that answers when nobody names another.

``champion/champion.json`` says which run that is, since when and why, which runs were it before, and which of
them were taken back. It is replaced in one rename, so that a reader sees one whole state, and it is the only
truth: nothing else in the workspace decides who predicts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from barcast.core.atomic import read_json, write_json
from barcast.core.config import from_plain, to_plain
from barcast.core.errors import RunError, UsageError
from barcast.core.workspace import Workspace

#: What a user types in place of a run's name.
ALIAS = "champion"
#: How many earlier and how many withdrawn champions are remembered.
MAX_REMEMBERED = 20


@dataclass(frozen=True, kw_only=True)
class Reign:
    """One run's time as champion.

    Attributes
    ----------
    run : str
        The run that predicts: a refit, or an evaluated run without one.
    evaluated : str
        The run that holds its scores: the parent of a refit, else ``run`` itself.
    since : str
        When it was promoted, ISO time, UTC.
    why : str
        In a sentence.
    """

    run: str
    evaluated: str
    since: str
    why: str

    @classmethod
    def now(cls, run: str, evaluated: str, why: str) -> Reign:
        """Begin a reign at this moment."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(run=run, evaluated=evaluated, since=since, why=why)


@dataclass(frozen=True, kw_only=True)
class Champions:
    """Who is champion, who was, and who was taken back.

    Attributes
    ----------
    current : Reign
    earlier : tuple of Reign
        Those that `back` returns to, oldest first.
    withdrawn : tuple of Reign
        Those that a rollback took away, oldest first; promoting one again forgives it.
    """

    current: Reign
    earlier: tuple[Reign, ...] = ()
    withdrawn: tuple[Reign, ...] = ()

    def followed_by(self, reign: Reign) -> Champions:
        """Return the state after a promotion."""
        return Champions(
            current=reign,
            earlier=(*self.earlier, self.current)[-MAX_REMEMBERED:],
            withdrawn=tuple(one for one in self.withdrawn if one.run != reign.run),
        )

    def back(self, to: str = "") -> Champions:
        """Return the state before the last promotion, or before as many as lead to the run ``to``.

        Raises
        ------
        RunError
            When there is no earlier champion, or none of that name.
        """
        if not self.earlier:
            raise RunError(
                f"there is no champion before `{self.current.run}`", "barcast promote RUN names another"
            )
        places = [place for place, reign in enumerate(self.earlier) if to in ("", reign.run, reign.evaluated)]
        if not places:
            known = ", ".join(dict.fromkeys(reign.run for reign in reversed(self.earlier)))
            raise RunError(f"`{to}` was not champion before; earlier ones, last first: {known}", "name one")
        place = places[-1]
        gone = (*self.earlier[place + 1 :], self.current)
        return replace(
            self,
            current=self.earlier[place],
            earlier=self.earlier[:place],
            withdrawn=(*self.withdrawn, *gone)[-MAX_REMEMBERED:],
        )


def champion_folder(workspace: Workspace) -> Path:
    """Return where the pointer, its lock and the history of retraining rest."""
    return workspace.root / "champion"


def read_champions(workspace: Workspace) -> Champions | None:
    """Return who is champion and who was; None where nobody ever was promoted.

    Raises
    ------
    RunError
        When the file cannot be read as such.
    """
    path = champion_folder(workspace) / "champion.json"
    try:
        return from_plain(Champions, read_json(path), path.name)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, UsageError) as error:
        raise RunError(f"{path} is damaged: {error}", "remove it, then barcast promote RUN") from error


def write_champions(workspace: Workspace, champions: Champions) -> None:
    """Replace the pointer in one rename; whoever changes it holds the folder's lock meanwhile."""
    write_json(champion_folder(workspace) / "champion.json", to_plain(champions))


def is_champion(workspace: Workspace, name: str) -> bool:
    """Return whether the run of this name predicts when nobody names another."""
    champions = read_champions(workspace)
    return champions is not None and champions.current.run == name


def champion_name(workspace: Workspace) -> str:
    """Return the name of the run that predicts.

    Raises
    ------
    RunError
        When there is no champion.
    """
    champions = read_champions(workspace)
    if champions is None:
        raise RunError("this workspace has no champion yet", "barcast promote RUN")
    return champions.current.run
