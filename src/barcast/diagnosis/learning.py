"""Verdicts on what a run has learned, in the order in which they are to be believed.

A cause (a rate, dead outputs, wrong labels) explains whatever else looks wrong, so when one is found nothing
that could follow from it is said.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from barcast.core.arrays import F32
from barcast.core.texts import Text
from barcast.diagnosis.curve import overfitting_curve, rate_too_high, rate_too_low, too_few_epochs
from barcast.diagnosis.evidence import Estimate, Evidence, Rows
from barcast.diagnosis.verdicts import Verdict

#: Spread of scores within a session, in units of the target, below which there is none.
DEAD = 1e-5
#: Share of the scores' variance left within symbols below which a score only says who is asked.
CONSTANT = 1e-3
#: Share of recurrent states at their bounds from which they carry no more than a sign.
SATURATED = 0.5
#: Shares of the loss of predicting nothing: what counts as learned, and as the same loss.
LEARNED, SAME = 0.05, 0.03
#: Share of a straight line's skill on `fit` below which a network has not learned the labels.
KNOWN = 1 / 3
#: Steps, up to the kept weights and in all, with which no network can be expected to know what a line knows.
FEW_KEPT, FEW_STEPS = 10, 50
#: Steps of an epoch that the advice aims at.
_STEPS_AN_EPOCH = 30
#: Skill that daily bars have never given honestly: RankIC across symbols, correlation through time.
TOO_GOOD = {True: 0.3, False: 0.5}
#: Skill from which a forecast may be of use, likewise: an interval that reaches it rules nothing out.
MATTERS = {True: 0.03, False: 0.05}

#: What to do about a network.
_LESS_DEAD = Text(
    "train again from fresh weights with a lower rate; look for constant inputs",
    "用更低的学习率从头训练，并检查是否有恒定的输入",
)
_SIMPLER = Text(
    "more dropout and weight decay, a smaller network, or more symbols",
    "加大 dropout 与权重衰减，缩小网络，或增加标的",
)
_LONGER = Text("train longer, with a higher rate or a larger network", "延长训练，提高学习率，或加大网络")
#: And about a model without steps, whose own table of the settings has other options.
_LOOSER = Text(
    "less regularisation by its own options (`barcast tune` searches them); look for constant inputs",
    "用模型自身的选项减弱正则化（`barcast tune` 可以搜索），并检查是否有恒定的输入",
)
_TIGHTER = Text(
    "more regularisation by its own options (`barcast tune` searches them), or more symbols",
    "用模型自身的选项加强正则化（`barcast tune` 可以搜索），或增加标的",
)


def verdicts(found: Evidence) -> list[Verdict]:
    """Return everything that was found, the cause first; empty for a healthy run."""
    for check in _CAUSES:
        verdict = check(found)
        if verdict is not None:
            return [verdict]
    return [verdict for check in _SYMPTOMS if (verdict := check(found)) is not None][:2]


def dead_outputs(found: Evidence) -> Verdict | None:
    """Look for scores without spread in a session, or without change through time, and saturated states."""
    rows = found.held or found.fit
    if rows is None:
        return None
    spread, within = _spread(rows), _within_symbols(rows)
    numbers = {"spread": spread, "within_symbols": within, "saturated": found.saturated}
    if spread < DEAD:
        said = Text(
            f"the scores of a session differ by {spread:.1g} in the median: every symbol is told the same",
            f"同一时点内分数的标准差中位数仅为 {spread:.1g}：所有标的得到相同的预测",
        )
    elif within < CONSTANT:
        said = Text(
            f"only {within:.2%} of the scores' variance lies within symbols: each is always told the same",
            f"分数的方差只有 {within:.2%} 在标的内部：每个标的在所有时点得到相同的预测",
        )
    elif (found.saturated or 0.0) > SATURATED:
        said = Text(
            f"{found.saturated:.0%} of the recurrent states are at their bounds",
            f"{found.saturated:.0%} 的循环状态已饱和",
        )
    else:
        return None
    return Verdict(
        "dead_outputs",
        Text("dead outputs", "输出失效"),
        said,
        Text("read off the scores themselves; no chance is involved", "直接由分数得出，与偶然无关"),
        _LESS_DEAD if found.has_steps else _LOOSER,
        found.again("--fresh", "--lr", f"{(found.lr or 1e-3) / 3:.2g}"),
        numbers,
    )


def _spread(rows: Rows) -> float:
    """Return the median over sessions of the scores' standard deviation; over all rows through time."""
    if not rows.across:
        return float(np.std(rows.score))
    place, num = rows.place
    count = np.bincount(place, minlength=num)
    mean = np.bincount(place, weights=rows.score, minlength=num) / count
    apart = np.square(rows.score - mean[place])
    return float(np.median(np.sqrt(np.bincount(place, weights=apart, minlength=num) / count)))


