"""A real browser for tests of pages: pages with a clean console, and the accessibility checks of axe-core."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
AXE_FOLDER = "UPWEIGHT_AXE"  # environment variable: a folder outside the repository that has node_modules/axe-core


@contextmanager
def running_browser() -> Iterator[Any]:
    """Chromium without a window; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        environment = {**os.environ, "LANG": "en_US.UTF-8"}
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, env=environment)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, url: str, width: int = 1280, allowed: str = "\0", **settings: Any) -> Iterator[Any]:
    """A page that asks for nothing but its own address, and whose console has nothing but messages with `allowed`."""
    context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
    page, messages, requests = context.new_page(), [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url)
    yield page
    own = ("data:", "blob:", url.split("#", maxsplit=1)[0])
    assert [address for address in requests if not address.startswith(own)] == []
    assert [message for message in messages if allowed not in message] == []
    context.close()


def until(page: Any, condition: str) -> None:
    """Wait until this expression is true on the page, whose policy forbids the usual way to wait."""
    for _ in range(500):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"not true within ten seconds: {condition}")


@cache
def axe_source() -> str:
    """The script of axe-core, from npm's ordinary client; the test is skipped where it cannot be had."""
    folder = Path(os.environ.get(AXE_FOLDER, ""))
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not os.environ.get(AXE_FOLDER) or not script.is_file():
        pytest.skip(f"axe-core is not here: npm install --prefix DIR axe-core, and {AXE_FOLDER}=DIR")
    return script.read_text(encoding="utf-8")


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong on the page, with the place: an empty list if nothing is."""
    session = page.context.new_cdp_session(page)  # the page's own policy forbids other scripts; the debugger may
    session.send("Runtime.evaluate", {"expression": axe_source()})
    answer = session.send(
        "Runtime.evaluate",
        {
            "expression": "axe.run().then((r) => JSON.stringify(r.violations))",
            "awaitPromise": True,
            "returnByValue": True,
        },
    )
    return [
        f"{violation['id']}: {violation['help']} ({node['target']} {node['html'][:120]})"
        for violation in json.loads(answer["result"]["value"])
        for node in violation["nodes"]
    ]
