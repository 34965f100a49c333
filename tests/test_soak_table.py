"""The table that the long sweeps leave behind."""

from tests.conftest import SoakTable


def test_rows_of_what_did_not_run_are_kept_and_a_repeated_one_is_told_anew(tmp_path):
    first, again = SoakTable(), SoakTable()
    first.path = again.path = tmp_path / "results" / "soak.md"
    first.add("training", "grid", True)
    first.add("training", "kills", True)
    first.add("store", "kills", True)
    first.write()
    again.add("training", "kills", False)  # one test of a room, chosen with -k
    again.write()
    assert first.path.read_text().splitlines()[2:] == [
        "| store | kills | passed |",
        "| training | grid | passed |",
        "| training | kills | FAILED |",
    ]
