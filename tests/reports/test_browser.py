"""The report as a reader meets it: opened from disk in a real Chromium without a network."""

import csv
import io
import re
from itertools import combinations

import pytest

from barcast.reports.map import MapData, write_map
from barcast.reports.page import page_words
from tests.reports.demo import market_report
from tests.reports.variants import HOSTILE, small_report

pytestmark = pytest.mark.browser

#: What stays in Latin letters in a Chinese page.
NAMES = {"barcast", "lstm", "LSTM", "lightgbm", "RankIC", "ICIR", "XSHG", "share", "parquet", "UTC"}
CHARTS = ("comparison", "monthly", "deciles", "calibration", "predictions", "training")
#: Colours of a canvas, by how often they are drawn.
DRAWN_COLOURS = """(key) => {
  const canvas = document.querySelector(`#chart-${key} canvas`);
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Map();
  for (let i = 0; i < pixels.length; i += 4) {
    if (!pixels[i + 3]) continue;
    const colour = pixels.slice(i, i + 3).join(",");
    seen.set(colour, (seen.get(colour) || 0) + 1);
  }
  return Object.fromEntries([...seen].sort((a, b) => b[1] - a[1]).slice(0, 40));
}"""
CHART_TEXT = """(key) => {
  const chart = echarts.getInstanceByDom(document.querySelector(`#chart-${key} .canvas`));
  return chart.getZr().storage.getDisplayList().map((item) => item.style.text || "").filter(Boolean);
}"""
#: Every text a reader sees, hears or meets as a hint.
VISIBLE_TEXT = """() => {
  const named = [...document.querySelectorAll("body *")]
    .filter((e) => e.checkVisibility());
  const hints = named
    .flatMap((e) => ["aria-label", "title", "placeholder"].map((name) => e.getAttribute(name)))
    .filter(Boolean);
  return [document.title, document.body.innerText, ...hints].join("\\n");
}"""


VIEWS = {
    "skill": "Skill", "errors": "Errors", "direction": "Direction", "order": "Order within sessions",
    "cost": "Time and size",
}  # fmt: skip


def rgb(page, token):
    value = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('{token}').trim()")
    return ",".join(str(int(value[i : i + 2], 16)) for i in (1, 3, 5))


def rows(page, table, column):
    return page.locator(f"#{table} tbody tr > :nth-child({column})").all_inner_texts()


def numbers(texts):
    return [float(re.sub(r"[^0-9.−-]", "", text.split("\n")[0]).replace("−", "-")) for text in texts]


EXPECTED_COLOURS = {
    "comparison": ("--accent", "--reference"),
    "monthly": ("--accent-pale",),
    "deciles": ("--up", "--down"),
    "calibration": ("--ink-2",),
    "predictions": ("--up", "--down"),
    "training": ("--accent",),
}
LABEL_BOXES = """(key) => {
  const host = document.querySelector(`#chart-${key} .canvas`);
  const items = echarts.getInstanceByDom(host).getZr().storage.getDisplayList();
  return items.filter((item) => item.style.text && !item.ignore && !item.invisible).map((item) => {
    const box = item.getBoundingRect().clone();
    if (item.transform) box.applyTransform(item.transform);
    const [right, bottom] = [box.x + box.width, box.y + box.height];
    const isCut = box.x < -1 || box.y < -1 || right > host.clientWidth + 1 || bottom > host.clientHeight + 1;
    return { text: item.style.text, left: box.x, top: box.y, right, bottom, isCut };
  });
}"""


def overlap(one, other):
    across = min(one["right"], other["right"]) - max(one["left"], other["left"])
    down = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
    return across > 1 and down > 1


@pytest.mark.parametrize(
    ("name", "theme", "width", "lang"),
    [("market", "light", 1440, "en"), ("market", "dark", 390, "zh"), ("small", "light", 390, "en")],
)
def test_every_chart_is_drawn_with_all_its_labels(open_report, name, theme, width, lang):
    page = open_report(name, theme=theme, width=width, hash_=f"#top?lang={lang}")
    for key, colours in EXPECTED_COLOURS.items():
        drawn = page.evaluate(DRAWN_COLOURS, key)
        assert sum(drawn.values()) > 2000, key
        for token in colours:
            assert drawn.get(rgb(page, token), 0) > 20, (key, token)
        labels = page.evaluate(LABEL_BOXES, key)
        assert len(labels) > 5, key
        assert [label["text"] for label in labels if label["isCut"]] == [], key
        covered = [(a["text"], b["text"]) for a, b in combinations(labels, 2) if overlap(a, b)]
        assert covered == [], key
    is_inside = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert is_inside, "the page scrolls sideways"


