"""Each planted fault gets its verdict first, and healthy evidence none."""

import numpy as np
import pytest

from barcast.diagnosis.curve import overfitting_curve, too_few_epochs
from barcast.diagnosis.evidence import Evidence, Rows, lagged_values, ridge_probe, sample_rows
from barcast.diagnosis.learning import constant_inputs, verdicts

SESSIONS, SYMBOLS = 120, 40
NULL = 1.0


def curve(losses, scores, per_epoch=4, clipped=0.1):
    return [
        {"step": 10 * (i + 1), "epoch": (i + 1) / per_epoch, "train_loss": float(a), "stop_score": float(b),
         "gradient_norm": 0.3, "clipped": clipped}
        for i, (a, b) in enumerate(zip(losses, scores, strict=True))
    ]  # fmt: skip


def healthy_curve(rng, evaluations=32):
    """Learning that flattens out, with the noise of a score that is judged on the same rows each time."""
    at = np.arange(1, evaluations + 1)
    losses = 0.95 + 0.35 * np.exp(-at / 2) + rng.normal(0, 0.004, evaluations)
    return curve(losses, 0.1 * (1 - np.exp(-at / 3)) + rng.normal(0, 0.004, evaluations))


def rows(rng, skill=0.15, line=0.15, lag=0, sessions=SESSIONS, scale=0.2, probe=True):
    """Scores with a correlation to the target of the session ``lag`` bars later, and a line beside them."""
    session = np.tile(np.arange(sessions), SYMBOLS)
    symbol = np.repeat(np.arange(SYMBOLS), sessions)
    target = rng.normal(size=len(session))
    everyone = np.arange(len(session))
    truth = np.nan_to_num(lagged_values(target, symbol, everyone, lag))

    def score(correlation, of):
        return correlation * of + np.sqrt(1 - correlation**2) * rng.normal(size=len(of))

    lags = {k: lagged_values(target, symbol, everyone, k) for k in range(-6, 7) if k}
    # what a squared error teaches: as large as it is skilled
    return Rows(session, symbol, max(skill, scale) * score(skill, truth), target, 0.02 * target,
                line * score(line, target) if probe else None, lags, reach=2)  # fmt: skip


def healthy(seed, **changes):
    rng = np.random.default_rng(seed)
    found = {"curve": healthy_curve(rng), "null_loss": NULL, "lr": 1e-3, "epochs": 8, "moved": 0.6, "saturated": 0.02,
             "fit": rows(rng, scale=0.0), "held": rows(rng, scale=0.0)}  # fmt: skip
    return Evidence(**{**found, **changes})


def kinds(found):
    return [verdict.kind for verdict in verdicts(found)]


def test_a_healthy_run_is_left_alone_whatever_the_seed():
    """Thirty healthy runs; a verdict that is bad luck costs trust."""
    wrong = {seed: found for seed in range(30) if (found := kinds(healthy(seed)))}
    assert not wrong


@pytest.mark.parametrize(("alike", "most"), [(0.0, 0.01), (0.5, 0.04)])
def test_a_plateau_after_the_best_score_is_no_overfitting(alike, most):
    """The best of many noisy scores stands out; that the later ones are lower proves nothing."""
    wrong = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        noise = rng.normal(0, 0.01, 24)
        for i in range(1, 24):
            noise[i] = alike * noise[i - 1] + np.sqrt(1 - alike**2) * noise[i]
        found = Evidence(curve=curve(0.95 - 0.002 * np.arange(24), 0.08 + noise), null_loss=NULL)
        wrong += overfitting_curve(found) is not None or too_few_epochs(found) is not None
    assert wrong <= most * 300


def test_overfitting():
    at = np.arange(32)
    rng = np.random.default_rng(0)
    scores = np.where(at < 8, 0.1 * at / 8, 0.1 - 0.004 * (at - 8)) + rng.normal(0, 0.002, 32)
    found = verdicts(healthy(0, curve=curve(1.0 - 0.02 * at, scores)))
    assert found[0].kind == "overfitting" and "--dropout" in found[0].command
    assert found[0].numbers["fall"] > found[0].numbers["limit"]


def test_overfitting_shows_against_a_straight_line_too():
    rng = np.random.default_rng(0)
    found = healthy(0, fit=rows(rng, 0.6, 0.2), held=rows(rng, 0.08, 0.2))
    assert kinds(found)[0] == "overfitting"


