"""``barcast train --range-test``: a learning rate for a model on the data of a workspace; trains no run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast.core.atomic import write_json, write_text
from barcast.core.config import digest, to_plain
from barcast.core.errors import UsageError
from barcast.core.progress import Progress, count
from barcast.core.workspace import Workspace
from barcast.models.heads import head_of
from barcast.models.registry import model_entry
from barcast.pipeline.attributes import attributes_of
from barcast.pipeline.dataset import build_dataset, resolve_features
from barcast.pipeline.fit import network_and_data
from barcast.pipeline.market import load_market
from barcast.pipeline.settings import RunConfig
from barcast.pipeline.train import check_look_back, in_one_spelling
from barcast.reports.rate_curve import rate_curve

#: Options of a training that a test of a few hundred steps on fresh weights has no use for.
_UNREAD = (
    "epochs", "warmup", "evaluations_per_epoch", "patience", "num_seeds", "warm_start", "checkpoint_seconds",
    "final", "refit", "fresh", "open_test", "no_report", "output_dir", "profile", "track", "track_project",
    "track_workspace", "track_online", "dry_run",
)  # fmt: skip
_FLAGS = {"num_seeds": "seeds"}


@dataclass(frozen=True)
class RangeTested:
    """A range test and where it is written.

    Attributes
    ----------
    model : str
    lr : float
        The rate that a training would have taken.
    suggested, steepest, lowest, diverged : float or None
        The rate to take; where the loss fell fastest, was lowest, ran away.
    rates, losses, smooth : tuple of float
        The curve.
    json_file, picture : Path
    """

    model: str
    lr: float
    suggested: float
    steepest: float | None
    lowest: float | None
    diverged: float | None
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    json_file: Path
    picture: Path

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        found: dict[str, Any] = to_plain(self)
        return found


def check_read(given: Mapping[str, Any]) -> None:
    """Refuse options (by name; None and False are not given) that a range test would not read.

    Raises
    ------
    UsageError
        Naming all of them.
    """
    unread = [n for n, value in given.items() if n in _UNREAD and value is not None and value is not False]
    if unread:
        flags = ", ".join(f"--{_FLAGS.get(name, name).replace('_', '-')}" for name in unread)
        raise UsageError(
            f"a range test makes no run and does not read {flags}",
            "leave them out, or leave --range-test out",
        )


def range_test(
    workspace: Workspace, config: RunConfig, *, progress: Progress | None = None, num_steps: int | None = None
) -> RangeTested:
    """Raise the learning rate from 1e-6 to 1 on fresh weights and `fit`, and say which rate to take.

    The curve goes into ``range-tests/`` of the workspace, as JSON and as a picture; there is no run.

    Raises
    ------
    UsageError
        For a model that the loop does not train.
    """
    from barcast.training.range_test import NUM_STEPS
    from barcast.training.range_test import range_test as measure

    entry = model_entry(config.model)
    if config.train is None:
        raise UsageError(f"`{config.model}` has no learning rate to test", "barcast train lstm --range-test")
    progress = progress or Progress(enabled=False)
    features = resolve_features(workspace, config.data.features)
    market = load_market(workspace, config.data)
    config = in_one_spelling(config, market)
    check_look_back(config, market)
    attributes = attributes_of(workspace, config, market)
    dataset = build_dataset(market, workspace, features, tabular=False, attributes=attributes)
    progress.note(f"range test of {config.model} on {count(int(dataset.teach.sum()))} rows")
    head = head_of(dataset.target_name)
    network, data, options = network_and_data(entry, config, dataset, head)
    loss = head.loss or entry.loss
    assert loss is not None
    found = measure(network, data, options, loss, progress, num_steps=num_steps or NUM_STEPS)
    name = f"{config.model}-{digest({**config.identity(), 'data': market.data_digest})[:12]}"
    place = workspace.root / "range-tests" / name
    tested = RangeTested(
        config.model, options.lr, found.suggested, found.steepest, found.lowest, found.diverged,
        found.rates, found.losses, found.smooth, place.with_suffix(".json"), place.with_suffix(".svg"),
    )  # fmt: skip
    marks = [(found.suggested, "#1a7f37", f"suggested {found.suggested:.2g}")]
    marks += [(rate, "#9a6700", f"falls fastest at {rate:.2g}") for rate in (found.steepest,) if rate]
    marks += [(rate, "#cf222e", f"runs away at {rate:.2g}") for rate in (found.diverged,) if rate]
    write_json(tested.json_file, tested.plain())
    title = f"{config.model}, {features.name}: learning rate range test"
    write_text(tested.picture, rate_curve(title, found.rates, found.losses, found.smooth, marks))
    return tested