def test_language_switch_leaves_no_word_behind(open_report):
    report = market_report(40)
    page = open_report("market")
    page.locator("details.numbers").evaluate_all("(all) => all.forEach((item) => { item.open = true; })")
    # The command and the config's keys and values are what was typed, in any language.
    page.locator("#command, .tree dl").evaluate_all("(all) => all.forEach((item) => { item.hidden = true; })")
    english = page.evaluate(VISIBLE_TEXT)
    page.get_by_role("button", name="中文").click()
    chinese = page.evaluate(VISIBLE_TEXT)
    pairs = [pair for pair in page_words(report).values() if pair[0] != pair[1]]
    known = [pair for pair in pairs if pair[0] in english]
    assert len(known) > 120
    left = [
        en for en, _ in known if len(en) > 2 and re.search(rf"(?<![\w-]){re.escape(en)}(?![\w-])", chinese)
    ]
    assert left == []
    assert (
        report.title.zh in chinese
        and report.verdict.headline.zh in chinese
        and report.warnings[0].zh in chinese
    )
    for text in (
        report.title.en,
        report.verdict.headline.en,
        report.warnings[0].en,
        "historical mean",
        "RankIC less ridge",
    ):
        assert text not in chinese
    # Whatever is still written in Latin letters is a name or a unit.
    names = set(re.findall(r"[A-Za-z]{4,}", chinese))
    assert names <= NAMES
    charts = {key: page.evaluate(CHART_TEXT, key) for key in CHARTS}
    assert "月份" in charts["monthly"] and "平均实际对数收益（基点）" in charts["calibration"]
    for key, texts in charts.items():
        assert set(re.findall(r"[A-Za-z]{4,}", " ".join(texts))) <= NAMES, key
    page.get_by_role("button", name="EN", exact=True).click()
    assert page.evaluate(VISIBLE_TEXT) == english
    assert "Month" in page.evaluate(CHART_TEXT, "monthly")


def test_red_is_up_in_chinese_and_green_in_english_unless_chosen(open_report):
    page = open_report("market", locale="zh-CN")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert rgb(page, "--up") == rgb(page, "--red")
    page.get_by_role("button", name="EN", exact=True).click()
    assert rgb(page, "--up") == rgb(page, "--green")
    page.get_by_role("button", name="Red up").click()
    assert rgb(page, "--up") == rgb(page, "--red")
    # The reader's choices live in the address, so that a copied address shows the same page.
    assert "lang=en" in page.url and "up=red" in page.url
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.locator("html").get_attribute("lang") == "en" and rgb(page, "--up") == rgb(page, "--red")