@pytest.mark.parametrize(
    "changes",
    [
        {"curve": [], "fit": None, "held": None, "reason": "the loss became nan at step 12"},
        {"curve": curve([40.0, 8.0, 2.0, 1.1, 1.0, 1.0, 1.0, 1.0], [0.0] * 8)},
        {"curve": curve(np.repeat([0.97, 1.04, 0.98, 1.05], 4), [0.01] * 16)},
        {"curve": curve([1.001] * 16, [0.01] * 16, clipped=1.0), "moved": 3.0, "held": None},
    ],
    ids=["no number", "blows up", "swings", "always clipped"],
)
def test_rate_too_high(changes):
    found = verdicts(healthy(0, **changes))
    assert found[0].kind == "rate_too_high" and found[0].command.endswith("--lr 0.0001")


def test_a_rate_is_not_too_high_where_clipping_is_all_there_is():
    """Ranks have a loss near that of predicting nothing however much was learned; skill tells."""
    assert "rate_too_high" not in kinds(
        healthy(0, curve=curve([1.001] * 16, [0.01] * 16, clipped=1.0), moved=3.0)
    )


def test_a_single_epoch_has_no_rise_between_epochs():
    losses = [1.9, 1.3, 1.9, 1.4]
    assert "rate_too_high" not in kinds(healthy(0, curve=curve(losses, [0.01] * 4)))
    assert "rate_too_high" in kinds(healthy(0, curve=curve(np.repeat(losses, 4), [0.01] * 16)))


@pytest.mark.parametrize(
    "changes",
    [
        {"moved": 0.0001, "curve": curve(np.full(16, 1.33), np.zeros(16), clipped=1.0)},
        {"curve": curve(np.linspace(1.33, 1.25, 16), np.linspace(0, 0.01, 16), clipped=1.0)},
        {"curve": curve(np.linspace(1.0, 0.9, 32), np.linspace(0, 0.1, 32))},
    ],
    ids=["did not move", "never came down", "still falling"],
)
def test_rate_too_low(changes):
    found = verdicts(healthy(0, **changes))
    assert found[0].kind == "rate_too_low" and found[0].command.endswith("--lr 0.01")


def test_too_few_epochs():
    rng = np.random.default_rng(0)
    losses = 0.9 + 0.1 / np.arange(1, 17) ** 0.7
    scores = np.linspace(0.01, 0.1, 16) + rng.normal(0, 0.0005, 16)
    found = verdicts(healthy(0, curve=curve(losses, scores)))
    assert [v.kind for v in found] == ["too_few_epochs"] and found[0].command.endswith("--epochs 16")


def of_symbols(part):
    names = np.random.default_rng(1).normal(size=SYMBOLS)
    return Rows(**{**vars_of(part), "score": names[part.symbol]})


def vars_of(part):
    return {name: getattr(part, name) for name in part.__dataclass_fields__}


@pytest.mark.parametrize(
    "changed",
    [
        lambda part: {"held": Rows(**{**vars_of(part), "score": np.full(len(part.score), 0.3)})},
        lambda part: {"held": of_symbols(part)},
        lambda part: {"saturated": 0.9},
    ],
    ids=["one number", "one number a symbol", "saturated"],
)
def test_dead_outputs(changed):
    rng = np.random.default_rng(0)
    assert kinds(healthy(0, **changed(rows(rng))))[0] == "dead_outputs"


@pytest.mark.parametrize("lines", [16, 4], ids=["long", "of few steps"])
@pytest.mark.parametrize("lag", [-5, -1, 3])
def test_labels_shifted(lag, lines):
    rng = np.random.default_rng(0)
    part = rows(rng, 0.6, 0.15, lag, probe=lines == 4)
    recorded = float(np.nanmean(np.square(part.lagged[lag] - part.score)))
    found = verdicts(
        healthy(0, fit=part, held=rows(rng, 0.0, 0.15), curve=curve([recorded] * lines, [0.01] * lines))
    )
    assert found[0].kind == "labels_shifted" and found[0].numbers["lag"] == lag


def test_a_model_that_follows_the_past_is_not_shifted():
    """Momentum: honest scores that look like the past far more than like the future."""
    rng = np.random.default_rng(0)
    part = rows(rng, 0.1, 0.1, 0)
    score = 0.1 * (
        0.1 * part.target + 0.9 * np.nan_to_num(part.lagged[-3]) + 0.4 * rng.normal(size=len(part.score))
    )
    past = Rows(**{**vars_of(part), "score": score})
    loss = float(np.mean(np.square(past.target - past.score)))
    assert past.mean(np.square(past.lagged[-3] - score)).value < loss - 0.1
    found = healthy(0, fit=past, held=past, curve=curve(np.full(16, loss + 0.003), np.full(16, 0.1)))
    assert kinds(found) == []


