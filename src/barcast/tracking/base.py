"""What a tracker is told, and what one has to do."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from barcast.core.runs import RunFolder

FINISHED, FAILED, INTERRUPTED = "finished", "failed", "interrupted"
#: Longer values (thousands of symbols) are cut: config.json has them whole.
LONGEST = 500
_FACTS = (
    "id", "created", "cutoff", "store_version", "data_digest", "num_symbols", "num_rows", "num_sessions",
)  # fmt: skip
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_USER_IN_URL = re.compile(r"://[^/\s@]+@")


@dataclass(frozen=True)
class About:
    """What a tracker is told of a run at the start.

    Attributes
    ----------
    name : str
        The run's name.
    config : dict of str to str
        The resolved config, flat: ``train.lr`` and so on.
    facts : dict of str to str
        Which data it saw, and where its folder is below the workspace.
    """

    name: str
    config: dict[str, str]
    facts: dict[str, str]


class Tracker(Protocol):
    """One library. Any method may raise anything: the mirror then switches it off."""

    def start(self, about: About, remembered: Mapping[str, Any]) -> dict[str, Any]:
        """Open a tracked run, or the one that an earlier ``start`` returned.

        Returns
        -------
        dict
            What to remember, plain values: how to find the tracked run again, and all of ``remembered`` that
            still holds. ``step`` is the last step it has, and is left out where it has none.
        """

    def where(self) -> str:
        """Say how a person looks at it."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the finite numbers of one evaluation."""

    def summarise(self, step: int, scores: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """Write the final scores (on the last step) and the paths of what the run made."""

    def finish(self, status: str, reason: str) -> None:
        """Close the tracked run: ``finished``, ``failed`` (with the reason) or ``interrupted``."""


def about_run(run: RunFolder, root: Path) -> About:
    """Return what trackers are told of a run; paths are below ``root``, so that no user is named."""
    info = run.info
    facts = {name: text(info[name]) for name in _FACTS if name in info}
    return About(run.name, flat(run.read("config.json")), {**facts, "folder": below(run.path, root)})


def below(path: Path, root: Path) -> str:
    """Return a path as seen from the workspace's folder."""
    return Path(os.path.relpath(path, root)).as_posix()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested plain values as ``{"train.lr": "0.001"}``; empty tables and lists stay visible."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = text(value)
    return found


def text(value: Any) -> str:
    """Return a plain value as text of bounded length: a text as it is, anything else as JSON."""
    found = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found if len(found) <= LONGEST else f"{found[: LONGEST - 20]}… (cut)"


def finite_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the entries that are finite numbers, without ``step``."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if name != "step"
    }


def step_and_numbers(line: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """Return the step and the finite numbers of an evaluation; those of an ensemble's network bear its seed.

    Its steps go on where those of the network before it ended, because a tracker's never go back.
    """
    numbers = finite_numbers(line)
    if "member" not in line:
        return int(line["step"]), numbers
    own = {name: value for name, value in numbers.items() if name not in ("member", "total_step")}
    return int(line["total_step"]), {f"seed-{line['member']}/{name}": value for name, value in own.items()}


def without_secrets(said: str) -> str:
    """Return the first line of a library's message without what the environment keeps secret.

    That is the value of every variable whose name speaks of a key, token, secret or password, and user and
    password of any address.
    """
    line = said.strip().splitlines()[0] if said.strip() else ""
    secrets = {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) > 3}
    for secret in sorted(secrets, key=len, reverse=True):
        line = line.replace(secret, "***")
    return _USER_IN_URL.sub("://***@", line)[:300]