def test_theme_follows_the_system_until_chosen(open_report):
    page = open_report("small", theme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Light", exact=True).click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("html").get_attribute("data-theme") == "light"
    assert not page.locator("nav.sections").is_visible()


def test_search_sort_and_pages_of_forecasts(open_report):
    page = open_report("market")
    report = market_report()
    assert rows(page, "predictions-table", 2) == [str(rank) for rank in range(1, 26)]
    page.locator("#predictions-table input").fill("688")
    found = rows(page, "predictions-table", 1)
    expected = [p for p in report.predictions if "688" in p.symbol]
    assert found and all("688" in symbol for symbol in found)
    assert (
        page.locator("#predictions-table .count").first.inner_text()
        == f"{len(expected):,} of {len(report.predictions):,}"
    )
    page.locator("#predictions-table input").fill("short history")
    notes = [p.symbol for p in report.predictions if p.note and "short history" in p.note.en]
    assert sorted(rows(page, "predictions-table", 1)) == sorted(notes) and len(notes) < 25
    page.locator("#predictions-table input").fill("nothing like this")
    assert page.locator("#predictions-table tbody").inner_text() == "Nothing matches the search."
    page.locator("#predictions-table input").fill("")
    page.locator("#predictions-table").get_by_role("button", name="Last page").click()
    # Symbols without a forecast come last, and say why.
    last = page.locator("#predictions-table tbody tr").last
    assert last.locator("abbr").first.get_attribute("title") == "no bar for 34 sessions"


def test_sorting_puts_missing_values_last_both_ways(open_report):
    page = open_report("market")
    head = page.locator("#comparison-table > div:visible thead th").nth(1)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    down = page.locator("#comparison-table > div:visible tbody tr > :nth-child(2)").all_inner_texts()
    assert numbers(down[:6]) == sorted(numbers(down[:6]), reverse=True) and down[6:] == ["–", "–"]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    up = page.locator("#comparison-table > div:visible tbody tr > :nth-child(2)").all_inner_texts()
    assert numbers(up[:6]) == sorted(numbers(up[:6])) and up[6:] == ["–", "–"]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "none"
    names = page.locator("#comparison-table > div:visible tbody th").all_inner_texts()
    assert [name.split("\n")[0] for name in names] == [
        row.name.en for row in market_report(40).comparisons[0].rows
    ]


def test_comparison_marks_the_best_explains_dashes_and_saves_intervals(open_report):
    page = open_report("market")
    table = page.locator("#comparison-table > div:visible")
    comparison = market_report(40).comparisons[0]
    shown = dict.fromkeys(VIEWS, 0)
    for position, column in enumerate(comparison.columns):
        table.locator(".views").get_by_role("button", name=VIEWS[column.view], exact=True).click()
        shown[column.view] += 1
        marked = table.locator(f"tbody tr > :nth-child({shown[column.view] + 1}) .best")
        values = [
            row.cells[position].value for row in comparison.rows if row.cells[position].value is not None
        ]
        best = {"higher": max, "lower": min}.get(column.better)
        assert marked.count() == (sum(value == best(values) for value in values) if best else 0), column.key
    table.locator(".views").get_by_role("button", name="Skill", exact=True).click()
    assert table.locator("abbr").first.get_attribute("title") == "a constant forecast has no rank"
    assert re.fullmatch(
        r"\[−?0\.\d{4}, −?0\.\d{4}\]", table.locator("td:nth-child(2) .range").first.inner_text()
    )
    assert table.locator("tbody tr").last.locator("td").first.inner_text().endswith("± 0.0021 over seeds")
    table.locator(".views").get_by_role("button", name="Direction", exact=True).click()
    assert (
        table.locator("tbody tr").first.locator(".star").get_attribute("title") == "the forecast never varies"
    )
    with page.expect_download() as download:
        table.get_by_role("button", name="Download CSV").click()
    lines = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8-sig"))))
    last = comparison.rows[-1].cells[0]
    assert float(lines[-1]["rank_ic_low"]) == pytest.approx(last.low, rel=1e-5)
    assert lines[0]["rank_ic"] == "" and lines[-1]["model"] == "lstm (seed 0)"
    page.get_by_role("button", name="Route, tradable rows").click()
    assert "tradable" in page.locator("#comparison-table > div:visible h3").inner_text()
    page.locator("#chart-comparison select").select_option(label="MAE")
    assert "MAE (bp)" in page.evaluate(CHART_TEXT, "comparison")


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_the_comparison_fits_the_page_in_every_view(open_report, locale):
    for width in (1280, 1440):
        page = open_report("market", width=width, locale=locale)
        scroller = page.locator("#comparison-table > div:visible .scroller")
        for button in page.locator("#comparison-table > div:visible .views button").all():
            button.click()
            wanted, room = scroller.evaluate("(it) => [it.scrollWidth, it.clientWidth]")
            assert wanted <= room, (width, button.inner_text())
        assert page.locator("#comparison-table > div:visible .views button").count() == len(VIEWS)
        wide = page.locator(".scroller:visible").evaluate_all(
            "(all) => all.filter((it) => it.scrollWidth > it.clientWidth).map((it) => it.ariaLabel)"
        )
        assert wide == [], width


def test_what_looks_equal_is_marked_together_and_nothing_where_all_are_equal(open_report):
    page = open_report("ties")
    marked = page.locator("#comparison-table > div:visible tbody tr .best").all_inner_texts()
    assert marked == ["0.0512", "0.0512"]
    name = page.locator("#comparison-table > div:visible tbody tr th").first
    assert name.inner_text().split() == ["a"]
    page.get_by_role("button", name="中文").click()
    assert name.inner_text().split() == ["模型a", "a"]  # the name that a user types stays in sight


def test_csv_holds_every_row_and_starts_no_formula(open_report):
    page = open_report("market")
    with page.expect_download() as download:
        page.locator("#predictions-table").get_by_role("button", name="Download CSV").click()
    raw = download.value.path().read_bytes()
    assert download.value.suggested_filename == "predictions.csv" and raw.startswith("\ufeff".encode())
    lines = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"))))
    expected = {p.symbol: p for p in market_report().predictions}
    assert len(lines) == len(expected)
    for line in lines[:50]:
        assert float(line["y_hat"]) == pytest.approx(expected[line["symbol"]].y_hat, rel=1e-5)
        assert line["as_of"] == "2025-08-22" and line["for_session"] == "2025-09-01"
    assert lines[-1]["y_hat"] == ""
    page = open_report("hostile")
    with page.expect_download() as download:
        page.locator("#predictions-table").get_by_role("button", name="Download CSV").click()
    table = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8-sig"))))
    assert [line["symbol"] for line in table] == [HOSTILE, '\'=HYPERLINK("x")']


def test_7000_symbols_stay_quick(open_report):
    page = open_report("many")
    took = page.evaluate("""() => {
      const host = document.getElementById("symbols-table");
      const box = host.querySelector("input");
      const timed = (act) => {
        const start = performance.now();
        act();
        host.getBoundingClientRect();
        return performance.now() - start;
      };
      const type = (text) => timed(() => { box.value = text; box.dispatchEvent(new Event("input")); });
      return {
        search: type("60"), all: type(""),
        sort: timed(() => host.querySelectorAll("thead button")[2].click()),
        next: timed(() => host.querySelectorAll(".pager button")[2].click()),
      };
    }""")
    assert max(took.values()) < 1000, took
    assert page.locator("#symbols-table tbody tr").count() == 25
    page.locator("#symbols-table select").select_option("250")
    assert page.locator("#symbols-table tbody tr").count() == 250
    assert page.evaluate("document.querySelectorAll('*').length") < 6000


def test_hostile_text_is_inert(open_report):
    page = open_report("hostile")
    for chart in CHARTS:
        canvas = page.locator(f"#chart-{chart} .canvas")
        if canvas.is_visible():
            canvas.hover()
    page.get_by_role("button", name="中文").click()
    page.wait_for_timeout(100)
    assert page.locator("img").count() == 0
    assert page.title() == f"zh {HOSTILE} · barcast"
    assert rows(page, "predictions-table", 1) == [HOSTILE, '=HYPERLINK("x")']


def test_small_universe_says_so(open_report):
    page = open_report("small")
    assert "Small universe: fewer than 30 symbols" in page.locator("#notices").inner_text()
    assert "All rows are sorted by score" in page.locator("#chart-deciles .how").inner_text()
    # Five forecasts are five bars with their names; FB has one, and says that its history is short.
    assert {"AAPL", "FB", "GOOG", "IBM", "MSFT"} <= set(page.evaluate(CHART_TEXT, "predictions"))
    note = page.locator("#predictions-table tbody tr", has_text="FB").inner_text()
    assert "short history: 196 bars" in note
    assert page.locator("#cards dt").all_inner_texts()[0] == "AUC"


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_empty_sections_say_why(open_report, lang):
    page = open_report("empty", hash_=f"#top?lang={lang}")
    words = page_words(small_report())
    position = ("en", "zh").index(lang)
    text = page.locator("main").inner_text()
    for key, pair in words.items():
        if key.startswith("empty.") and key not in ("empty.training", "empty.environment"):
            assert pair[position] in text, key
    own_reason = ("ridge is solved in one step", "岭回归一步求解")[position]
    assert own_reason in page.locator("#chart-training").inner_text()
    assert page.locator(".canvas:visible").count() == 0


def test_one_of_everything_still_draws(open_report):
    page = open_report("thin", width=390)
    for key in CHARTS:
        assert sum(page.evaluate(DRAWN_COLOURS, key).values()) > 300, key
    assert "NaN" not in page.locator("main").inner_text()
    assert not any("NaN" in text for key in CHARTS for text in page.evaluate(CHART_TEXT, key))
    assert {"2011-01"} < set(page.evaluate(CHART_TEXT, "monthly"))


def test_forecasts_without_size_are_drawn_by_score_and_neither_rise_nor_fall(open_report):
    page = open_report("unsized")
    figure = page.locator("#chart-predictions")
    assert "only the order of the scores" in figure.locator(".how").inner_text()
    assert figure.locator("h3").inner_text() == "Order of the forecasts"
    assert not figure.locator(".legend i").count()
    colours = page.evaluate(DRAWN_COLOURS, "predictions")
    assert colours[rgb(page, "--accent")] > 300
    assert not {rgb(page, "--up"), rgb(page, "--down")} & set(colours)
    assert "Score" in page.evaluate(CHART_TEXT, "predictions")
    heads = page.locator("#predictions-table thead").inner_text()
    assert "Forecast" not in heads and "P(rise)" not in heads and "Score" in heads
    boxes = [page.locator(f"#chart-{key}").bounding_box() for key in ("deciles", "calibration")]
    assert "no size" in page.locator("#chart-calibration").inner_text()
    assert boxes[1]["y"] > boxes[0]["y"] + boxes[0]["height"] > 400 > boxes[1]["height"]
    assert "horizon 1, 5" in page.locator("#cards").inner_text()


def test_navigation_keeps_the_place_in_the_address(open_report):
    page = open_report("market", hash_="#symbols?lang=zh")
    assert abs(page.locator("#symbols").bounding_box()["y"] - 72) < 40
    page.locator("nav.sections a[href='#made']").click()
    page.wait_for_selector("nav.sections a[href='#made'][aria-current]")
    assert page.url.endswith("#made?lang=zh")


def test_keyboard_reaches_tables_and_tables_are_named(open_report):
    page = open_report("market")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    sort = page.locator("#symbols-table thead button").nth(1)
    sort.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.key") == "rows"
    step = page.locator("#symbols-table .pager").get_by_role("button", name="Next page")
    step.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.locator("#symbols-table .pager .count").inner_text() == "Page 3 of 20"
    unnamed = page.evaluate("""() => {
      const tables = [...document.querySelectorAll("table")].filter((t) => !t.caption?.textContent);
      const parts = "[role=img], [role=region], [role=group], nav, select, input, button";
      const nameless = [...document.querySelectorAll(parts)]
        .filter((e) => e.checkVisibility() && !e.getAttribute("aria-label") && !e.textContent.trim());
      return tables.length + nameless.length;
    }""")
    assert unnamed == 0
    for figure in page.locator("figure.chart .canvas").all():
        assert len(figure.get_attribute("aria-label")) > 20


def test_chart_numbers_are_there_as_a_table(open_report):
    page = open_report("market")
    page.locator("#chart-deciles summary").click()
    page.locator("#chart-deciles .numbers td").first.wait_for()
    shown = numbers(page.locator("#chart-deciles .numbers td:nth-child(2)").all_inner_texts())
    assert shown == [
        pytest.approx(point.mean * 1e4, abs=0.06) for point in market_report(40).deciles[0].points
    ]


def test_copy_button_copies_the_command(open_report):
    page = open_report("market")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("button[data-copy]").click()
    page.locator("button[data-copy]", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == market_report(40).command


def test_policy_stops_a_script_that_is_not_ours(report_files, chromium):
    source = report_files["small"].read_text(encoding="utf-8")
    changed = report_files["small"].with_name("changed.html")
    body, end, tail = source.rpartition("</body>")
    changed.write_text(f"{body}<script>document.title = 'owned'</script>{end}{tail}", encoding="utf-8")
    page = chromium.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(changed.as_uri())
    page.wait_for_selector("html[data-ready]")
    title = page.title()
    page.close()
    assert "owned" not in title and any("Content Security Policy" in text for text in refused)


def test_the_legend_of_a_map_counts_symbols_and_the_page_has_no_direction(chromium, tmp_path):
    n = 36  # ten groups of two with a colour, eight of one that share theirs, eight unknown
    industries = [
        f"I{place // 2:02d}" if place < 20 else f"J{place}" if place < 28 else "" for place in range(n)
    ]
    spread = tuple(float(place) for place in range(n))
    data = MapData(
        run="lstm-1", width=8, shares=(0.5, 0.2), symbols=tuple(f"S{place}" for place in range(n)),
        names=("",) * n, x=spread, y=spread, groups={"industry": tuple(industries)}, warnings=(), purity=(),
    )  # fmt: skip
    write_map(tmp_path / "map.html", data)
    page = chromium.new_page()
    page.goto((tmp_path / "map.html").as_uri())
    page.wait_for_selector("html[data-ready=true]")
    legend = page.inner_text("#chart-map .legend")
    assert "I00 (2)" in legend and "others (8)" in legend
    assert not page.query_selector("[data-choice^='up:']") and page.query_selector(
        "[data-choice='theme:dark']"
    )
    page.close()
