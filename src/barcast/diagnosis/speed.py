"""What binds the speed of a training, and which change would help most: read off a profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from barcast.core.progress import count
from barcast.core.texts import Text
from barcast.diagnosis.verdicts import Verdict

#: Share of a step from which bringing the data is what binds it.
DATA_SHARE = 0.4
#: Share of a step that half the batch does not save, from which starting work is what binds it.
FIXED_SHARE = 0.5
#: A gain that any round falls short of is no gain.
LEAST_GAIN = 1.05
#: Share of the wall time from which judging is worth a word.
JUDGING_SHARE = 0.25

SECTION_NAMES = {
    "gather": Text("gather", "取数"),
    "transfer": Text("transfer", "传输"),
    "forward": Text("forward", "前向"),
    "backward": Text("backward", "反向"),
    "optimizer": Text("optimizer", "优化器"),
    "evaluation": Text("evaluation", "评估"),
    "saving": Text("logging and saving", "记录与保存"),
    "other": Text("other", "其他"),
}


def speed_numbers(
    sections: list[dict[str, Any]], trials: list[dict[str, Any]], work: Mapping[str, float]
) -> dict[str, float | None]:
    """Return what the verdict reads.

    Parameters
    ----------
    sections : list of dict
        From `plain_sections`.
    trials : list of dict
        From `Trial.plain`; the present setting first.
    work : mapping
        ``flops`` and ``bytes`` of a step, ``peak_flops`` and ``peak_bytes`` a second of the device.
    """
    spent = {line["name"]: line.get("step_mean", 0.0) for line in sections}
    step = sum(spent.values()) or 1.0
    now = trials[0]["step_seconds"]
    half = next((trial["step_seconds"] for trial in trials if trial["name"] == "half the batch"), None)
    # seconds of a step = fixed + labels x rate, a line through the whole and the half batch
    fixed = None if half is None else min(max(2 * half / now - 1, 0.0), 1.0)
    return {
        "data_share": (spent["gather"] + spent["transfer"]) / step,
        "fixed_share": fixed,
        "arithmetic_share": work["flops"] / now / work["peak_flops"],
        "bandwidth_share": work["bytes"] / now / work["peak_bytes"],
    }


def binding(numbers: Mapping[str, float | None]) -> str:
    """Return ``data``, ``launches``, ``arithmetic`` or ``memory``."""
    if (numbers["data_share"] or 0.0) >= DATA_SHARE:
        return "data"
    if (numbers["fixed_share"] or 0.0) >= FIXED_SHARE:
        return "launches"
    arithmetic, bandwidth = numbers["arithmetic_share"] or 0.0, numbers["bandwidth_share"] or 0.0
    return "arithmetic" if arithmetic >= bandwidth else "memory"


_TITLES = {
    "data": Text("bound by data", "受限于取数"),
    "launches": Text("bound by launches", "受限于启动开销"),
    "arithmetic": Text("bound by arithmetic", "受限于算力"),
    "memory": Text("bound by memory bandwidth", "受限于内存带宽"),
}


def speed_verdict(profile: Mapping[str, Any]) -> Verdict:
    """Return what binds a profiled training and the change that would help most."""
    numbers = profile["numbers"]
    kind = binding(numbers)
    best = best_change(profile["trials"])
    judging = _judging(profile["sections"])
    return Verdict(
        kind=f"bound by {kind}",
        title=_TITLES[kind],
        found=_found(kind, numbers),
        sure=_shares(numbers),
        todo=_advice(best) + judging,
        command=best["option"] if best else "",
        numbers=numbers,
    )


def best_change(trials: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the trial that gained most, of those that gained in every round; None where none did."""
    gained = [trial for trial in trials[1:] if trial["gain_low"] >= LEAST_GAIN]
    return max(gained, key=lambda trial: float(trial["gain"])) if gained else None


