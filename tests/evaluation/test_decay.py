"""Decay of stored models: planted decay is found, stationary markets are quiet, constants fail."""

import json
import math

import numpy as np
import pytest

from barcast.core.errors import DataError, UsageError
from barcast.evaluation.cusum import Cusum
from barcast.evaluation.decay import measure_decay
from barcast.evaluation.named import name_symbols
from barcast.evaluation.psi import InputShift
from barcast.evaluation.skill import ForecastRows, mean_by_group
from tests.evaluation.decaying import LABEL, Market, market

CHARTS = Cusum(label_sessions=LABEL)
#: Stated rates: 5 % for charts, 10 % of those named. Over 100 markets chance adds up to 6 points to them.
QUIET_CHARTS, QUIET_NAMES = 0.11, 0.19
COHORT = range(0, 60, 4)
FEW = frozenset(range(0, 100, 20))


def measured(made):
    num_symbols = len(made.industry)
    symbols = [f"S{s:03d}" for s in range(num_symbols)]
    industry = [f"I{i}" for i in made.industry]
    return measure_decay(symbols, made.reference, made.since, CHARTS, cohorts={"industry": industry})


def measured_from(made, begins):
    """The report where rows of each symbol since training begin at a session of its own."""
    symbols, industry = zip(*((f"S{s:03d}", f"I{i}") for s, i in enumerate(made.industry)), strict=True)
    rows = made.since.take(made.since.session >= begins[made.since.symbol])
    cohorts = {"industry": industry}
    return measure_decay(symbols, made.reference, rows, CHARTS, cohorts=cohorts, begins=begins)


def measured_all(num_markets, first_seed=0, **options):
    return [measured(market(first_seed + seed, **options)) for seed in range(num_markets)]


def share(happened):
    return float(np.mean(list(happened)))


def named_of(report):
    return {int(named.symbol[1:]) for named in report.naming.named}


@pytest.fixture(scope="module")
def quiet():
    return measured_all(100)


# What is asked of any detector of a fall: quiet where nothing changed, and it speaks where a fall was planted.
# A detector maps a report to whether it alarms; those that never or always do must not pass.


def is_sound(detector, quiet, planted):
    return share(map(detector, quiet)) <= QUIET_CHARTS and share(map(detector, planted)) >= 0.9


def always(report):
    return True


def never(report):
    return False


def pooled_alarms(report):
    return report.pooled.alarm is not None


def cohort_alarms(report, name="industry I0"):
    return any(chart.alarm is not None for chart in report.cohorts["industry"] if name in chart.name)


def test_a_signal_switched_off_for_all_is_found_and_a_stationary_one_is_quiet(quiet):
    planted = measured_all(20, 1000, skill=0.3, off=range(40), off_after=60)
    assert is_sound(pooled_alarms, quiet, planted)
    assert not is_sound(always, quiet, planted)
    assert not is_sound(never, quiet, planted)
    onsets = [report.pooled.onset for report in planted if report.pooled.onset is not None]
    delays = [report.pooled.known_at - 360 for report in planted if report.pooled.known_at is not None]
    assert abs(np.median(onsets) - 360) <= 2 * planted[0].pooled.block_length
    assert 0 < np.median(delays) <= 80


def test_a_signal_switched_off_for_a_cohort_is_found_in_that_cohort(quiet):
    planted = measured_all(20, 2000, num_symbols=60, skill=0.4, off=COHORT, off_after=60)
    assert is_sound(cohort_alarms, quiet, planted)
    assert not is_sound(always, quiet, planted)
    assert not is_sound(never, quiet, planted)
    # the rate is that of all cohorts together, and those that kept their signal are not blamed
    assert share(cohort_alarms(report, "industry") for report in quiet) <= QUIET_CHARTS
    others = [chart for report in planted for chart in report.cohorts["industry"][1:]]
    assert share(chart.alarm is not None for chart in others) <= 0.1


def names_are_sound(namer, quiet, planted, decayed):
    """Return whether names are few where nothing changed, mostly right, and most of the decayed among them."""
    named = [namer(report) for report in planted]
    in_vain = share(len(names - decayed) / max(len(names), 1) for names in named)
    found = share(len(names & decayed) / len(decayed) for names in named)
    return share(bool(namer(report)) for report in quiet) <= QUIET_NAMES and in_vain <= 0.2 and found >= 0.7


