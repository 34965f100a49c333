"""``barcast doctor RUN``: gather what a run left behind and what its weights say now, and judge it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from barcast.core.arrays import F64, I64
from barcast.core.errors import RunError
from barcast.core.progress import Progress, count
from barcast.core.runs import RunFolder, command_to_type, path_to_type
from barcast.core.texts import Text, some
from barcast.core.workspace import Workspace
from barcast.diagnosis.evidence import Evidence, Rows, lagged_values, ridge_probe, sample_rows
from barcast.diagnosis.learning import constant_inputs, verdicts
from barcast.diagnosis.speed import speed_verdict
from barcast.diagnosis.verdicts import Verdict
from barcast.evaluation.words import spaced
from barcast.models.heads import head_of
from barcast.models.registry import model_entry
from barcast.pipeline.attributes import attributes_of
from barcast.pipeline.compare import market_again
from barcast.pipeline.dataset import Dataset, build_dataset, run_features
from barcast.pipeline.load import check_one_model, load
from barcast.pipeline.members import curves
from barcast.pipeline.record import PROFILE
from barcast.pipeline.settings import RunConfig, from_run
from barcast.pipeline.settings_file import RECORDED
from barcast.pipeline.warm import source_of_refit

if TYPE_CHECKING:
    from torch import nn

#: Rows of `fit`, and of `weigh` and `route`, that are forecast again.
MOST_ROWS = 20_000
#: Rows whose recurrent states are looked at, and what counts as at a bound.
STATE_ROWS, AT_BOUND = 512, 0.99
#: Own bars beyond a label's reach to which a shift is looked for, and the most of all.
BEYOND, MOST_LAG = 5, 30


@dataclass(frozen=True)
class Diagnosis:
    """What ``doctor`` found out about a run.

    Attributes
    ----------
    run : str
    learning : tuple of Verdict
        The cause first; empty for a healthy run.
    speed : Verdict or None
        None where the run was not profiled.
    profile : dict or None
        Content of profile.json.
    profile_command : str
        What would profile the same training; empty for a model without steps.
    notes : tuple of Text
        Numbers and remarks that are no verdict.
    """

    run: str
    learning: tuple[Verdict, ...]
    speed: Verdict | None
    profile: dict[str, Any] | None
    profile_command: str
    notes: tuple[Text, ...]

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON, in English."""
        return {
            "run": self.run,
            "learning": [verdict.plain() for verdict in self.learning],
            "speed": self.speed.plain() if self.speed else None,
            "profile": self.profile,
            "profile_command": self.profile_command,
            "notes": [note.en for note in self.notes],
        }


def diagnose(workspace: Workspace, run: RunFolder, *, progress: Progress | None = None) -> Diagnosis:
    """Judge the learning and the speed of an evaluated run; of one without weights only its curve.

    Raises
    ------
    RunError
        When the run is a refit, which has nothing beside it to judge it by; when the store is of another
        market, or no longer has the rows that a finished run was made from.
    """
    progress = progress or Progress(enabled=False)
    config = from_run(run.read(RECORDED))
    check_one_model(run)
    if parent := run.info.get("parent"):
        raise RunError(f"`{run.name}` is a refit: its evidence is its parent's", f"barcast doctor {parent}")
    found = _from_curve(workspace, run, config)
    notes = [_rate_note(run)] if found.curve else []
    if config.num_seeds > 1:
        notes.append(
            Text(
                f"of {config.num_seeds} seeds: the curve judged is the first network's ({config.seed})",
                f"共 {config.num_seeds} 个种子：所判断的训练曲线属于第一个网络（种子 {config.seed}）",
            )
        )
    if run.is_done:
        dataset = _dataset(workspace, run, config, progress)
        found = _from_rows(found, workspace, run, config, dataset, progress)
        notes += _notes(found, dataset)
    else:
        notes.append(Text("not finished: only its curve is judged", "尚未完成：只能判断训练曲线"))
    profile = run.read(PROFILE) if (run.path / PROFILE).is_file() else None
    speed = None if profile is None else speed_verdict(profile)
    again = found.again("--fresh", "--profile")
    return Diagnosis(run.name, tuple(verdicts(found)), speed, profile, again, tuple(notes))