def _within_symbols(rows: Rows) -> float:
    """Return the share of the scores' variance that lies within symbols."""
    _, symbol = np.unique(rows.symbol, return_inverse=True)
    mean = np.bincount(symbol, weights=rows.score) / np.bincount(symbol)
    total = float(np.var(rows.score))
    return float(np.mean(np.square(rows.score - mean[symbol]))) / total if total > 0 else 0.0


def too_few_steps(found: Evidence) -> Verdict | None:
    """Look for a training of so few steps that it explains why a straight line knows more."""
    if found.best < 0 or found.fit is None or found.held is None:
        return None
    kept, total = (int(found.curve[line]["step"]) for line in (found.best, -1))
    fit, held = _beyond(found.fit), _beyond(found.held)
    if (kept >= FEW_KEPT and total >= FEW_STEPS) or fit is None or held is None:
        return None
    if not (fit.low > 0 and held.value > 0):
        return None
    an_epoch = total / float(found.curve[-1]["epoch"])
    todo, options = _more_steps(found, an_epoch, total)
    return Verdict(
        "too_few_steps",
        Text("too few steps", "训练步数太少"),
        Text(
            f"the kept weights are those after {kept} of {total} steps, about {an_epoch:.0f} an epoch; a "
            f"straight line on the last bar is better by {fit} on `fit`, by {held.value:.4f} on `weigh` and "
            "`route`",
            f"保留的是第 {kept} 步的权重（共 {total} 步，每轮约 {an_epoch:.0f} 步）；只看最后一根 K 线的直线"
            f"在 fit 上高 {fit}，在 weigh 与 route 上高 {held.value:.4f}",
        ),
        Text("paired on `fit`, by blocks of sessions", "在 fit 上配对比较，按交易日分块"),
        todo,
        found.again(*options),
        {"kept_step": kept, "steps": total, "fit_difference": fit.value, "low": fit.low,
         "held_difference": held.value},
    )  # fmt: skip


def _more_steps(found: Evidence, an_epoch: float, total: int) -> tuple[Text, tuple[str, str]]:
    """Return what to do about weights of few steps, given those of an epoch and in all, and its option."""
    smaller = max(int(found.batch_size * an_epoch / _STEPS_AN_EPOCH), 1)
    if total >= FEW_STEPS and smaller >= found.batch_size:  # more epochs would end where these did
        slower = Text(
            "a lower rate: the best weights came before any were learned, though there were steps enough",
            "降低学习率：步数并不少，最好的权重却出现在学到东西之前",
        )
        return slower, ("--lr", f"{(found.lr or 1e-3) / 3:.2g}")
    more = Text(
        "smaller batches, more symbols or years; then more epochs",
        "减小批量，增加标的或年份，然后再增加训练轮数",
    )
    if smaller < found.batch_size:
        return more, ("--batch-size", str(smaller))
    return more, ("--epochs", str(2 * max(found.epochs, 1)))


