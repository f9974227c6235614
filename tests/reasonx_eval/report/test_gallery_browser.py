"""The gallery's page in a real browser: nothing is requested, nothing complains, axe finds nothing serious."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reasonx_eval.cli.main import cli, run_cli
from tests.reasonx_eval.report.conftest import MakeRun

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install 'reasonx[test]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install 'reasonx[test]'")
CHROMIUM = shutil.which("chromium")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: make browser")]


def test_the_page_works_at_desktop_and_phone_width_light_and_dark(made: MakeRun, tmp_path: Path) -> None:
    folders = [str(made(m, "depth/scenes-synthetic")) for m in ("plane-depth", "tiny")]
    page_file = tmp_path / "g.html"
    assert run_cli(cli, ["gallery", *folders, "--worst", "1", "--best", "1", "--out", str(page_file)]) == 0
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme, width in (("light", 1400), ("dark", 390)):
            page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
            said: list[str] = []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("request", lambda r, said=said: r.url.startswith(("file:", "data:")) or said.append(r.url))
            page.goto(page_file.as_uri())
            found = axe.Axe().run(page).response["violations"]
            assert not [v["id"] for v in found if v["impact"] in ("serious", "critical")]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            # by keyboard: the first picture fills the row
            small = page.locator("figure").first.bounding_box()["width"]
            page.locator("figure input").first.focus()
            page.keyboard.press("Space")
            assert page.locator("figure").first.bounding_box()["width"] > 1.8 * small
            assert said == []
        browser.close()
