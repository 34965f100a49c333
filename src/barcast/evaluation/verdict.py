"""The verdict: does the best model beat ridge, and the best naive row, by more than chance.

Two choices keep the answer honest. The best naive row is the one with the highest score *on these very
rows*: hindsight favours it, so a model that beats it would have beaten any of them. The best model is picked
on the same rows too, and there hindsight would favour us; so its lead is judged by an interval that allows
for having picked the best of all candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from barcast.core.texts import Text, counted
from barcast.evaluation.intervals import Blocks, simultaneous
from barcast.evaluation.results import (
    BETTER,
    FEW_SESSIONS,
    MODEL,
    NAIVE,
    REFERENCE,
    SAME,
    UNKNOWN,
    WORSE,
    Against,
    Score,
    Verdict,
)
from barcast.evaluation.scoring import Scored, paired, with_interval
from barcast.evaluation.sums import METRICS
from barcast.evaluation.words import METRIC_NAMES, full_name, number, spaced, with_range

_OUTCOME_WORDS = {
    BETTER: Text("better, beyond the interval", "更好，超出区间"),
    WORSE: Text("worse, beyond the interval", "更差，超出区间"),
    SAME: Text("not distinguishable from it", "无法与之区分"),
    UNKNOWN: Text("too few sessions to tell", "交易日太少，无法判断"),
}
_MATCHING = {"rank_ic": "r2", "r2": "auc"}


def best_of(names: Sequence[str], scored: Mapping[str, Scored], metric: str) -> str:
    """Return the name with the highest score; a constant forecast counts as no skill; empty without names.

    Ties go to the name that comes first.
    """
    best, best_value = "", -math.inf
    for name in names:
        value = scored[name].value(metric)
        value = METRICS[metric].no_skill if math.isnan(value) else value
        if value > best_value:
            best, best_value = name, value
    return best


def judge(
    scored: Mapping[str, Scored],
    kinds: Mapping[str, str],
    blocks: Blocks,
    metric: str,
    reference: str,
    best_naive: str,
) -> Verdict:
    """Return the verdict of one table.

    Parameters
    ----------
    scored : mapping of str to Scored
        Every model of the table.
    kinds : mapping of str to str
        ``naive``, ``reference`` or ``model`` for each.
    blocks : Blocks
        The blocks all were drawn with.
    metric : str
        The score that decides; higher is better.
    reference, best_naive : str
        The rows to beat; empty where there is none.
    """
    candidates = [name for name in scored if kinds[name] == MODEL]
    if not candidates:
        candidates = [name for name in scored if kinds[name] == REFERENCE]
    candidates = [name for name in candidates if math.isfinite(scored[name].value(metric))]
    best = best_of(candidates, scored, metric)
    if not best:
        return Verdict(metric, "", 0, (), _no_candidate(metric))
    opponents = [
        (name, kind) for name, kind in ((reference, REFERENCE), (best_naive, NAIVE)) if name not in ("", best)
    ]
    against = tuple(
        _against(name, kind, best, candidates, scored, blocks, metric) for name, kind in opponents
    )
    text = _first_sentence(best, len(candidates), scored[best], blocks, metric)
    for item in against:
        text += _against_sentence(item, metric)
    if not any(kind == NAIVE for _, kind in opponents):
        text += Text("There is no naive row to compare with.", "表中没有可比的朴素基准。")
    text += _interval_sentence(blocks, len(candidates)) + _matching_sentence(scored[best], blocks, metric)
    return Verdict(metric, best, len(candidates), against, text)


def _against(
    opponent: str,
    kind: str,
    best: str,
    candidates: Sequence[str],
    scored: Mapping[str, Scored],
    blocks: Blocks,
    metric: str,
) -> Against:
    rivals = [name for name in candidates if name != opponent]
    pairs = [paired(metric, scored[name], scored[opponent], blocks) for name in rivals]
    ranges = simultaneous([value for value, _ in pairs], [draws for _, draws in pairs], blocks)
    position = rivals.index(best)
    value, (low, high) = pairs[position][0], ranges[position]
    difference = Score(value, low, high, flag=FEW_SESSIONS if math.isnan(low) else "")
    return Against(opponent, kind, difference, outcome_of(low, high))


def outcome_of(low: float, high: float) -> str:
    """Return what an interval of a difference says."""
    if math.isnan(low) or math.isnan(high):
        return UNKNOWN
    return BETTER if low > 0 else WORSE if high < 0 else SAME


def _no_candidate(metric: str) -> Text:
    name = METRIC_NAMES[metric]
    return Text(
        f"No verdict: no trained model has a defined {name.en} here.",
        f"无法下结论：没有任何训练过的模型在此有可定义的{spaced(name.zh)}。",
    )


def _first_sentence(best: str, num_candidates: int, scored: Scored, blocks: Blocks, metric: str) -> Text:
    name, said = METRIC_NAMES[metric], with_range(metric, with_interval(metric, scored, blocks))
    if num_candidates == 1:
        return Text(f"{best}: {name.en} {said}.", f"{full_name(best).zh}：{name.zh} {said}。")
    return Text(
        f"Best of {num_candidates} models by {name.en}: {best}, {said}.",
        f"按{spaced(name.zh)}，{num_candidates} 个模型中最好的是 {full_name(best).zh}：{said}。",
    )


def _against_sentence(item: Against, metric: str) -> Text:
    said, words = with_range(metric, item.difference, sign=True), _OUTCOME_WORDS[item.outcome]
    opponent = full_name(item.opponent).zh
    if item.kind == NAIVE:
        return Text(
            f"Against the best naive row, {item.opponent}: {said}, {words.en}.",
            f"与最好的朴素基准{opponent}相比：{said}，{words.zh}。",
        )
    return Text(f"Against {item.opponent}: {said}, {words.en}.", f"与{opponent}相比：{said}，{words.zh}。")


def _interval_sentence(blocks: Blocks, num_candidates: int) -> Text:
    sessions = blocks.num_sessions
    if not len(blocks.starts):
        return Text(
            f"Too few for intervals: {counted(sessions, 'session')}.",
            f"只有 {sessions} 个交易时点，不足以给出区间。",
        )
    text = Text(
        f"Differences are paired; intervals are {blocks.level:.0%}, over {counted(sessions, 'session')} "
        f"in blocks of {blocks.length}.",
        f"差值为配对差；{blocks.level:.0%} 区间由 {sessions} 个交易时点按每块 {blocks.length} 个重抽样得到。",
    )
    if num_candidates == 1:
        return text
    return text + Text(
        f"They are wider for having picked the best of {num_candidates}.",
        f"区间已因从 {num_candidates} 个模型中挑选最好者而加宽。",
    )


def _matching_sentence(scored: Scored, blocks: Blocks, metric: str) -> Text:
    """Say what the other kind of score makes of the same model: size beside order, or order beside size."""
    other = _MATCHING[metric]
    score = with_interval(other, scored, blocks)
    if not math.isfinite(score.value):
        return Text("", "")
    no_skill, said = METRICS[other].no_skill, with_range(other, score)
    outcome = outcome_of(score.low - no_skill, score.high - no_skill)
    name, words = METRIC_NAMES[other], _OUTCOME_WORDS[outcome]
    level = number(other, no_skill) if no_skill else "0"
    return Text(
        f"Its {name.en} is {said}; against {level} (no skill): {words.en}.",
        f"其{spaced(name.zh)} 为 {said}；与无信息水平 {level} 相比：{words.zh}。",
    )