def labels_shifted(found: Evidence) -> Verdict | None:
    """Look for labels of another session that explain the recorded loss when the run's own do not."""
    rows, recorded = found.fit, _recorded_loss(found)
    if rows is None or recorded is None or found.null_loss is None or not rows.lagged:
        return None
    null = found.null_loss
    own = np.square(rows.target - rows.score)
    losses = {lag: rows.mean(np.square(target - rows.score)).value for lag, target in rows.lagged.items()}
    lag = min(losses, key=lambda each: losses[each])
    apart = rows.mean(own - np.square(rows.lagged[lag] - rows.score))
    unexplained = rows.mean(own).value - recorded
    if not (apart.low > LEARNED / 2 * null and unexplained > SAME * null):
        return None
    if abs(losses[lag] - recorded) > 0.5 * unexplained:
        return None
    numbers = {"lag": lag, "loss": rows.mean(own).value, "loss_at_lag": losses[lag],
               "recorded_loss": recorded, "difference": apart.value, "low": apart.low}  # fmt: skip
    when = ("later", "之后") if lag > 0 else ("earlier", "之前")
    return Verdict(
        "labels_shifted",
        Text("labels shifted", "标签错位"),
        Text(
            f"on `fit` the scores say what came {abs(lag)} bars {when[0]}: their loss there is "
            f"{losses[lag]:.3f}, against their own labels {numbers['loss']:.3f}; training recorded "
            f"{recorded:.3f}",
            f"在 fit 上，分数对应的是 {abs(lag)} 根 K 线{when[1]}的标签：该处损失为 {losses[lag]:.3f}，"
            f"对自身标签为 {numbers['loss']:.3f}，而训练记录的是 {recorded:.3f}",
        ),
        Text(
            f"difference {apart}, by blocks of sessions, over {len(rows.lagged)} lags",
            f"差 {apart}（按交易日分块的区间），共比较 {len(rows.lagged)} 个偏移",
        ),
        Text(
            "what was trained on is not what the store says: check the stamps of bars and your own features",
            "训练所用的标签与数据仓库现在给出的不一致：请检查 K 线的时间戳与自定义特征",
        ),
        found.audit,
        numbers,
    )


def labels_shuffled(found: Evidence) -> Verdict | None:
    """Look for a network that knows next to nothing of its labels where a straight line knows much.

    Either it learned nothing (the loss never fell), or its loss did fall and so it learned something else.
    """
    rows, held = found.fit, found.held
    if rows is None or held is None or rows.probe is None or held.probe is None:
        return None
    if found.null_loss is None or not len(found.losses):
        return None
    own, line, beyond = rows.skill(rows.score), rows.skill(rows.probe), held.skill(held.probe)
    apart = rows.difference(line, own)
    if not (apart.low > 0 and beyond.low > 0 and own.value < KNOWN * line.value):
        return None
    lowest, null = float(found.epoch_losses.min()), found.null_loss
    fell = null - lowest > LEARNED * null
    what = Text("never fell", "从未下降") if not fell else Text("fell", "下降了")
    return Verdict(
        "labels_shuffled",
        Text("labels shuffled: not those of their rows", "标签被打乱：与样本行不对应"),
        Text(
            f"the network knows next to nothing of the labels it learned from ({own} on `fit`), a straight "
            f"line much ({line}, and {beyond} on rows that it never saw); the training loss {what.en}: "
            f"{lowest:.3f} at best, {null:.3f} for predicting nothing",
            f"网络对其学习过的标签几乎一无所知（fit 上为 {own}），而一条直线却知道很多（{line}，"
            f"在未见过的样本上为 {beyond}）；训练损失{what.zh}：最低 {lowest:.3f}，恒定预测为 {null:.3f}",
        ),
        Text(
            f"difference {apart} on the same rows, paired, by blocks of sessions",
            f"相同样本上的差为 {apart}，配对比较，按交易日分块",
        ),
        Text(
            "what it was taught does not belong to its rows: check your own targets, joins and sorting",
            "训练标签与样本行不对应：请检查自定义目标、连接与排序",
        ),
        found.audit,
        {"fit_skill": own.value, "line_on_fit": line.value, "line_held": beyond.value,
         "difference": apart.value, "low": apart.low, "lowest_loss": lowest, "null_loss": null},
    )  # fmt: skip