def _command(workspace: Workspace, run: RunFolder, config: RunConfig) -> str:
    """Return what trains the run once more: by its recorded options, on what was known then.

    What was typed would not do: nothing was for a run of Python or of `retrain`, and it says neither what the
    workspace's settings were then nor what the store held. Only how many processes shared it is told there.
    """
    recorded, cutoff = path_to_type(run.path / RECORDED), str(run.info["cutoff"])
    command = command_to_type(workspace, "train", config.model, "--config", recorded, "--asof", cutoff)
    typed = str(run.info.get("command", ""))
    return typed.partition("barcast ")[0] + command if typed.startswith("torchrun ") else command


def _from_curve(workspace: Workspace, run: RunFolder, config: RunConfig) -> Evidence:
    train = config.train
    return Evidence(
        curve=next(iter(curves(run).values()), []),
        lr=None if train is None else train.lr,
        epochs=0 if train is None else train.epochs,
        batch_size=0 if train is None else train.batch_size,
        reason=str(run.info.get("reason") or ""),
        command=_command(workspace, run, config),
        audit=command_to_type(workspace, "audit", run.name),
    )


def _dataset(workspace: Workspace, run: RunFolder, config: RunConfig, progress: Progress) -> Dataset:
    """Return the rows that a run was trained on, made again from the store version that it cites."""
    market = market_again(workspace, run, progress)
    tabular = model_entry(config.model).kind == "tabular"
    features = run_features(run, run.read("state.json")["feature_set"])
    attributes = attributes_of(workspace, config, market)
    return build_dataset(market, workspace, features, tabular=tabular, attributes=attributes)


def _from_rows(
    found: Evidence, workspace: Workspace, run: RunFolder, config: RunConfig, dataset: Dataset,
    progress: Progress,
) -> Evidence:  # fmt: skip
    """Add what the weights say now of rows that taught and of rows that chose nothing."""
    session = dataset.market.bars.session.astype(np.int64)
    fit, spacing = sample_rows(np.flatnonzero(dataset.teach), session, MOST_ROWS)
    held, held_spacing = sample_rows(dataset.rows_to_judge("weigh", "route"), session, MOST_ROWS)
    progress.note(f"forecasting {count(len(fit))} rows of fit, {count(len(held))} of weigh and route")
    model = load(workspace, run).module
    entry, head = model_entry(config.model), head_of(dataset.target_name)
    column = int(np.argmin(config.data.horizons))
    probes: list[F64 | None] = [None, None]
    if not dataset.features.window_normalised:
        probes = [*ridge_probe(dataset.inputs, dataset.target[:, column].astype(np.float64), fit, held)]
    if entry.kind == "tabular":
        scores = model.predict(dataset.inputs[np.concatenate([fit, held])])
    else:
        before = _network_before(workspace, run, config, dataset)
        scores, facts = _network_scores(model, config, dataset, np.concatenate([fit, held]), before)
        scores = head.scores(scores)
        if head.loss is None:
            labels = dataset.target[dataset.teach]
            facts["null_loss"] = float(np.nanmean(np.square(labels, dtype=np.float64)))
        found = replace(found, **facts)  # type: ignore[arg-type]
    scores = np.asarray(scores[:, column], np.float64)
    single = len(config.data.horizons) == 1
    return replace(
        found,
        fit=_rows(dataset, fit, scores[: len(fit)], probes[0], column, spacing, lags=single),
        held=_rows(dataset, held, scores[len(fit) :], probes[1], column, held_spacing, lags=False),
        one_horizon=single,
    )


