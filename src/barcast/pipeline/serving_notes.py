"""What a user is told beside a forecast: an old model, a stale store, symbols that no training ever saw."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np

from barcast.core.arrays import I64
from barcast.core.bars import Bars
from barcast.core.calendar import exchange_days
from barcast.core.champion import is_champion
from barcast.core.errors import RunError
from barcast.core.runs import RunFolder, command_to_type
from barcast.core.texts import Text
from barcast.core.workspace import Workspace
from barcast.pipeline.record import oldest_taught_until

#: Sessions since the last training label: a warning, then a refusal.
OLD_SESSIONS, TOO_OLD_SESSIONS = 63, 252
#: Sessions that a store may be behind today before somebody must have forgotten to update it.
STALE_SESSIONS = 5


def age_warnings(workspace: Workspace, run: RunFolder, bars: Bars, asof: str, allow_old: bool) -> list[Text]:
    """Say when a run was taught long before the forecast; refuse after a year, unless that is allowed.

    A refreshed fleet is as old as its oldest model.

    Raises
    ------
    RunError
        When the last training label is more than a year old and ``allow_old`` is not set.
    """
    info, taught = run.info, oldest_taught_until(run)
    mixed = taught < info["taught_until"]
    was = "has models that were" if mixed else "was"
    # A refit as of the same session can answer it; one that knows what came later cannot.
    until = ["--asof", str(bars.calendar.times[-1])] if asof else []
    parent = info.get("parent", run.name)
    command = command_to_type(workspace, "train", "--refit", parent, *until)
    if not asof and is_champion(workspace, run.name):
        command += f" && {command_to_type(workspace, 'promote', parent)}"
    later = bars.calendar.times > np.datetime64(taught)
    age = int(later.sum()) // bars.calendar.bars_per_day
    if age > TOO_OLD_SESSIONS and not allow_old:
        anyway = command_to_type(workspace, "predict", run.name, *until, "--allow-old")
        raise RunError(
            f"`{run.name}` {was} taught by labels known until {taught}, {age} trading days before the "
            "forecast",
            f"refit it on everything known: {command}   (or as it is: {anyway})",
        )
    if age <= OLD_SESSIONS:
        return []
    return [
        Text(
            f"{run.name} {was} taught by labels known until {taught} only, {age} trading days ago; refit it "
            f"on everything known before you use a forecast: {command}",
            f"{run.name}{' 中有模型' if mixed else ' '}只学到 {taught} 为止已知的标签，距今 {age} 个交易日；"
            f"使用预测前请用全部已知数据重新拟合：{command}",
        )
    ]


def session_warnings(bars: Bars, asof: str) -> list[Text]:
    """Say which session answers for a day without one, and when it is clearly older than it should be."""
    last, today = bars.calendar.days[-1].item(), _today()
    if asof and (asked := datetime.fromisoformat(asof).date()) != last:
        text = Text(
            f"as of {asof}: the last stored session up to then is {last}",
            f"截至 {asof}：到那时为止仓库中的最后一个交易日是 {last}",
        )
        return [text, *_stale_warnings(bars, last, min(asked, today))]
    return [] if asof else _stale_warnings(bars, last, today)


def _stale_warnings(bars: Bars, last: date, today: date) -> list[Text]:
    """Say when the newest bar is clearly older than ``today``."""
    missed = len(exchange_days(bars.calendar.name, last + timedelta(days=1), today)) if last < today else 0
    if missed <= STALE_SESSIONS:
        return []
    return [
        Text(
            f"the newest bar is of {last}, about {missed} sessions before {today}: these forecasts start "
            f"there. Bring newer bars (barcast data update), or say --asof {last} to mean it",
            f"最新一根 K 线是 {last}，距 {today} 约 {missed} 个交易日：预测从那时起算。"
            f"请更新数据（barcast data update），或用 --asof {last} 明确指定",
        )
    ]


def _today() -> date:
    return datetime.now(UTC).date()


def unknown_warnings(bars: Bars, rows: I64, vocabulary: Sequence[str]) -> list[Text]:
    """Say how many symbols of forecast rows (n,) a model does not know that knows others by name."""
    known = set(vocabulary)
    unknown = [name for row in rows if (name := bars.symbols[bars.symbol_of_row[row]]) not in known]
    if not unknown:
        return []
    names = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
    return [
        Text(
            f"{len(unknown)} of {len(rows)} symbols never taught this run ({names}): their forecasts come "
            "from their bars alone, with an unknown identity",
            f"{len(rows)} 个标的中有 {len(unknown)} 个未参与本次训练（{names}）："
            "其预测只来自自身的 K 线，身份按未知处理",
        )
    ]
