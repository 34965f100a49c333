"""A real headless Chromium that cannot reach any network, and pages of demo reports opened in it."""

import shutil
from pathlib import Path

import pytest

from barcast.reports.page import write_report
from tests.reports.demo import market_report
from tests.reports.variants import REPORTS

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def chromium():
    """The browser, or a skip that says how to have it."""
    program = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if program is None:
        pytest.skip("no Chromium: apt-get update && apt-get install -y chromium")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'barcast[dev]'")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def report_files(tmp_path_factory) -> dict[str, Path]:
    """The demo reports as files; ``many`` has 7,000 symbols."""
    folder = tmp_path_factory.mktemp("reports")
    for name, make in REPORTS.items():
        write_report(folder / f"{name}.html", make())
    write_report(folder / "many.html", market_report(7000))
    return {file.stem: file for file in folder.iterdir()}


@pytest.fixture
def open_report(chromium, report_files):
    """A function that opens a demo report; at the end nothing may have gone wrong in any page."""
    contexts, problems = [], []

    def opened(name, *, hash_="", width=1280, theme="light", locale="en-US"):
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            locale=locale,
            reduced_motion="reduce",
        )
        contexts.append(context)
        context.set_offline(True)
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("request", lambda request: _note_request(request, problems))
        page.goto(f"{report_files[name].as_uri()}{hash_}")
        page.wait_for_selector("html[data-ready]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def _note_request(request, problems):
    if (
        not request.url.startswith(("file://", "blob:file://", "blob:null"))
        or request.resource_type != "document"
    ):
        problems.append(f"request: {request.resource_type} {request.url[:80]}")
