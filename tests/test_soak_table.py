"""The table that the long sweeps leave behind."""

from datetime import UTC, datetime

import pytest

from tests.conftest import SoakTable


def test_rows_of_what_did_not_run_are_kept_and_a_repeated_one_is_told_anew(tmp_path):
    first, again = SoakTable(), SoakTable()
    first.path = again.path = tmp_path / "results" / "soak.md"
    first.add("training", "grid", True)
    first.add("training", "kills", True)
    first.add("store", "kills", True)
    first.write()
    kept = first.path.read_text().replace(str(datetime.now(UTC).date()), "2026-01-02")
    first.path.write_text(kept)
    again.add("training", "kills", False)  # one test of a room, chosen with -k
    again.write()
    assert first.path.read_text().splitlines()[2:] == [
        "| store | kills | passed | 2026-01-02 |",
        "| training | grid | passed | 2026-01-02 |",
        f"| training | kills | FAILED | {datetime.now(UTC).date()} |",
    ]


def test_a_sweep_that_fails_leaves_no_earlier_verdict(tmp_path):
    table = SoakTable()
    table.path = tmp_path / "soak.md"
    with table.judging("store", "kills"):
        pass
    table.write()
    with pytest.raises(AssertionError), table.judging("store", "kills") as found:
        found.append("3 of 4")
        assert not table.rows
    table.add("routing", "dial 0.2", True, "12 of 40 lose")
    table.write()
    day = datetime.now(UTC).date()
    assert table.path.read_text().splitlines()[2:] == [
        f"| routing | dial 0.2 | passed: 12 of 40 lose | {day} |",
        f"| store | kills | FAILED: 3 of 4 | {day} |",
    ]