def _network_scores(
    model: nn.Module, config: RunConfig, dataset: Dataset, rows: I64, before: nn.Module | None
) -> tuple[Any, dict[str, float | None]]:
    """Return outputs (n, ...) of a network, how far it moved and how saturated its states are."""
    from barcast.pipeline.fit import host_data
    from barcast.training.predict import predict_windows

    assert config.train is not None
    window = config.train.look_back_window
    resident = host_data(dataset, np.zeros(len(dataset.market.bars), bool)).resident
    some_rows = rows[:: max(len(rows) // STATE_ROWS, 1)]
    facts = {
        "moved": None if before is None else _moved(before, model),
        "saturated": _saturated(model, lambda: predict_windows(model, resident, some_rows, window)),
    }
    return predict_windows(model, resident, rows, window), facts


def _network_before(
    workspace: Workspace, run: RunFolder, config: RunConfig, dataset: Dataset
) -> nn.Module | None:
    """Return the network that training began with; None where it was another run's, which is gone."""
    from barcast.pipeline.fit import fresh_network

    try:
        start = source_of_refit(workspace, run)
    except RunError:
        return None
    head = head_of(dataset.target_name)
    before = fresh_network(model_entry(config.model), config, dataset, head, "cpu", config.seed)
    if start is not None:
        start.give(before, dataset, 0)
    return before


def _moved(before: nn.Module, after: nn.Module) -> float:
    """Return how far all but embeddings is from where it began, relative to its size then.

    An ensemble is judged by its first network.
    """
    from barcast.models.ensemble import members_of

    first = members_of(after)[0]
    then, now = dict(before.named_parameters()), dict(first.named_parameters())
    pairs = [(then[name].detach(), now[name].detach()) for name in then if "embedding" not in name]
    apart = sum(float((b - a).square().sum()) for a, b in pairs)
    size = sum(float(a.square().sum()) for a, _ in pairs)
    return float(np.sqrt(apart / max(size, 1e-30)))


def _saturated(model: nn.Module, forecast: Any) -> float | None:
    """Return the share of recurrent states at their bounds, None without such layers."""
    from torch import nn

    shares: list[float] = []

    def look(module: nn.Module, given: Any, output: Any) -> None:
        shares.append(float((output[0].abs() > AT_BOUND).float().mean()))

    layers = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    hooks = [layer.register_forward_hook(look) for layer in layers]
    if not hooks:
        return None
    try:
        forecast()
    finally:
        for hook in hooks:
            hook.remove()
    return float(np.mean(shares))


def _rows(
    dataset: Dataset, rows: I64, score: F64, probe: F64 | None, column: int, spacing: int, *, lags: bool
) -> Rows:
    market, target = dataset.market, dataset.target[:, column]
    spec, symbol = market.labels.spec, market.bars.symbol_of_row.astype(np.int64)
    reach = min(spec.horizons) + spec.delay
    most = min(reach + BEYOND, MOST_LAG) if lags else 0
    around = [lag for lag in range(-most, most + 1) if lag]
    return Rows(
        session=market.bars.session[rows].astype(np.int64),
        symbol=symbol[rows],
        score=score,
        target=target[rows].astype(np.float64),
        y=market.labels.y[rows, column],
        probe=probe,
        lagged={lag: lagged_values(target, symbol, rows, lag) for lag in around},
        reach=-(-reach // spacing),
        across=not market.small_universe,
    )


def _rate_note(run: RunFolder) -> Text:
    """Say how fast the training was, which metrics.jsonl knows even without a profile."""
    line = run.read_metrics()[-1]
    rate, seconds = count(line["labels_per_second"]), line["seconds"]
    return Text(
        f"training: {rate} labels/s over {seconds:.0f} s, evaluation left out",
        f"训练：{rate} 个标签/秒，共 {seconds:.0f} 秒（不含评估）",
    )


def _notes(found: Evidence, dataset: Dataset) -> list[Text]:
    notes = []
    for rows, name in ((found.fit, "fit"), (found.held, "weigh + route")):
        if rows is not None:
            skill = rows.skill(rows.score)
            kind = Text("RankIC", "RankIC") if rows.across else Text("correlation", "相关系数")
            number = f"{len(rows.score):,}"
            notes.append(
                Text(
                    f"{kind.en} on {name}: {skill}, {number} rows",
                    f"{name} 上的{spaced(kind.zh)}：{skill}，{number} 行",
                )
            )
    sample = dataset.inputs[np.flatnonzero(dataset.teach)[:: max(int(dataset.teach.sum()) // MOST_ROWS, 1)]]
    if still := constant_inputs(sample[:, :-1], tuple(dataset.features.names)):
        notes.append(Text(f"features that never vary: {some(still)}", f"始终不变的特征：{some(still)}"))
    return notes
