"""Draw the report: one HTML file with its charts, style, script and data inside, and no way to the network.

Text from a run enters the page in two ways only: escaped by Jinja2, or as JSON that the script writes through
``textContent`` and canvas. The page's own content policy forbids every other script and every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from barcast.core.atomic import write_text
from barcast.core.config import to_plain
from barcast.core.texts import Text
from barcast.reports.data import ReportData, finite

#: Sections in reading order, as the navigation lists them.
SECTIONS = (
    "top", "comparison", "time", "meaning", "forecasts", "symbols", "training", "data", "segments",
    "failures", "made",
)  # fmt: skip
#: Sections of a fleet and of a routed run, after the comparison; neither has a training of its own to show.
FLEET_SECTIONS, MEMBERS_SECTION, ROUTING_SECTIONS = ("fleet", "skills", "symbol"), "members", ("routing",)
SCRIPTS = (
    "1-base.js", "2-table.js", "3-chart.js", "4-figures.js", "5-sections.js", "6-switches.js", "7-main.js",
)  # fmt: skip
#: Digits that survive on the page; exact values are in the run's own files.
SIGNIFICANT_DIGITS = 6
FAILURE_FIELDS = ("symbol", "stage", "error", "fallback")
PREDICTION_FIELDS = ("symbol", "as_of", "for_session", "y_hat", "sigma", "p_up", "score", "rank", "note")


def write_report(path: Path, data: ReportData) -> None:
    """Write the page atomically as UTF-8.

    Raises
    ------
    ResourceError
        On a full disk or a missing permission.
    """
    write_text(path, render(data))


def render(data: ReportData) -> str:
    """Return the whole page as HTML."""
    scripts = (*SCRIPTS[:-1], *(["fleet.js"] if _has_more(data) else []), SCRIPTS[-1])
    return draw(
        "page.html.j2", scripts, page_words(data), payload(data), data=data, sections=sections_of(data)
    )


def sections_of(data: ReportData) -> tuple[str, ...]:
    """Return the sections of a page in reading order."""
    if not _has_more(data):
        return SECTIONS
    more: tuple[str, ...] = ROUTING_SECTIONS if data.routing else ()
    if data.fleet:
        first, *others = FLEET_SECTIONS
        more = (first, *([MEMBERS_SECTION] if data.fleet.members else []), *others)
    place = SECTIONS.index("comparison") + 1
    return (*SECTIONS[:place], *more, *(name for name in SECTIONS[place:] if name != "training"))


def _has_more(data: ReportData) -> bool:
    return data.fleet is not None or data.routing is not None


def draw(
    template: str, scripts: Sequence[str], words: Mapping[str, Any], values: Mapping[str, Any], **shown: Any
) -> str:
    """Return a page as HTML with everything inside that it needs.

    Parameters
    ----------
    template : str
        Its file; it finds ``words`` and ``shown`` by name.
    scripts : sequence of str
        Files of its script, in order.
    words : mapping
        Every word of the page as [English, Chinese].
    values : mapping
        Plain values that the script reads.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("barcast.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = _plain_text
    environment.filters["moment"] = _moment
    echarts = _resource("vendor/echarts.common.min.js")
    script, style = _script(scripts), _resource("templates/style.css")
    return environment.get_template(template).render(
        words=words,
        policy=content_policy([echarts, script], [style]),
        style=Markup(style),
        echarts=Markup(echarts),
        script=Markup(script),
        words_json=Markup(embeddable_json(words)),
        data_json=Markup(embeddable_json(values)),
        **shown,
    )


def content_policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Return a Content-Security-Policy that allows exactly these inline texts and no request at all."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(_source_hash(text) for text in scripts)}",
            f"style-src {' '.join(_source_hash(text) for text in styles)}",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def embeddable_json(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    escapes: dict[str, str | int | None] = {
        "<": "\\u003c",
        ">": "\\u003e",
        "&": "\\u0026",
        "\u2028": "\\u2028",
        "\u2029": "\\u2029",
    }
    return text.translate(str.maketrans(escapes))


def payload(data: ReportData) -> dict[str, Any]:
    """Return what the page's script reads: plain values, rounded; long tables as packed columns."""
    plain: dict[str, Any] = rounded(finite(to_plain(data)))
    for shown_by_template in ("config", "environment", "verdict", "scope"):
        del plain[shown_by_template]
    for part in filter(None, (plain["fleet"], plain["routing"])):
        part["symbols"] = _packed(part["symbols"])
    for name, fields in (("predictions", PREDICTION_FIELDS), ("failures", FAILURE_FIELDS)):
        plain[name] = _packed({field: [_short(row[field]) for row in plain[name]] for field in fields})
    return plain


def _packed(columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Pack columns of one length."""
    length = len(next(iter(columns.values()), ()))
    return {"length": length, "columns": {name: pack(values) for name, values in columns.items()}}


def _short(value: Any) -> Any:
    """Write a text that reads the same in both languages once."""
    is_same = isinstance(value, dict) and value.get("en") == value.get("zh")
    return value["en"] if is_same else value


def page_words(data: ReportData) -> dict[str, list[str]]:
    """Return every word of the page as [English, Chinese], with what a step of its calendar is called."""
    words = read_words("words.json") | (read_words("fleet.json") if _has_more(data) else {})
    daily = data.data.frequency == "1d"
    said = {key: Text(en, zh.replace("{session}", "时点")) for key, (en, zh) in words.items()}
    return {key: [text.en, text.zh] for key, one in said.items() for text in (one.in_steps(daily=daily),)}


def read_words(name: str) -> dict[str, list[str]]:
    """Return the words of a file as [English, Chinese]."""
    words: dict[str, list[str]] = json.loads(_resource(f"templates/{name}"))
    return words


def pack(values: Sequence[Any]) -> dict[str, Any]:
    """Write a column short: one value for all, places in a list of few values, or each value.

    Thousands of forecasts share their times and notes; a packed column holds those once.
    """
    distinct: dict[str, int] = {}
    places = [distinct.setdefault(json.dumps(value, sort_keys=True), len(distinct)) for value in values]
    if len(distinct) == 1:
        return {"all": values[0]}
    if len(distinct) * 4 <= len(values):
        return {"of": [json.loads(text) for text in distinct], "at": places}
    return {"each": list(values)}


def rounded(value: Any) -> Any:
    """Round every number in a plain value to the digits that survive on a page."""
    if isinstance(value, float):
        short = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        return int(short) if short.is_integer() and abs(short) < 2**53 else short
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value


def _plain_text(value: Any) -> str:
    """Show a config leaf as the TOML or JSON a person would type."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _moment(created: str) -> str:
    """Show ``2025-09-05T18:21:07+08:00`` as a person would write it."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".strip()


def _script(names: Sequence[str]) -> str:
    body = "\n".join(_resource(f"templates/js/{name}") for name in names)
    return f'"use strict";\n(() => {{\n{body}\n}})();\n'


def _resource(name: str) -> str:
    return (files("barcast.reports") / name).read_text(encoding="utf-8")


def _source_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
