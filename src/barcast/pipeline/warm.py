"""Warm start: a network begins with the weights of a finished run, its embeddings moved symbol by symbol.

What a source knows comes along with its weights, so it may know nothing that is to judge the new run: labels
that taught it must be known by the end of the new run's `fit`, labels that stopped it before the new run's
`weigh`. What the source's own warm start brought in counts as the source's. Score maps are not taken over,
so a source's `weigh` does not matter.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from barcast.core.arrays import I64
from barcast.core.champion import ALIAS, read_champions
from barcast.core.errors import RunError, UsageError
from barcast.core.runs import RunFolder, open_run
from barcast.core.workspace import Workspace
from barcast.features import FeatureSet
from barcast.pipeline.dataset import Dataset
from barcast.pipeline.market import Market
from barcast.pipeline.settings import RunConfig, from_run
from barcast.pipeline.unfinished import check_done

if TYPE_CHECKING:
    from torch import Tensor, nn

#: What stands before the names of an ensemble's weights.
_MEMBER = re.compile(r"^members\.\d+\.")


@dataclass(frozen=True)
class WarmSource:
    """A finished run whose weights training begins with.

    Attributes
    ----------
    run : str
    digest : str
        Of its weights.
    taught_until, stopped_until : str
        When the last label became known that taught it, and that stopped it or chose its options.
    folder : RunFolder
    """

    run: str
    digest: str
    taught_until: str
    stopped_until: str
    folder: RunFolder

    def plain(self) -> dict[str, str]:
        """Return what run.json records."""
        return {name: str(value) for name, value in asdict(self).items() if name != "folder"}

    @property
    def known_until(self) -> str:
        """When the last label became known that is in its weights."""
        return max(self.taught_until, self.stopped_until)

    def give(self, network: nn.Module, dataset: Dataset, place: int) -> None:
        """Put the source's weights into a network; of an ensemble those of its network ``place``.

        Raises
        ------
        RunError
            When the weights are missing, damaged or of another shape.
        """
        from barcast.training.checkpoint import load_tensors, unpack

        tensors = load_tensors(self.folder.weights)[0]
        own = unpack(f"members.{place}", tensors) or tensors
        state = self.folder.read("state.json")
        try:
            network.load_state_dict(moved_weights(own, state, dataset.vocabulary, dataset.attributes))
        except RuntimeError as error:
            raise RunError(
                f"the weights of `{self.run}` do not fit this network: {error}",
                "leave --warm-start out, or name a run of the same options",
            ) from error


def moved_weights(
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    vocabulary: Sequence[str],
    attributes: Mapping[str, Sequence[str]],
) -> dict[str, Tensor]:
    """Return a run's weights with its embeddings in the order of other vocabularies.

    Symbols and values that the run (of which ``state`` tells) does not know take row 0, "unknown".
    """
    import torch

    from barcast.models.identity import ATTRIBUTE_TABLES, OWN_TABLE

    rows = {OWN_TABLE: _places(state["vocabulary"], vocabulary)}
    for place, (name, values) in enumerate(attributes.items()):
        rows[f"{ATTRIBUTE_TABLES}.{place}.weight"] = _places(state["attributes"][name], values)
    own_names = {name: _MEMBER.sub("", name) for name in tensors}
    return {
        name: tensor[torch.from_numpy(rows[own_names[name]])] if own_names[name] in rows else tensor
        for name, tensor in tensors.items()
    }


def _places(known: Sequence[str], wanted: Sequence[str]) -> I64:
    place = {name: row for row, name in enumerate(known, start=1)}
    return np.array([0, *(place.get(name, 0) for name in wanted)], np.int64)


def warm_source(
    workspace: Workspace, config: RunConfig, market: Market, features: FeatureSet
) -> WarmSource | None:
    """Return the run that training begins from, checked; None where it begins from fresh weights.

    Raises
    ------
    RunError
        When the source is not finished, a refit, of another shape, or knows what is to judge the new run.
    """
    if config.train is None or not config.train.warm_start:
        return None
    run = _evaluated(workspace, config.train.warm_start)
    check_done(run)
    if run.info.get("final"):
        parent = run.info["parent"]
        raise RunError(
            f"`{run.name}` is a refit: every label known until {run.info['taught_until']} taught it, also "
            "those that are to stop, calibrate and judge this run",
            f"start from the run that it was refitted from: --warm-start {parent}",
        )
    if run.path.resolve().parent != workspace.runs.resolve():
        raise UsageError(f"{run.path} is no run of {workspace.root}", "name one of its own: barcast runs")
    _check_same_shape(run, config, market, features)
    source = _source(run)
    _check_knows_nothing_later(source, market)
    return source


def _evaluated(workspace: Workspace, name: str) -> RunFolder:
    """Return the named run; for ``champion`` the one that was evaluated: what serves may be its refit."""
    if name != ALIAS:
        return open_run(workspace, name)
    champions = read_champions(workspace)
    if champions is None:
        raise RunError("there is no champion to start from", "barcast promote RUN, or --warm-start RUN")
    return open_run(workspace, champions.current.evaluated)


def source_of_refit(workspace: Workspace, parent: RunFolder) -> WarmSource | None:
    """Return what a run was started from, for its refit to start from the same weights.

    Raises
    ------
    RunError
        When the source is gone, or its weights are no longer the same.
    """
    told = parent.info.get("warm_start")
    if told is None:
        return None
    folder = RunFolder(workspace.runs / told["run"])
    if not folder.weights.is_file() or weights_digest(folder) != told["digest"]:
        found = "has other weights now" if folder.weights.is_file() else "is gone"
        raise RunError(
            f"`{parent.name}` was started from `{told['run']}`, which {found}: its refit starts there too",
            f"bring {folder.path} back, or train without --warm-start",
        )
    return WarmSource(**told, folder=folder)


def weights_digest(run: RunFolder) -> str:
    """Return the digest of a run's weights."""
    return hashlib.blake2b(run.weights.read_bytes(), digest_size=16).hexdigest()


