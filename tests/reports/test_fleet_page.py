"""Pages of fleets and routed runs: bounded, self-contained, the same words in both languages, and drawn."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.reports import page
from barcast.reports.fleet import MOST_POINTS, shown_in_detail
from tests.reports.fleets import fleet_report, names, routed_report
from tests.reports.test_browser import CHART_TEXT, DRAWN_COLOURS, VISIBLE_TEXT
from tests.reports.test_page import FAMILIES, SOURCES, WORDS, read

REPORTS = {
    "trees": fleet_report,
    "networks": lambda: fleet_report(40, kind="networks"),
    "routed": routed_report,
}
CHARTS = {
    "trees": ("spread", "weights", "extremes", "errors", "paths", "reasons"),
    "networks": ("spread", "extremes", "learning", "paths", "reasons"),
    "routed": ("routing", "gains", "reasons"),
}
OWN_WORDS = json.loads((SOURCES / "fleet.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", REPORTS)
def test_nothing_is_loaded_from_anywhere(name):
    found = read(REPORTS[name]())
    for tag, attributes in found.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "video", "audio")
        assert "src" not in attributes and "style" not in attributes
        assert attributes.get("href", "#").startswith("#")
    own = [text for text in found.raw["script"] if "mountFleet" in text]
    assert len(own) == 1 and "http" not in own[0]


@pytest.mark.parametrize("name", REPORTS)
def test_each_section_of_the_navigation_is_there_and_words_of_others_are_not(name):
    report = REPORTS[name]()
    sections = page.sections_of(report)
    text = page.render(report)
    for section in sections:
        assert f'<section id="{section}"' in text and f'href="#{section}"' in text
    assert "training" not in sections and ("members" in sections) == (name == "trees")
    assert ("routing" in sections) == (name == "routed") != ("fleet" in sections)


def test_the_lead_of_a_residual_fleet_says_what_its_models_correct():
    plain = fleet_report()
    residual = replace(plain, fleet=replace(plain.fleet, universal="lstm-1"))
    texts = [re.sub(r"\s+", " ", page.render(each)) for each in (plain, residual)]
    leads = OWN_WORDS["lead.fleet"][0], OWN_WORDS["lead.residual"][0]
    assert [[f">{lead}<" in text for lead in leads] for text in texts] == [[True, False], [False, True]]


def test_luck_is_told_of_many_symbols_and_of_few_it_is_said_that_it_is_not():
    script = (SOURCES / "js" / "fleet.js").read_text(encoding="utf-8")
    assert re.search(r'known >= 40 \? t\("extremes.luck", .*\n\s+: t\("extremes.few", ', script)
    assert not any("thousand" in text or "千" in text for text in OWN_WORDS["lead.skills"])


def test_a_page_of_5000_symbols_stays_small():
    for report in (fleet_report(5000, num_failures=3000), routed_report(5000)):
        assert len(page.render(report).encode()) < 3_000_000
    assert len(fleet_report(5000).fleet.details) * 85 <= MOST_POINTS


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.floats(-1, 1), max_size=900), st.integers(1, 20_000))
def test_curves_are_bounded_and_hold_the_best_and_the_worst(skill, num_points):
    chosen = shown_in_detail(skill, num_points)
    most = max(MOST_POINTS // num_points, 8)
    assert len(set(chosen)) == len(chosen) == min(len(skill), len(chosen)) <= max(most, 0)
    known = sorted((value for value in skill if value is not None), reverse=True)
    if len(skill) <= most:
        assert sorted(chosen) == list(range(len(skill)))
    elif len(known) > most:
        assert skill[chosen[0]] == known[0] and skill[chosen[-1]] == known[-1] and len(chosen) == most
    shown = [skill[i] for i in chosen if skill[i] is not None]
    assert shown == sorted(shown, reverse=True)


def test_every_word_is_used_and_every_used_word_exists_in_both_languages():
    text = "\n".join(
        (SOURCES / name).read_text(encoding="utf-8") for name in ("js/fleet.js", "fleet.html.j2")
    )
    used = set(re.findall(r"""(?:\bt|title|say|label)\(\s*"([a-z_]+\.[a-z_0-9]+)\"""", text))
    used |= {
        f"{key}.{part}" for key in re.findall(r'figure\("([a-z]+)"\)', text) for part in ("title", "how")
    }
    assert used - set(WORDS) - set(OWN_WORDS) == set() and not set(WORDS) & set(OWN_WORDS)
    quoted = set(re.findall(r'"([a-z_]+\.[a-z_0-9]+)"', text))
    built = {*FAMILIES, "fleet", "members", "member", "skills", "server", "why", "because", "lead"}
    left = {key for key in set(OWN_WORDS) - used - quoted if key.split(".")[0] not in built}
    assert left == {"errors.title", "errors.how", "learning.title", "learning.how"}  # figures by kind
    for key, (english, chinese) in OWN_WORDS.items():
        holes = set(re.findall(r"\{\w+\}", english))
        assert holes == set(re.findall(r"\{\w+\}", chinese)) - {"{session}"}, key
        assert english and not re.search(r"[\u4e00-\u9fff]", english), key
        said = chinese.replace("{session}", "时点")
        assert said == english or re.search(r"[\u3000-\u303f\u4e00-\u9fff]", said), key


