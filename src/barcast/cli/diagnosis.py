"""How a diagnosis is printed: a short table, then what stands behind each line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from barcast.cli.show import table
from barcast.core.texts import Text

if TYPE_CHECKING:
    from barcast.core.texts import Language
    from barcast.diagnosis.verdicts import Verdict
    from barcast.pipeline.diagnose import Diagnosis

_LEARNING, _SPEED = Text("learning", "学习"), Text("speed", "速度")
_HEADS = (Text("", ""), Text("verdict", "结论"), Text("what to type", "可执行的命令"))
_LABELS = (Text("found", "发现"), Text("how sure", "依据"), Text("to do", "建议"))
_NOT_PROFILED = Text("not profiled", "未做性能剖析")
_NO_STEPS = Text("no steps to profile", "没有可剖析的训练步")
_WHERE = Text("Where the time goes", "时间去向")
_OTHERS = Text("Other settings, measured", "其他设置（实测）")


def print_diagnosis(found: Diagnosis, language: Language = "en") -> None:
    """Print the verdicts on a run."""
    from barcast.diagnosis.verdicts import NOTHING_FOUND

    said = [(_LEARNING, verdict) for verdict in found.learning]
    said += [(_SPEED, found.speed)] if found.speed else []
    rows = [(part.in_language(language), v.title.in_language(language), v.command) for part, v in said]
    if not found.learning:
        rows.insert(0, (_LEARNING.in_language(language), NOTHING_FOUND.in_language(language), ""))
    if found.speed is None:
        why = _NOT_PROFILED if found.profile_command else _NO_STEPS
        rows.append((_SPEED.in_language(language), why.in_language(language), found.profile_command))
    table(found.run, [(head.in_language(language), "left") for head in _HEADS], rows)
    for _, verdict in said:
        _print_verdict(verdict, language)
    for note in found.notes:
        typer.echo(note.in_language(language))
    if found.profile:
        print_profile(found.profile, language, verdict=False)


def _print_verdict(verdict: Verdict, language: Language) -> None:
    typer.echo(f"{verdict.title.in_language(language)}:")
    for label, text in zip(_LABELS, (verdict.found, verdict.sure, verdict.todo), strict=True):
        typer.echo(f"  {label.in_language(language)}: {text.in_language(language)}")


def print_profile(profile: Mapping[str, Any], language: Language = "en", *, verdict: bool = True) -> None:
    """Print the sections of a profiled training, its verdict and the settings that were tried."""
    from barcast.diagnosis.speed import SECTION_NAMES, speed_verdict, trial_row

    heads = {"en": ("", "seconds", "share", "mean a step", "median a step"),
             "zh": ("", "秒", "占比", "每步均值", "每步中位数")}[language]  # fmt: skip
    rows = [
        (SECTION_NAMES[line["name"]].in_language(language), f"{line['seconds']:.2f}", f"{line['share']:.1%}",
         _milliseconds(line.get("step_mean")), _milliseconds(line.get("step_median")))
        for line in profile["sections"]
    ]  # fmt: skip
    columns = [(head, "left" if not head else "right") for head in heads]
    table(f"{_WHERE.in_language(language)}: {profile['wall_seconds']:.1f} s", columns, rows)
    if verdict:
        _print_verdict(speed_verdict(profile), language)
    tried = {"en": ("", "labels", "gain (range)", "what it changes"),
             "zh": ("", "标签", "提速（范围）", "影响")}[language]  # fmt: skip
    columns = [(head, "left" if i in (0, 3) else "right") for i, head in enumerate(tried)]
    table(_OTHERS.in_language(language), columns, [trial_row(trial, language) for trial in profile["trials"]])


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.2f} ms"