def _source(run: RunFolder) -> WarmSource:
    info, before = run.info, run.info.get("warm_start", {})
    stop_ends = str(run.read("state.json")["segments"]["stop"][1])
    return WarmSource(
        run.name,
        weights_digest(run),
        max(str(info["taught_until"]), before.get("taught_until", "")),
        max(stop_ends, before.get("stopped_until", ""), info.get("tuned_until", "")),
        run,
    )


def _check_knows_nothing_later(source: WarmSource, market: Market) -> None:
    """Refuse a source whose weights hold what is to judge the new run."""
    times, spans = market.bars.calendar.times, market.plan.spans
    fit_ends, weigh_begins = times[spans["fit"][1]], times[spans["weigh"][0]]
    todo = "an older run, later --segments, or fresh weights"
    if np.datetime64(source.taught_until) > fit_ends:
        raise RunError(
            f"`{source.run}` was taught by labels known until {source.taught_until}, and `fit` of this run "
            f"ends {fit_ends}: its weights know what is to stop and judge this run",
            todo,
        )
    if np.datetime64(source.stopped_until) >= weigh_begins:
        raise RunError(
            f"`{source.run}` was stopped by labels known until {source.stopped_until}, and `weigh` of this "
            f"run begins {weigh_begins}: its weights were chosen by what is to judge this run",
            todo,
        )


def _check_same_shape(run: RunFolder, config: RunConfig, market: Market, features: FeatureSet) -> None:
    """Refuse a source of another model, features, horizons, head or width, naming the first that differs."""
    other, state = from_run(run.read("config.json")), run.read("state.json")
    pairs: dict[str, tuple[Any, Any]] = {"model": (other.model, config.model)}
    if other.model == config.model:
        pairs |= {name: (getattr(other.options, name), value) for name, value in vars(config.options).items()
                  if not name.endswith("dropout")}  # fmt: skip
    for name in ("features", "horizons", "target"):
        pairs[name] = (getattr(other.data, name), getattr(config.data, name))
    if other.num_seeds > 1:  # one network may begin all of them, several must have one each
        pairs["num_seeds"] = (other.num_seeds, config.num_seeds)
    if config.data.hold_out_fold >= 0:  # who is held out here must not have taught there
        pairs["hold_out_fold"] = (other.data.hold_out_fold, config.data.hold_out_fold)
    pairs["small_universe"] = (state["small_universe"], market.small_universe)
    pairs["features_code"] = (run.info["features_code"], features.code_digest())
    for name, (there, here) in pairs.items():
        if there != here:
            raise UsageError(
                f"`{run.name}` has {name} {_shown(there)}, this run {_shown(here)}: its weights do not fit",
                "the same options as its own, or no --warm-start",
            )


def _shown(value: object) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