@pytest.fixture(scope="session")
def fleet_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleets")
    for name, make in REPORTS.items():
        page.write_report(folder / f"{name}.html", make())
    page.write_report(folder / "many.html", fleet_report(5000))
    return folder


@pytest.fixture
def open_page(chromium, fleet_files):
    contexts, problems = [], []

    def opened(name, hash_="", width=1280):
        context = chromium.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce")
        contexts.append(context)
        context.set_offline(True)
        found = context.new_page()
        found.on("console", lambda message: problems.append(message.text))
        found.on("pageerror", lambda error: problems.append(str(error)))
        found.goto(f"{(fleet_files / f'{name}.html').as_uri()}{hash_}")
        found.wait_for_selector("html[data-ready]")
        return found

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", REPORTS)
def test_every_chart_is_drawn_and_nothing_is_cut_off(open_page, name, width):
    found = open_page(name, width=width)
    for key in CHARTS[name]:
        assert sum(found.evaluate(DRAWN_COLOURS, key).values()) > 300, key
        assert not any("NaN" in text or "undefined" in text for text in found.evaluate(CHART_TEXT, key)), key
    text = found.locator("main").inner_text()
    assert not re.search(r"NaN|undefined|null", text.partition("How it was made")[0])
    wide = found.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0


@pytest.mark.browser
@pytest.mark.parametrize("name", REPORTS)
def test_a_chinese_page_is_chinese(open_page, name):
    found = open_page(name, "#top?lang=zh")
    own = [english for english, chinese in OWN_WORDS.values() if english != chinese and len(english) > 12]
    text = found.evaluate(VISIBLE_TEXT)
    assert [english for english in own if english in text] == []


@pytest.mark.browser
def test_a_symbol_is_chosen_by_name_by_click_and_one_after_the_other(open_page):
    found, report = open_page("trees"), fleet_report()
    symbols = [detail.symbol for detail in report.fleet.details]
    heading = found.locator("#symbol-picker h3")
    assert heading.inner_text() == symbols[0]
    found.locator("#symbol-picker button").nth(1).click()
    assert heading.inner_text() == symbols[1]
    box = found.locator("#symbol-picker input")
    box.fill(names(120)[7].lower())
    box.press("Enter")
    assert heading.inner_text() == names(120)[7]
    assert names(120)[7] in found.locator("#chart-paths h3").inner_text()
    box.fill("NOBODY")
    box.press("Enter")
    assert "barcast fleet show NOBODY --run fleet-demo" in found.locator("#symbol").inner_text()
    button = found.locator("#skills-table tbody button").nth(3)
    wanted = button.inner_text()
    button.click()
    assert heading.inner_text() == wanted == symbols[3]
    assert "XGBoost 31 of 150" in found.locator("#symbol-facts").inner_text()


@pytest.mark.browser
def test_5000_symbols_open_and_search_quickly(open_page):
    found = open_page("many")
    timing = "performance.getEntriesByType('navigation')[0].domComplete"
    assert found.evaluate(timing) < 5000
    assert "352 of 5,000" in found.locator("#symbol-picker").inner_text()
    found.locator("#skills-table input").fill("600123")
    assert found.locator("#skills-table tbody tr").count() == 1
    assert found.evaluate("document.querySelectorAll('*').length") < 6000


@pytest.mark.browser
def test_who_serves_whom_is_searched_by_reason_and_server(open_page):
    found, report = open_page("routed"), routed_report()
    columns = report.routing.symbols
    own = columns["server"].count("dedicated")
    assert f"{own} (" in found.locator("#routing-facts").inner_text()
    table = found.locator("#routing-table")
    table.locator("input").fill("too short: 3")
    assert table.locator("tbody tr").count() == 1
    assert "no model of its own" in table.locator("tbody tr").inner_text()
    table.locator("input").fill("own model is better with")
    assert f"{own} of 120" in table.locator(".count").first.inner_text()
    found.get_by_role("button", name="Measured and expected").click()
    assert "Measured gain (% of variance)" in found.evaluate(CHART_TEXT, "routing")
