"""Draw the map of symbols: one HTML file in the style of the report, with everything inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from barcast.core.atomic import write_text
from barcast.core.texts import Text
from barcast.reports.page import draw, pack, read_words, rounded

SCRIPTS = ("1-base.js", "3-chart.js", "6-switches.js", "map.js")
#: Families of the report's words that this page says too.
_SHARED = ("page", "switch", "chart", "copy")


@dataclass(frozen=True, kw_only=True)
class MapData:
    """What the map shows of N symbols.

    Attributes
    ----------
    run : str
    width : int
        Of the vectors whose two widest axes are drawn.
    shares : tuple of float
        Share of variance on each of the two, fractions.
    symbols, names : tuple of str, length N
        A name is empty where nobody gave one.
    x, y : tuple of float, length N
    groups : mapping of str to tuple of str, length N
        Facts that may colour the symbols; empty where unknown.
    warnings, purity : tuple of Text
        What a reader must know before looking, and whether groups are more than chance.
    """

    run: str
    width: int
    shares: tuple[float, float]
    symbols: tuple[str, ...]
    names: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    groups: Mapping[str, tuple[str, ...]]
    warnings: tuple[Text, ...]
    purity: tuple[Text, ...]


def write_map(path: Path, data: MapData) -> None:
    """Write the page atomically as UTF-8.

    Raises
    ------
    ResourceError
        On a full disk or a missing permission.
    """
    write_text(path, render_map(data))


def render_map(data: MapData) -> str:
    """Return the whole page as HTML."""
    return draw("map.html.j2", SCRIPTS, map_words(), _payload(data), data=data, version=version("barcast"))


def map_words() -> dict[str, list[str]]:
    """Return every word of the page as [English, Chinese]."""
    shared = {key: said for key, said in read_words("words.json").items() if key.split(".")[0] in _SHARED}
    return shared | read_words("map.json")


def _payload(data: MapData) -> dict[str, Any]:
    columns = {name: list(getattr(data, name)) for name in ("symbols", "names", "x", "y")}
    columns |= {f"group {place}": list(values) for place, values in enumerate(data.groups.values())}
    packed = {name: pack(rounded(values)) for name, values in columns.items()}
    return {
        "points": {"length": len(data.symbols), "columns": packed},
        "groups": list(data.groups),
        "shares": list(data.shares),
        "width": data.width,
        "empty": [],
    }