@pytest.mark.parametrize("loss", [1.0, 0.5], ids=["learned nothing", "learned others"])
def test_labels_shuffled(loss):
    rng = np.random.default_rng(0)
    found = healthy(
        0, fit=rows(rng, 0.0, 0.2), held=rows(rng, 0.0, 0.2), curve=curve([loss] * 16, [0.01] * 16)
    )
    assert kinds(found) == ["labels_shuffled"]


@pytest.mark.parametrize(("best", "lines"), [(0, 16), (3, 4)], ids=["kept early", "short"])
def test_few_steps_explain_a_network_that_knows_little(best, lines):
    """What would be shuffled labels after hundreds of steps is no accusation after a few."""
    rng = np.random.default_rng(0)
    scores = np.where(np.arange(lines) == best, 0.02, 0.01)
    told = curve([1.0] * lines, scores, clipped=0.0)
    short = [{**line, "step": (line["step"] if lines == 4 else 4 * (i + 1))} for i, line in enumerate(told)]
    parts = {"fit": rows(rng, 0.0, 0.2), "held": rows(rng, 0.0, 0.2), "batch_size": 15360}
    (verdict,) = verdicts(healthy(0, curve=short, **parts))
    assert verdict.kind == "too_few_steps" and verdict.numbers["kept_step"] == short[best]["step"]
    more = {0: f"--batch-size {int(15360 * 16 / 30)}", 3: "--epochs 16"}  # an epoch had 16 steps, and 40
    assert verdict.command.endswith(more[best])
    assert kinds(healthy(0, curve=curve([1.0] * 16, [0.01] * 16), **parts)) == ["labels_shuffled"]
    assert kinds(healthy(0, curve=short)) == [], "a network that knows what a line knows is left alone"


def test_weights_kept_early_in_a_long_training_ask_for_a_lower_rate():
    """Twice the epochs would end where these did: patience does not wait for them."""
    rng = np.random.default_rng(0)
    told = curve([1.0] * 16, np.where(np.arange(16) == 0, 0.02, 0.01), per_epoch=8, clipped=0.0)
    told = [{**line, "step": 5 * (i + 1)} for i, line in enumerate(told)]  # 40 an epoch, 80 in all
    parts = {"fit": rows(rng, 0.0, 0.2), "held": rows(rng, 0.0, 0.2), "batch_size": 15360}
    (verdict,) = verdicts(healthy(0, curve=told, **parts))
    assert verdict.kind == "too_few_steps" and verdict.numbers["kept_step"] == 5
    assert verdict.command.endswith("--lr 0.00033") and "lower rate" in verdict.todo.en


@pytest.mark.parametrize("fitted", [0.0, 0.5], ids=["fits nothing", "fits noise"])
def test_no_signal(fitted):
    wrong = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        found = healthy(seed, fit=rows(rng, fitted, 0.05), held=rows(rng, 0.0, 0.0, sessions=600))
        wrong += [seed] * (kinds(found)[:1] != ["no_signal"])
    assert len(wrong) <= 1  # a 95 % interval may miss zero


def test_a_signal_that_rows_are_too_few_to_show_is_not_denied():
    """Skill of 0.03 on 4,800 rows: the interval includes zero, and skill that would matter as well."""
    found = healthy(1, held=rows(np.random.default_rng(1), 0.03, 0.0))
    (verdict,) = verdicts(found)
    assert verdict.numbers["low"] <= 0 and verdict.numbers["high"] > 0.03
    assert (verdict.kind, verdict.title.en) == ("not_shown", "no signal shown on these rows")
    assert "do not rule out 0.03" in verdict.sure.en and "more symbols or years" in verdict.todo.en


@pytest.mark.parametrize("sessions", [120, 600], ids=["not shown", "absent"])
def test_where_the_best_evaluation_is_the_last_more_epochs_come_first(sessions):
    held = rows(np.random.default_rng(1), 0.0, 0.0, sessions=sessions)
    found = verdicts(
        healthy(1, held=held, epochs=1, curve=curve([1.0, 0.98, 0.97, 0.97], [0.0, 0.01, 0.02, 0.03]))
    )
    assert found[0].kind in ("no_signal", "not_shown")
    assert "first train longer" in found[0].todo.en and found[0].command.endswith("--epochs 2")