def _recorded_loss(found: Evidence) -> float | None:
    """Return the training loss recorded about when the kept weights were made."""
    known = len(found.losses) and found.null_loss is not None and found.one_horizon
    return float(found.losses[found.best]) if known else None


def _beyond(rows: Rows) -> Estimate | None:
    """Return by how much a straight line is more skilled than the model."""
    if rows.probe is None:
        return None
    return rows.difference(rows.skill(rows.probe), rows.skill(rows.score))


def leak(found: Evidence) -> Verdict | None:
    """Look for skill that is too good to be true."""
    if found.held is None:
        return None
    rows = found.held
    skill, limit = rows.skill(rows.score), TOO_GOOD[rows.across]
    if not (skill.value > limit and not skill.low < limit / 2):
        return None
    return Verdict(
        "leak",
        Text("too good to be true", "好得不真实"),
        Text(
            f"skill on `weigh` and `route` is {skill}; honest forecasts of daily bars stay far below {limit}",
            f"在 weigh 与 route 上的得分为 {skill}；诚实的日线预测远低于 {limit}",
        ),
        Text("interval by blocks of sessions", "按交易日分块的区间"),
        Text("look for inputs that see their own future", "检查是否有输入看到了自己的未来"),
        found.audit,
        {"skill": skill.value, "low": skill.low, "high": skill.high, "limit": limit},
    )


def overfitting(found: Evidence) -> Verdict | None:
    """Look for a `stop` score that falls while the loss falls, or skill over a line on `fit` alone."""
    if found.held is None:
        return None
    held = found.held.skill(found.held.score)
    if not held.low > 0:  # what never was cannot fall: `no_signal` says so
        return None
    curve = overfitting_curve(found)
    if curve is not None:
        said = Text(
            f"the `stop` score fell from {curve['best']:.4f} to {curve['late']:.4f} while the training loss "
            f"went on falling by {curve['loss_fall_after_best']:.1%}; the best weights were kept",
            f"stop 分数从 {curve['best']:.4f} 降到 {curve['late']:.4f}，而训练损失继续下降了 "
            f"{curve['loss_fall_after_best']:.1%}；保留的是最好的权重",
        )
        sure = Text(
            f"a fall of {curve['fall']:.4f} against {curve['limit']:.4f}, the reach of its noise",
            f"下降 {curve['fall']:.4f}，噪声范围为 {curve['limit']:.4f}",
        )
        return _overfitted(found, said, sure, curve)
    fit, beyond = None if found.fit is None else _beyond(found.fit), _beyond(found.held)
    if fit is None or beyond is None or not (fit.high < 0 < beyond.low):
        return None
    said = Text(
        f"on `fit` it beats a straight line by {-fit.value:.4f}, on `weigh` and `route` it loses by {beyond}",
        f"在 fit 上比直线高 {-fit.value:.4f}，在 weigh 与 route 上却比它低 {beyond}",
    )
    numbers = {"fit_difference": -fit.value, "held_difference": -beyond.value}
    return _overfitted(found, said, Text("paired, by blocks of sessions", "配对比较，按交易日分块"), numbers)


def _overfitted(found: Evidence, said: Text, sure: Text, numbers: dict[str, float]) -> Verdict:
    return Verdict(
        "overfitting",
        Text("overfitting", "过拟合"),
        said,
        sure,
        _SIMPLER if found.has_steps else _TIGHTER,
        found.again("--dropout", "0.3", "--weight-decay", "0.1"),
        numbers,
    )


