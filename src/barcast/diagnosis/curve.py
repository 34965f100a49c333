"""Verdicts that the curve of a training gives: the rate, overfitting, too few epochs.

The loss of one epoch is compared with that of another, since each visits every label once; the noise of the
`stop` score is read off its own ups and downs, with their trend taken out.
"""

from __future__ import annotations

import math

import numpy as np

from barcast.core.arrays import F64
from barcast.core.texts import Text
from barcast.diagnosis.evidence import Evidence
from barcast.diagnosis.verdicts import Verdict

#: A loss this many times that of predicting nothing has blown up; a fresh network starts at up to 1.5.
BLOWN_UP = 3.0
#: Rise of the loss, as a share of that of predicting nothing, that no healthy training shows.
RISE = 0.05
#: Share of clipped steps above which the gradient's size is the rule and no exception.
ALWAYS_CLIPPED = 0.9
#: Weights that moved less than this share of their size have stayed where they began.
MOVED = 0.005
#: A loss that ends so far above that of predicting nothing has not even learned to say nothing.
ABOVE = 0.1
#: Late fall of the loss over its early one, a step, from which it falls as if nothing had been learned yet.
STEADY = 0.6
#: Standard errors that a change of the `stop` score must exceed, and one that starts beside the best score.
ERRORS, FALL_ERRORS = 3.5, 5.0
#: Rank correlation of score and time from which what follows the best score is a fall.
TREND = -0.7
#: Evaluations that a verdict on the `stop` score needs, in all and after the best one.
LEAST_SCORES, LEAST_AFTER = 6, 4


def rate_too_high(found: Evidence) -> Verdict | None:
    """Look for a loss that is no number, blows up, rises, or stands still while every gradient is clipped."""
    if "the loss became" in found.reason:
        return _too_high(found, Text(found.reason, found.reason), Text("certain", "确定"), {})
    if len(found.losses) < 2 or found.null_loss is None:
        return None
    null, highest = found.null_loss, float(found.losses.max())
    rise = _rise(found.epoch_losses) / null if found.num_whole_epochs > 1 else 0.0
    clipped = float(np.mean([line.get("clipped", 0.0) for line in found.curve]))
    stuck = clipped >= ALWAYS_CLIPPED and found.epoch_losses[-1] >= (1 - RISE / 5) * null
    reasons = [
        text
        for fires, text in (
            (highest >= BLOWN_UP * null, _BLEW_UP),
            (rise >= RISE, _ROSE),
            (stuck and not found.has_skill, _STUCK),
        )
        if fires
    ]
    if not reasons:
        return None
    said = Text(
        f"the training loss reached {highest:.3g} (predicting nothing costs {null:.3g}), rose by {rise:.1%} "
        f"of that between epochs, and {clipped:.0%} of the steps were clipped",
        f"训练损失最高达 {highest:.3g}（恒定预测的损失为 {null:.3g}），各轮之间回升了其 {rise:.1%}，"
        f"{clipped:.0%} 的步被裁剪",
    )
    numbers = {"highest_loss": highest, "null_loss": null, "rise": rise, "clipped": clipped}
    return _too_high(found, said, reasons[0], numbers)


_BLEW_UP = Text(
    f"a loss {BLOWN_UP:.0f} times that of predicting nothing is no chance",
    f"达到恒定预测损失的 {BLOWN_UP:.0f} 倍不是偶然",
)
_ROSE = Text(
    f"epochs see the same labels, so a rise of {RISE:.0%} is no chance",
    f"每轮看到的标签相同，回升 {RISE:.0%} 不是偶然",
)
_STUCK = Text(
    f"{ALWAYS_CLIPPED:.0%} of the steps clipped, and neither the loss nor rows that chose nothing show that "
    "anything was learned",
    f"{ALWAYS_CLIPPED:.0%} 的步被裁剪，而损失和未参与任何选择的行都没有显示学到了东西",
)


def _too_high(found: Evidence, said: Text, sure: Text, numbers: dict[str, float]) -> Verdict:
    return Verdict(
        "rate_too_high",
        Text("learning rate too high", "学习率过高"),
        said,
        sure,
        Text("train with a tenth of the rate", "用十分之一的学习率训练"),
        found.again("--lr", f"{(found.lr or 1e-3) / 10:g}"),
        numbers,
    )


def rate_too_low(found: Evidence) -> Verdict | None:
    """Look for weights that stayed where they began, or a loss that never came down or still comes down."""
    losses = found.epoch_losses
    if len(found.losses) < 2 or "the loss became" in found.reason:
        return None
    null = found.null_loss or abs(float(losses[0])) or 1.0
    fall = float(losses[0] - losses[-1]) / null
    steady = _steadiness(losses)
    still = found.moved is not None and found.moved < MOVED
    above = (
        found.null_loss is not None and losses[-1] > (1 + ABOVE) * null and _rise(losses) <= RISE / 5 * null
    )
    falling = found.best == len(found.curve) - 1 and fall > 0.005 and steady >= STEADY
    if found.losses.max() >= BLOWN_UP * null or not (still or above or falling):
        return None
    moved = f"{found.moved:.2%}" if found.moved is not None else "?"
    return Verdict(
        "rate_too_low",
        Text("learning rate too low", "学习率过低"),
        Text(
            f"the weights moved by {moved} of their size; the training loss fell to {losses[-1]:.3f}, by "
            f"{fall:.2%} of that of predicting nothing, {null:.3f}",
            f"权重移动了自身大小的 {moved}；训练损失降至 {losses[-1]:.3f}，"
            f"降幅为恒定预测损失 {null:.3f} 的 {fall:.2%}",
        ),
        _low_because(still, above),
        Text("train with ten times the rate", "用十倍的学习率训练"),
        found.again("--lr", f"{(found.lr or 1e-3) * 10:g}"),
        {"moved": found.moved, "fall": fall, "steady": steady, "loss": float(losses[-1]), "null_loss": null},
    )


