"""The folders of an ensemble's networks, and the one curve file that holds all of theirs.

::

    runs/<model>-<id>/
        members/<seed>/    checkpoint, metrics.jsonl and weights.safetensors of one network, a run of its own
        metrics.jsonl      every member's lines, in order, with `member` (its seed) and `total_step`
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from barcast.core.atomic import write_text
from barcast.core.runs import RunFolder

#: What every member must take from the run, so that each computes as the first one did.
_SHARED = ("threads", "num_processes")


@dataclass(frozen=True)
class MemberFolder(RunFolder):
    """The folder of one network, whose lines go into the run's own metrics too.

    Attributes
    ----------
    whole : RunFolder
        The ensemble's run.
    seed : int
    steps_before : int
        Steps of the members before it.
    """

    whole: RunFolder
    seed: int
    steps_before: int

    def append_metrics(self, values: Mapping[str, Any]) -> None:
        """Append one line here and, with the member's seed, to the run's."""
        super().append_metrics(values)
        self.whole.append_metrics(self._told(values))

    def keep_metrics(self, until_step: int) -> None:
        """Forget lines later than ``until_step``, here and in the run's file."""
        super().keep_metrics(until_step)
        self.tell_again()

    def tell_again(self) -> None:
        """Write the run's file anew: the lines of the members before this one, then its own."""
        lines = [line for line in self.whole.read_metrics() if line["total_step"] <= self.steps_before]
        lines += [self._told(line) for line in self.read_metrics()]
        write_text(self.whole.metrics, "".join(json.dumps(line) + "\n" for line in lines))

    def _told(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"member": self.seed, "total_step": self.steps_before + values["step"], **values}


def open_member(run: RunFolder, seed: int, steps_before: int) -> MemberFolder:
    """Make the folder of a member, or take up an unfinished one."""
    member = MemberFolder(run.path / "members" / str(seed), run, seed, steps_before)
    member.path.mkdir(parents=True, exist_ok=True)
    shared = {name: run.recorded[name] for name in _SHARED if name in run.recorded}
    member.write("run.json", {"name": f"{run.name}/{seed}", "seed": seed, **member.recorded, **shared})
    if not member.checkpoint.is_file():
        member.metrics.unlink(missing_ok=True)
    member.tell_again()
    return member


def share_back(member: MemberFolder) -> None:
    """Let the run know what its first member has measured, for the others and for later attempts."""
    found = {name: member.info[name] for name in _SHARED if name in member.info}
    if found and member.whole.recorded:
        member.whole.update(**found)


def drop_checkpoints(run: RunFolder) -> None:
    """Remove the checkpoints of a run and of its members."""
    for path in (run.checkpoint, *run.path.glob(f"members/*/{run.checkpoint.name}")):
        path.unlink(missing_ok=True)


def curves(run: RunFolder) -> dict[int | None, list[dict[str, Any]]]:
    """Return the evaluations of each network by its seed, in order; the seed of a single one is None."""
    found: dict[int | None, list[dict[str, Any]]] = {}
    for line in run.read_metrics():
        found.setdefault(line.get("member"), []).append(line)
    return found
