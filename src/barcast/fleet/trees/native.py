"""The libraries' own formats of a symbol's boosters, compressed in one small archive, for export."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from barcast.core.errors import DataError

#: Member and ending of a file; the horizon's position stands between them.
XGBOOST_FILE, LIGHTGBM_FILE = ("xgboost", ".ubj"), ("lightgbm", ".txt")
#: Level 1 takes a quarter of the time of level 6 for a tenth more bytes.
_LEVEL = 1
#: An archive's time stamps are part of its bytes, which must be the same on every run.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of files by name; equal files make equal bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _NO_TIME), content, zipfile.ZIP_DEFLATED, _LEVEL)
    return target.getvalue()


def unzipped(native: bytes, owner: str = "") -> dict[str, bytes]:
    """Read what :func:`zipped` wrote.

    Raises
    ------
    DataError
        When it is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(native)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, EOFError, ValueError, OSError) as error:
        raise DataError(
            f"the native models{f' of {owner}' if owner else ''} are damaged: {error}",
            "train the symbol again",
        ) from error
