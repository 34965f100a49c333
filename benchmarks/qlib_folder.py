"""Write bars in qlib's binary format: one float32 file a symbol and field, first the calendar position."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FIELDS = ("open", "high", "low", "close", "volume")


def write_qlib_folder(
    folder: Path, days: np.ndarray, names: list[str], first: np.ndarray, columns: dict, borders
) -> None:
    """Series ``s`` has the rows ``borders[s]:borders[s + 1]``, on days from ``days[first[s]]`` on."""
    for part in ("calendars", "instruments", "features"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "calendars" / "day.txt").write_text("\n".join(map(str, days)) + "\n")
    lines = []
    for s, name in enumerate(names):
        start, stop = int(borders[s]), int(borders[s + 1])
        lines.append(f"{name}\t{days[first[s]]}\t{days[first[s] + stop - start - 1]}")
        own = folder / "features" / name.lower()
        own.mkdir(exist_ok=True)
        for field in FIELDS:
            values = np.concatenate([[first[s]], columns[field][start:stop]]).astype("<f4")
            values.tofile(own / f"{field}.day.bin")
    (folder / "instruments" / "all.txt").write_text("\n".join(lines) + "\n")