def test_under_fitting():
    rng = np.random.default_rng(0)
    assert kinds(healthy(0, fit=rows(rng, 0.1, 0.25), held=rows(rng, 0.1, 0.25)))[0] == "under_fitting"


def test_too_good_to_be_true():
    rng = np.random.default_rng(0)
    found = verdicts(healthy(0, fit=rows(rng, 0.6, 0.15), held=rows(rng, 0.6, 0.15)))
    assert found[0].kind == "leak" and found[0].command == "barcast audit"


def test_what_asks_for_an_audit_audits_the_run_that_was_judged():
    rng, audit = np.random.default_rng(0), "barcast audit lstm-1 -w ws"
    late = rows(rng, 0.6, 0.15, -1, probe=False)
    recorded = float(np.nanmean(np.square(late.lagged[-1] - late.score)))
    changes = {
        "leak": {"fit": rows(rng, 0.6), "held": rows(rng, 0.6)},
        "labels_shuffled": {"fit": rows(rng, 0.0, 0.2), "held": rows(rng, 0.0, 0.2),
                            "curve": curve([1.0] * 16, [0.01] * 16)},
        "labels_shifted": {"fit": late, "held": rows(rng, 0.0), "curve": curve([recorded] * 16, [0.01] * 16)},
    }  # fmt: skip
    for kind, changed in changes.items():
        verdict = verdicts(healthy(0, audit=audit, **changed))[0]
        assert (verdict.kind, verdict.command) == (kind, audit)


@pytest.mark.parametrize(
    ("kind", "fit", "held"),
    [("overfitting", (0.6, 0.2), (0.08, 0.2)), ("under_fitting", (0.1, 0.25), (0.1, 0.25)),
     ("dead_outputs", (0.1, 0.1), None)],
)  # fmt: skip
def test_a_model_without_steps_is_given_no_option_that_it_would_refuse(kind, fit, held):
    rng = np.random.default_rng(0)
    taught, beyond = rows(rng, *fit), rows(rng, *(held or fit))
    if held is None:
        beyond = Rows(**{**vars_of(beyond), "score": np.full(len(beyond.score), 0.3)})
    parts = {"fit": taught, "held": beyond}
    without = {"lr": None, "epochs": 0, "curve": [], "null_loss": None, "moved": None, "saturated": None}
    tabular, network = (verdicts(healthy(0, **parts, **changes))[0] for changes in (without, {}))
    assert tabular.kind == network.kind == kind
    assert tabular.command == "" and "own options" in tabular.todo.en
    assert network.command.startswith("barcast train lstm --") and "own options" not in network.todo.en


def test_skill_through_time_where_sessions_are_small():
    rng = np.random.default_rng(0)
    part = Rows(**{**vars_of(rows(rng, 0.3)), "across": False})
    assert part.skill(part.score).value == pytest.approx(np.corrcoef(part.score, part.target)[0, 1])
    assert part.difference(part.skill(part.score), part.skill(part.score)).high == 0


def test_values_of_other_bars_stay_within_their_symbol():
    symbol = np.array([0, 0, 0, 1, 1])
    values = np.arange(5.0)
    assert lagged_values(values, symbol, np.arange(5), 1).tolist()[:2] == [1, 2]
    np.testing.assert_array_equal(
        lagged_values(values, symbol, np.arange(5), -2), [np.nan, np.nan, 0, np.nan, np.nan]
    )


def test_a_sample_keeps_sessions_whole_enough_to_rank():
    session = np.repeat(np.arange(500), 300)
    chosen, spacing = sample_rows(np.arange(len(session)), session, 20_000)
    counts = np.bincount(session[chosen])
    assert len(chosen) <= 20_000 and counts[counts > 0].min() >= 100 and np.all(np.diff(chosen) > 0)
    assert set(np.flatnonzero(counts)) == set(range(0, 500, spacing))
    assert sample_rows(np.arange(50), session, 100)[1] == 1


def test_a_straight_line_finds_what_is_linear():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(5000, 3)).astype(np.float32)
    target = inputs[:, 1] + rng.normal(size=5000)
    target[:10] = np.nan
    _, beyond = ridge_probe(inputs, target, np.arange(3000), np.arange(3000, 5000))
    assert np.corrcoef(beyond, inputs[3000:, 1])[0, 1] > 0.99


def test_inputs_that_never_vary_are_named():
    inputs = np.ones((10, 2), np.float32)
    inputs[3, 0] = 2
    assert constant_inputs(inputs, ("a", "b")) == ["b"]