def test_the_twentieth_that_lost_its_signal_is_named(quiet):
    planted = measured_all(15, 3000, num_symbols=100, num_reference=600, num_since=500, skill=0.5, off=FEW)
    assert names_are_sound(named_of, quiet, planted, FEW)
    assert not names_are_sound(lambda report: set(), quiet, planted, FEW)
    assert not names_are_sound(lambda report: set(range(100)), quiet, planted, FEW)

    def uncorrected(report):  # each symbol by its own p-value, as if it were the only test
        return set(np.flatnonzero(report.naming.p_value <= 0.05).tolist())

    assert not names_are_sound(uncorrected, quiet, planted, FEW)


def test_a_small_universe_is_watched_by_its_gain():
    quiet = measured_all(40, 4000, num_symbols=6, skill=0.4)
    planted = measured_all(15, 5000, num_symbols=6, skill=0.4, off=range(6))
    assert {report.pooled.measure for report in quiet + planted} == {"gain"}
    assert is_sound(pooled_alarms, quiet, planted)


def test_a_symbol_that_hardly_had_an_opinion_does_not_rule_the_chart():
    made = market(4001, num_symbols=6, skill=0.4)
    symbols = [f"S{s}" for s in range(6)]

    def with_small(rows, size):
        y_hat = np.where(rows.symbol == 0, size * rows.y_hat, rows.y_hat)
        return ForecastRows(rows.symbol, rows.session, y_hat, rows.y, rows.known_at)

    before = with_small(made.reference, 1e-9)
    silent = measure_decay(symbols, before, with_small(made.since, 1e-9), CHARTS).pooled
    awake = measure_decay(symbols, before, with_small(made.since, 1e-3), CHARTS).pooled
    assert awake.since == pytest.approx(silent.since, abs=0.01)
    assert awake.alarm is None


def test_models_that_are_watched_later_delay_no_other():
    """Twenty of eighty, most of an industry among them, were fitted again 200 sessions into the time since."""
    again = [*range(0, 48, 4), 1, 2, 3, 5, 6, 7, 9, 10]
    begins = np.where(np.isin(np.arange(80), again), 500, 300)
    quiet = [measured_from(market(7000 + seed, num_symbols=80), begins) for seed in range(60)]
    planted = [
        measured_from(market(7500 + s, num_symbols=80, skill=0.3, off=range(80), off_after=60), begins)
        for s in range(10)
    ]
    assert is_sound(pooled_alarms, quiet, planted)
    assert share(cohort_alarms(report, "industry") for report in quiet) <= QUIET_CHARTS
    assert max(report.pooled.known_at for report in planted if report.pooled.alarm) < 500
    for report in quiet:  # an industry of which eight in twenty are watched is not watched yet
        first, second, *_ = report.cohorts["industry"]
        assert first.num_watched < 0.3 * second.num_watched


def test_few_models_that_are_watched_already_are_no_market():
    """One of forty was taken over: beside nobody its gain would be 0, and the charts one symbol's."""
    begins = np.where(np.arange(40) == 7, 300, 500)
    made = market(8000, skill=0.4)
    report = measured_from(made, begins)
    later = measured_from(made, np.full(40, 500))
    assert report.pooled == later.pooled and report.naming.named == later.naming.named
    nobody = measured_from(made, np.where(np.arange(40) == 7, 300, 560))
    assert nobody.naming.num_judged == 0 and "no block" in nobody.pooled.reason


def test_a_storm_alone_is_no_decay():
    """Every outcome triples when the market storms: errors grow, skill does not fall."""
    reports, errors_grew = [], []
    for seed in range(20):
        made = market(6000 + seed, skill=0.3)
        rows = made.since
        wild = ForecastRows(rows.symbol, rows.session, rows.y_hat, 3 * rows.y, rows.known_at)
        reports.append(measured(Market(made.reference, wild, made.industry)))
        errors = [-by_symbol(np.abs(part.y - part.y_hat), part) for part in (made.reference, wild)]
        names = [f"S{s:03d}" for s in range(40)]
        errors_grew.append(len(name_symbols(names, *errors, label_sessions=LABEL).named))
    assert share(map(pooled_alarms, reports)) <= QUIET_CHARTS
    assert share(bool(report.naming.named) for report in reports) <= 0.25
    assert min(errors_grew) == 40  # errors by themselves would blame every model


def by_symbol(values, rows):
    return mean_by_group(rows, values, np.arange(40, dtype=np.int32), 40)


