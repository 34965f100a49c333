"""The pages say of each kind what the code does, in both languages."""

import re
from pathlib import Path

import pytest

from barcast.quality import KINDS

DOCS = Path(__file__).parents[2] / "docs"


def rows(page, marker):
    """Cells of the table between two markers."""
    body = page.split(f"<!-- {marker}:start -->")[1].split(f"<!-- {marker}:end -->")[0]
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_table_of_kinds_is_that_of_the_code(lang):
    page = (DOCS / lang / "quality.md").read_text(encoding="utf-8")
    table = rows(page, "kinds")[2:]
    assert [row[0] for row in table] == [f"`{kind}`" for kind in KINDS]
    for row, kind in zip(table, KINDS.values(), strict=True):
        assert row[2] == kind.default
        assert row[1].replace("\\|", "|") == kind.meaning.in_language(lang)
        assert (row[3] in ("yes", "可以")) == ("mask" in kind.allowed)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_recall_is_at_least_95_percent(lang):
    page = (DOCS / lang / "quality.md").read_text(encoding="utf-8")
    recalls = [float(row[5].removesuffix(" %")) for row in rows(page, "recall")[2:]]
    assert len(recalls) >= 25
    assert min(recalls) >= 95


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_alarm_kind_of_the_main_data_sets_was_judged(lang):
    page = (DOCS / lang / "quality.md").read_text(encoding="utf-8")
    head, _, *alarms = rows(page, "alarms")
    judged = set(re.findall(r"^\| (us_market|cn_a_share|kdd17|us_long) \| `(\w+)` \| \d+ / \d+", page, re.M))
    for column, data in enumerate(head):
        if data in ("us_market", "cn_a_share", "kdd17", "us_long"):
            found = {row[0].strip("`") for row in alarms[:-1] if row[column] != "0"}
            assert found == {kind for name, kind in judged if name == data}