def _found(kind: str, numbers: Mapping[str, float | None]) -> Text:
    data, fixed = numbers["data_share"] or 0.0, numbers["fixed_share"] or 0.0
    if kind == "data":
        gain = 1 / max(1 - data, 0.05)
        return Text(
            f"{data:.0%} of a step brings the data; without that it would be {gain:.1f} x as fast",
            f"一步中有 {data:.0%} 的时间用于取数；若无此开销，速度可达 {gain:.1f} 倍",
        )
    if kind == "launches":
        return Text(
            f"{fixed:.0%} of a step does not depend on the batch: a step of half the batch takes "
            f"{(1 + fixed) / 2:.0%} of the time, so starting work costs more than the work",
            f"一步中有 {fixed:.0%} 的时间与批大小无关：批减半后一步仍需 {(1 + fixed) / 2:.0%} 的时间，"
            "启动开销大于计算本身",
        )
    arithmetic, bandwidth = numbers["arithmetic_share"] or 0.0, numbers["bandwidth_share"] or 0.0
    nearest = max(arithmetic, bandwidth)
    near = Text("", "")
    if nearest < 0.3:
        near = Text(
            "; no limit is near: many operations too small for the device, one after the other",
            "；两者都远未到上限：大量小操作逐个执行",
        )
    found = Text(
        f"a step reaches {arithmetic:.0%} of the device's arithmetic and {bandwidth:.0%} of its bandwidth",
        f"一步达到设备算力的 {arithmetic:.0%}、带宽的 {bandwidth:.0%}",
    )
    return Text(found.en + near.en, found.zh + near.zh)


def _shares(numbers: Mapping[str, float | None]) -> Text:
    fixed = numbers["fixed_share"]
    half = "–" if fixed is None else f"{fixed:.0%}"
    return Text(
        f"data {numbers['data_share']:.0%} of a step, fixed part {half}, arithmetic "
        f"{numbers['arithmetic_share']:.0%} of a measured matrix product, bandwidth at least "
        f"{numbers['bandwidth_share']:.0%} of a measured copy",
        f"取数占一步的 {numbers['data_share']:.0%}，固定部分 {half}，算力为实测矩阵乘法的 "
        f"{numbers['arithmetic_share']:.0%}，带宽至少为实测拷贝的 {numbers['bandwidth_share']:.0%}",
    )


def _advice(best: Mapping[str, Any] | None) -> Text:
    if best is None:
        return Text(
            f"nothing that was tried gains {LEAST_GAIN - 1:.0%} in every round: leave it as it is.",
            f"试过的设置都没有在每一轮提速 {LEAST_GAIN - 1:.0%}：保持现状即可。",
        )
    steps = f"{best['num_steps']} steps"
    return Text(
        f"{best['option']}: {best['gain']:.2f} x labels/s ({best['gain_low']:.2f} to "
        f"{best['gain_high']:.2f}), measured over {steps}; it changes {best['changes']['en']}.",
        f"{best['option']}：实测 {best['num_steps']} 步，标签/秒为 {best['gain']:.2f} 倍"
        f"（{best['gain_low']:.2f} 至 {best['gain_high']:.2f}）；影响：{best['changes']['zh']}。",
    )


def _judging(sections: list[dict[str, Any]]) -> Text:
    share = next(line["share"] for line in sections if line["name"] == "evaluation")
    if share < JUDGING_SHARE:
        return Text("", "")
    return Text(
        f"{share:.0%} of the wall time scores `stop`: half the evaluations_per_epoch would save "
        f"{share / 2:.0%}.",
        f"总时间的 {share:.0%} 用于在早停段（stop）上评分：evaluations_per_epoch 减半可省 {share / 2:.0%}。",
    )


def trial_row(trial: Mapping[str, Any], language: str) -> tuple[str, str, str, str]:
    """Return what to type, labels a second, gain with its range, and what it changes."""
    spread = f"{trial['gain']:.2f} x ({trial['gain_low']:.2f} to {trial['gain_high']:.2f})"
    first = trial["name"] == "now"
    name = {"en": "as it is", "zh": "现状"}[language] if first else trial["option"]
    rate = f"{count(trial['labels_per_second'])}/s"
    return (name, rate, "1.00 x" if first else spread, "" if first else trial["changes"][language])