def test_what_is_known_later_changes_no_alarm():
    made = market(1001, skill=0.4, off=range(40), off_after=40)
    symbols = [f"S{s:03d}" for s in range(40)]
    late = np.random.default_rng(0).random(len(made.since.y)) < 0.1
    known_at = np.where(late, made.since.known_at + 9, made.since.known_at).astype(np.int32)
    rows = ForecastRows(made.since.symbol, made.since.session, made.since.y_hat, made.since.y, known_at)
    whole = measure_decay(symbols, made.reference, rows, CHARTS).pooled
    assert whole.alarm is not None
    for asof in range(whole.known_at - 40, 560, 17):
        then = measure_decay(symbols, made.reference, rows.known_by(asof), CHARTS).pooled
        assert then.path == whole.path[: len(then.path)]
        assert then.alarm == (whole.alarm if asof >= whole.known_at else None)


def test_the_order_of_rows_is_of_no_account():
    made = market(8)
    mixed = np.random.default_rng(0).permutation(len(made.since.y))
    symbols = [f"S{s:03d}" for s in range(40)]
    plain = measure_decay(symbols, made.reference, made.since, CHARTS)
    again = measure_decay(symbols, made.reference, made.since.take(mixed), CHARTS)
    np.testing.assert_allclose(again.pooled.path, plain.pooled.path)
    np.testing.assert_allclose(again.naming.p_value, plain.naming.p_value)


def test_the_report_is_plain_and_speaks():
    made = market(1, skill=0.4, off=range(40))
    shift = InputShift("volume", 0.5, 0.05, 0.2, 0.0, 0.0, True)
    steady = InputShift("ret_1", 0.03, 0.04, 0.2, 0.0, 0.0, False)
    cohorts = {"preset": ["fast"] * 15 + ["high"] * 15 + [""] * 10, "industry": [""] * 40}
    report = measure_decay(
        [f"S{s:03d}" for s in range(40)], made.reference, made.since, CHARTS, cohorts=cohorts,
        inputs=(shift, steady),
    )  # fmt: skip
    plain = json.loads(json.dumps(report.plain(), allow_nan=False))
    assert [chart["name"] for chart in plain["cohorts"]["preset"]] == ["preset fast", "preset high"]
    assert plain["cohorts"]["industry"] == []
    assert plain["pooled"]["alarm"] is not None
    assert plain["sentences"][0].startswith("all: skill fell from about session")
    assert plain["sentences"][-1].startswith("volume: shifted")
    assert report.cohorts["preset"][0].rate == CHARTS.rate / 2


def test_before_any_outcome_is_known_nothing_is_said():
    made = market(9)
    report = measure_decay(
        [f"S{s:03d}" for s in range(40)], made.reference, made.since.known_by(300), CHARTS,
        cohorts={"industry": [f"I{i}" for i in made.industry]},
    )  # fmt: skip
    assert "no block of 12 sessions is complete" in report.pooled.reason
    assert math.isnan(report.pooled.threshold)
    assert report.naming.num_judged == 0
    json.dumps(report.plain(), allow_nan=False)


def test_a_reference_that_is_none_is_refused():
    made = market(9, num_reference=60, num_since=60)
    symbols = [f"S{s:03d}" for s in range(40)]
    with pytest.raises(DataError, match="no forecast whose outcome was known"):
        measure_decay(symbols, made.reference.known_by(2), made.since, CHARTS)
    with pytest.raises(DataError, match="the reference runs to session"):
        measure_decay(symbols, made.since, made.reference, CHARTS)
    with pytest.raises(UsageError, match="grouping `preset` has 2 entries for 40 symbols"):
        measure_decay(symbols, made.reference, made.since, CHARTS, cohorts={"preset": ["fast", "high"]})


@pytest.mark.soak
@pytest.mark.parametrize(
    ("what", "options", "limit"),
    [
        ("usual", {}, 0.065),
        ("short", {"num_reference": 120, "num_since": 120}, 0.065),
        ("small", {"num_symbols": 6, "skill": 0.4}, 0.065),
        ("wide", {"num_symbols": 300, "num_industries": 20}, 0.08),
        ("skill that comes and goes", {"regimes": 0.3}, 0.12),  # hardly told from decay: see `cusum`
    ],
)
def test_stationary_markets_are_quiet(what, options, limit, soak_table):
    reports = measured_all(400 if what == "wide" else 1000, 10_000, **options)
    rates = {
        "pooled chart": (share(map(pooled_alarms, reports)), limit),
        "cohort charts": (share(cohort_alarms(report, "industry") for report in reports), limit),
        "names": (share(bool(report.naming.named) for report in reports), 0.13),
    }
    for detector, (rate, most) in rates.items():
        soak_table.add("evaluation", f"decay: {detector} quiet, market {what}", rate <= most)
    assert all(rate <= most for rate, most in rates.values()), rates