def _low_because(still: bool, above: bool) -> Text:
    if still:
        return Text(
            f"within {MOVED:.1%} of the weights of the same seed before the first step",
            f"与同一种子的初始权重相差不到 {MOVED:.1%}",
        )
    if above:
        return Text(
            f"the loss never rose and yet ends above {1 + ABOVE:.0%} of that of predicting nothing",
            f"损失从未回升，却仍止于恒定预测损失的 {1 + ABOVE:.0%} 以上",
        )
    return Text(
        f"the loss falls late at {STEADY:.0%} or more of its early pace, and the best score is the last",
        f"后期降速不低于前期的 {STEADY:.0%}，且最好的分数在最后",
    )


def _rise(losses: F64) -> float:
    """Return by how much the loss ever stood above its lowest before."""
    return float((losses - np.minimum.accumulate(losses)).max())


def _steadiness(losses: F64) -> float:
    """Return the fall over the last third of the losses over that of the first; 1 for a line, 0 unknown."""
    if len(losses) < 4:
        return 0.0
    part = max(len(losses) // 3, 1)
    early, late = losses[0] - losses[part], losses[-1 - part] - losses[-1]
    return float(late / early) if early > 0 else 0.0


def overfitting_curve(found: Evidence) -> dict[str, float] | None:
    """Return the numbers of a `stop` score that falls beyond its noise while the training loss falls on.

    Three conditions, because neighbouring scores are alike and the best of many stands out by luck: a fall
    from beside the best, a fall between the first and the last third of what follows, and a trend in it.
    Simulated plateaus of 12 to 40 scores pass them in 0, 1 to 2 and 5 to 7 % of the cases where neighbouring
    scores correlate by 0, 0.5 and 0.8.
    """
    scores, losses, best = found.scores, found.losses, found.best
    after = scores[best + 1 :]
    if len(scores) < LEAST_SCORES or len(after) < LEAST_AFTER or not np.isfinite(scores).all():
        return None
    near = scores[[place for place in (best - 1, best + 1) if place >= 0]]
    late, third = after[-max(len(after) // 2, 2) :], max(len(after) // 3, 2)
    noise = score_noise(scores)
    fall, falling = float(near.mean() - late.mean()), float(after[:third].mean() - after[-third:].mean())
    limit = FALL_ERRORS * noise * math.sqrt(1 / len(near) + 1 / len(late))
    learned = float(losses[best] - losses[-1]) / (found.null_loss or abs(float(losses[best])) or 1.0)
    trend = float(np.corrcoef(np.arange(len(after)), np.argsort(np.argsort(after)))[0, 1])
    if not (fall > limit and falling > ERRORS * noise * math.sqrt(2 / third) and trend < TREND):
        return None
    numbers = {"best": float(scores[best]), "late": float(late.mean()), "fall": fall, "noise": noise,
               "limit": limit, "trend": trend, "loss_fall_after_best": learned}  # fmt: skip
    return numbers if fall > 0.1 * abs(scores[best]) and learned > 0.002 else None


def score_noise(scores: F64) -> float:
    """Return the standard deviation of one evaluation, from successive differences without their trend."""
    steps = np.diff(scores)
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / math.sqrt(2))


def too_few_epochs(found: Evidence) -> Verdict | None:
    """Look for a `stop` score that was still rising beyond its noise when the epochs ran out."""
    scores = found.scores
    if len(scores) < LEAST_SCORES or found.best != len(scores) - 1 or not np.isfinite(scores).all():
        return None
    quarter = max(len(scores) // 4, 2)
    rise = float(scores[-quarter:].mean() - scores[-2 * quarter : -quarter].mean())
    limit = ERRORS * score_noise(scores) * math.sqrt(2 / quarter)
    share = rise / max(float(scores[-1] - scores.min()), 1e-12)
    if rise <= limit or share < 0.2:
        return None
    return Verdict(
        "too_few_epochs",
        Text("too few epochs", "训练轮数太少"),
        Text(
            f"the best `stop` score is the last one, {scores[-1]:.4f}, and the last quarter of the "
            f"evaluations still gained {rise:.4f}",
            f"最好的 stop 分数 {scores[-1]:.4f} 就是最后一次，最后四分之一的评估仍提高了 {rise:.4f}",
        ),
        Text(f"beyond {limit:.4f}, {ERRORS} standard errors", f"超过 {limit:.4f}，即 {ERRORS} 倍标准误"),
        Text("train twice as long", "训练轮数加倍"),
        found.again("--epochs", str(2 * max(found.epochs, 1))),
        {"rise": rise, "limit": limit, "share_of_all": share},
    )
