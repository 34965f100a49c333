"""What a store is: one market, one frequency, one calendar."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from barcast.core.atomic import read_json, write_json
from barcast.core.config import from_plain
from barcast.core.errors import StoreError, StoreVersionError

#: Raised whenever an older barcast could misread a store.
FORMAT = 1
#: Characters in a folder's name that the table format cannot write to.
_REFUSED_CHARACTERS = "[]|^%\\"


def refuse_name(folder: Path) -> None:
    """Refuse a place that the table format cannot write to, before anything is written.

    Raises
    ------
    StoreError
        When the folder's name holds such characters.
    """
    if refused := sorted(set(str(folder.resolve())) & set(_REFUSED_CHARACTERS)):
        raise StoreError(
            f"a store cannot live in {folder}: its name has {' '.join(refused)}",
            "choose a --workspace without these characters",
        )


@dataclass(frozen=True, kw_only=True)
class StoreMeta:
    """Content of ``store.json``.

    Attributes
    ----------
    market, frequency, calendar : str
        Fixed for the life of the store.
    created : str
        ISO time, UTC.
    format : int
        Version of the layout.
    """

    market: str
    frequency: str
    calendar: str
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write ``store.json``.

        Raises
        ------
        StoreError
            When the folder's name holds characters the table format cannot write to.
        """
        refuse_name(folder)
        write_json(folder / "store.json", asdict(self))

    @classmethod
    def read(cls, folder: Path) -> StoreMeta:
        """Read ``store.json``.

        Raises
        ------
        StoreError
            When there is no store, or its description is damaged.
        StoreVersionError
            When a newer barcast wrote it.
        """
        path = folder / "store.json"
        if not path.is_file():
            raise StoreError(
                f"no market store at {folder}", "make one: barcast data import PATH --market ..."
            )
        try:
            values = read_json(path)
            version = int(values["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path} is damaged: {error}", "restore it from a backup, or import anew"
            ) from error
        if version > FORMAT:
            raise StoreVersionError(
                f"{folder} has store format {version}; this barcast reads up to {FORMAT}",
                "upgrade: pip install -U barcast",
            )
        return from_plain(cls, values, where=str(path))
