"""A chromium that is installed, driven by Playwright; every test here is skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """Its path: REASONX_CHROMIUM, or the first on PATH."""
    given = os.environ.get("REASONX_CHROMIUM")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip("no chromium is installed: apt-get install chromium, or make browser")
    with playwright.sync_playwright() as driver:
        # a container's root has no sandbox
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


class Watched:
    """A page that remembers what must not happen: errors, refused scripts, requests that leave the file."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.trouble: list[str] = []
        page.on("console", lambda m: self.trouble.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.trouble.append(str(e)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else self.trouble.append(r.url))
        page.on("dialog", lambda d: (self.trouble.append(f"dialog {d.message}"), d.dismiss()))


Open = Callable[..., Any]


@pytest.fixture
def show(browser: Any) -> Iterator[Open]:
    """``show(path, hash="", width=1280, scheme="light", **context)`` opens a page; trouble fails the test."""
    opened: list[tuple[Watched, Any]] = []

    def opener(path: Path, hash: str = "", width: int = 1280, scheme: str = "light", **more: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **more)
        watched = Watched(context.new_page())
        opened.append((watched, context))
        watched.page.goto(path.as_uri() + hash)
        return watched.page

    yield opener
    trouble = [t for watched, _ in opened for t in watched.trouble]
    for _, context in opened:
        context.close()
    assert trouble == []
