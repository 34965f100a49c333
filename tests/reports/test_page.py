import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.reports import page
from tests.reports.demo import market_report
from tests.reports.variants import HOSTILE, REPORTS, hostile_report, small_report

SOURCES = files("barcast.reports") / "templates"
WORDS = json.loads((SOURCES / "words.json").read_text(encoding="utf-8"))
#: Word families whose keys the page puts together from a name.
FAMILIES = (
    "section",
    "verdict",
    "segment",
    "view",
    "use",
    "policy",
    "market",
    "basis",
    "frequency",
    "empty",
    "calibration",
    "table",
    "segments",
)


class Elements(HTMLParser):
    """Collects elements with their attributes and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements = []
        self.raw = {"script": [], "style": []}
        self.inside = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag if tag in self.raw else None
        if self.inside:
            self.raw[tag].append("")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.raw[self.inside][-1] += data


def read(report):
    return Elements(page.render(report))


@pytest.mark.parametrize("name", REPORTS)
def test_page_loads_nothing(name):
    found = read(REPORTS[name]())
    for tag, attributes in found.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "video", "audio")
        assert "src" not in attributes and "srcset" not in attributes
        assert not any(attribute.startswith("on") for attribute in attributes), (tag, attributes)
        assert "style" not in attributes
        if "href" in attributes:
            assert attributes["href"].startswith("#")
    for style in found.raw["style"]:
        assert "url(" not in style and "@import" not in style


def test_policy_allows_exactly_the_scripts_of_the_page():
    found = read(market_report(40))
    policy = next(a["content"] for _, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    kinds = [attributes.get("type", "") for tag, attributes in found.elements if tag == "script"]
    code = [text for text, kind in zip(found.raw["script"], kinds, strict=True) if kind == ""]
    assert len(code) == 2 and kinds.count("application/json") == 2
    for text in [*code, *found.raw["style"]]:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert "unsafe" not in policy


def test_hostile_text_never_becomes_markup():
    found = read(hostile_report())
    assert not [tag for tag, _ in found.elements if tag == "img"]
    assert sum(tag == "script" for tag, _ in found.elements) == 4
    data = json.loads(found.raw["script"][1])
    assert data["run_id"] == HOSTILE and data["failures"]["columns"]["symbol"] == {"all": HOSTILE}
    assert html.escape(HOSTILE) in page.render(hostile_report()).replace("&#34;", "&quot;").replace(
        "&#39;", "&#x27;"
    )


def test_same_report_gives_the_same_page():
    assert page.render(small_report()) == page.render(small_report())


def test_page_of_5000_symbols_stays_small():
    text = page.render(market_report(5000))
    echarts = (files("barcast.reports") / "vendor/echarts.common.min.js").read_text(encoding="utf-8")
    assert len(text.encode()) - len(echarts.encode()) < 2_500_000


def test_write_report_replaces_whole_files(tmp_path):
    path = tmp_path / "run" / "report.html"
    page.write_report(path, small_report())
    first = path.read_text(encoding="utf-8")
    page.write_report(path, market_report(40))
    assert path.read_text(encoding="utf-8") == page.render(market_report(40)) != first
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


plain_values = st.one_of(
    st.none(), st.integers(-9, 9), st.text(max_size=5), st.fixed_dictionaries({"en": st.text(max_size=3)})
)


@settings(max_examples=40, deadline=None)
@given(st.lists(plain_values, max_size=40))
def test_packed_columns_hold_the_same_values(values):
    column = json.loads(json.dumps(page.pack(values)))
    if "each" in column:
        found = column["each"]
    elif "all" in column:
        found = [column["all"]] * len(values)
    else:
        found = [column["of"][place] for place in column["at"]]
    assert found == values


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_embedded_json_cannot_end_its_script(value):
    text = page.embeddable_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_payload_rounds_only_beyond_six_digits():
    report = market_report(60)
    shown = page.payload(report)["symbols"]["values"][3]
    for exact, rounded in zip(report.symbols.values[3], shown, strict=True):
        assert (rounded is None and exact != exact) or rounded == pytest.approx(exact, rel=1e-5)


def test_config_shows_every_leaf():
    text = page.render(market_report(40))
    for leaf in (
        "<dt>training.max_seconds</dt><dd>null</dd>",
        "<dt>features.files</dt><dd>[]</dd>",
        "<dd>tech48</dd>",
    ):
        assert leaf in text


def test_daily_sessions_are_trading_days_in_chinese():
    daily = market_report(40)
    hourly = type(daily)(
        **{**vars(daily), "data": type(daily.data)(**{**vars(daily.data), "frequency": "1h"})}
    )
    assert "交易日数" in page.render(daily) and "交易日数" not in page.render(hourly)
    assert "{session}" not in page.render(hourly)


def sources():
    scripts = [(SOURCES / "js" / name).read_text(encoding="utf-8") for name in page.SCRIPTS]
    templates = [SOURCES / f"{name}.html.j2" for name in ("macros", "bar", "page")]
    return "\n".join([*scripts, *(path.read_text(encoding="utf-8") for path in templates)])


def test_every_word_is_used_and_every_used_word_exists():
    text = sources()
    used = set(re.findall(r"""(?:\bt|title|say|label)\(\s*"([a-z_]+\.[a-z_0-9]+)\"""", text))
    used |= set(re.findall(r'"((?:table|axis|calibration|predictions|deciles|card)\.[a-z_]+)"', text))
    used |= {
        f"{key}.{part}" for key in re.findall(r'figure\("([a-z]+)"\)', text) for part in ("title", "how")
    }
    assert used - set(WORDS) == set()
    quoted = set(re.findall(r'"([a-z_]+\.[a-z_0-9]+)"', text))
    assert {key for key in set(WORDS) - used - quoted if key.split(".")[0] not in FAMILIES} == set()
    for section in page.SECTIONS:
        assert f"section.{section}" in WORDS and f'<section id="{section}"' in text


def test_every_word_has_both_languages():
    for key, (english, chinese) in WORDS.items():
        assert english and chinese, key
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese)) - {"{session}"}, (
            key
        )
        assert not re.search(r"[\u4e00-\u9fff]", english), key
        assert chinese == english or re.search(r"[\u3000-\u303f\u4e00-\u9fff]", chinese), key


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [":root {", ':root[data-theme="dark"] {'])
def test_text_is_readable_in_both_themes(theme):
    style = (SOURCES / "style.css").read_text(encoding="utf-8")
    block = style[style.index(theme) :].split("}")[0]
    tokens = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block))
    pairs = [
        (text, ground) for text in ("ink", "ink-2", "ink-3") for ground in ("bg", "surface", "surface-2")
    ]
    pairs += [
        ("accent-ink", "surface"),
        ("accent-ink", "accent-soft"),
        ("ink-2", "amber-soft"),
        ("amber", "amber-soft"),
    ]
    pairs += [
        ("red", "surface"),
        ("green", "surface"),
        ("red", "red-soft"),
        ("amber", "surface"),
        ("ink-3", "accent-soft"),
    ]
    for text, ground in pairs:
        assert contrast(tokens[text], tokens[ground]) >= 4.5, (text, ground)
    for drawn in ("accent", "reference", "naive", "red", "green"):
        assert contrast(tokens[drawn], tokens["surface"]) >= (2.3 if drawn == "naive" else 3), drawn