def no_signal(found: Evidence) -> Verdict | None:
    """Look for skill on `weigh` and `route` that cannot be told from zero, the line's included.

    Where the interval reaches skill that would matter, there may be some: these rows are too few to say.
    """
    if found.held is None:
        return None
    skill = found.held.skill(found.held.score)
    probe = None if found.held.probe is None else found.held.skill(found.held.probe)
    if not skill.low <= 0 or (probe is not None and probe.low > 0):
        return None
    fit = None if found.fit is None else found.fit.skill(found.fit.score)
    about = Text("", "")
    if fit is not None:
        about = Text(f"; on `fit` it is {fit}", f"；在 fit 上为 {fit}")
    line = Text("", "") if probe is None else Text(f"; a straight line reaches {probe}", f"；直线为 {probe}")
    reach, matters = (skill.high - skill.low) / 2, MATTERS[found.held.across]
    absent = skill.high < matters
    kind, title = "no_signal", Text("no signal", "没有信号")
    if not absent:
        kind, title = "not_shown", Text("no signal shown on these rows", "这些样本未能显示信号")
    todo, command = _without_signal(found, absent)
    return Verdict(
        kind,
        title,
        Text(
            f"skill on `weigh` and `route` is {skill}{about.en}{line.en}",
            f"在 weigh 与 route 上的得分为 {skill}{about.zh}{line.zh}",
        ),
        Text(
            f"the interval, by blocks of sessions, includes zero; these rows could have shown {reach:.4f}, "
            f"and {'rule out' if absent else 'do not rule out'} {matters}, which would matter",
            f"按交易日分块的区间包含零；这些样本能显示的最小得分约为 {reach:.4f}，"
            f"{'可以' if absent else '不能'}排除有实际意义的 {matters}",
        ),
        todo,
        command,
        {"skill": skill.value, "low": skill.low, "high": skill.high, "fit_skill": fit.value if fit else None},
    )


def _without_signal(found: Evidence, absent: bool) -> tuple[Text, str]:
    """Return what to do about skill that is not shown, and what to type."""
    if found.curve and found.best == len(found.curve) - 1:
        longer = Text(
            "first train longer: the best evaluation was the last one",
            "先增加训练轮数：最好的一次评估就是最后一次",
        )
        return longer, found.again("--epochs", str(2 * max(found.epochs, 1)))
    if absent:
        other = Text(
            "other features, another horizon, more symbols or years; no setting makes a signal",
            "换特征、换预测跨度，或增加标的与年份；调整网络设置无法产生信号",
        )
        return other, "barcast features list"
    more = Text(
        "more symbols or years, which narrow the interval; then other features or another horizon",
        "增加标的与年份以缩窄区间，然后再换特征或预测跨度",
    )
    return more, "barcast features list"


def under_fitting(found: Evidence) -> Verdict | None:
    """Look for a straight line that beats the model beyond `fit`, where the model knows no more."""
    if found.held is None or found.fit is None:
        return None
    held, fit = _beyond(found.held), _beyond(found.fit)
    if held is None or fit is None or not (held.low > 0 and fit.low > 0):
        return None
    return Verdict(
        "under_fitting",
        Text("under-fitting", "欠拟合"),
        Text(
            f"a straight line on the last bar is better by {held} on `weigh` and `route`, by {fit} on `fit`",
            f"只看最后一根 K 线的直线在 weigh 与 route 上高 {held}，在 fit 上高 {fit}",
        ),
        Text("paired, by blocks of sessions", "配对比较，按交易日分块"),
        _LONGER if found.has_steps else _LOOSER,
        found.again("--epochs", str(2 * max(found.epochs, 1)), "--lr", f"{(found.lr or 1e-3) * 3:g}"),
        {"held_difference": held.value, "low": held.low, "fit_difference": fit.value},
    )


def constant_inputs(inputs: F32, names: tuple[str, ...]) -> list[str]:
    """Return the names of columns (n, F) that never vary."""
    return [name for name, spread in zip(names, np.ptp(inputs, axis=0), strict=True) if spread == 0]


_CAUSES: tuple[Callable[[Evidence], Verdict | None], ...] = (
    rate_too_low, rate_too_high, dead_outputs, labels_shifted, too_few_steps, labels_shuffled,
)  # fmt: skip
_SYMPTOMS: tuple[Callable[[Evidence], Verdict | None], ...] = (
    leak, overfitting, no_signal, under_fitting, too_few_epochs,
)  # fmt: skip
