"""The viewer in a real browser: by keyboard, on a phone, with hostile data, and without barriers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import upweight as uw
from support.browser import axe_source, opened, running_browser, until, violations
from upweight.core.scores import Scores, Unit


@pytest.fixture(scope="module")
def browser():
    with running_browser() as running:
        yield running


@pytest.fixture
def served(digits):
    other = replace(
        digits[0], values=-np.roll(digits[0].values, 1, axis=1), unit=Unit.RANK, recipe={"method": "TracIn"}
    )
    with uw.Viewer(*digits, against=other).serve() as server:
        yield server


@pytest.fixture
def axe():
    """Skips the test before anything is made, where there is no axe-core."""
    axe_source()


def ready(page):
    page.wait_for_selector("#table-body tr")
    page.wait_for_selector("#overview .overall")


def title(page, expected):
    until(page, f"document.querySelector('#query-title')?.innerText === 'Query {expected}'")


def test_keys_step_through_queries_and_open_the_comparison(browser, served, digits):
    with opened(browser, served.url) as page:
        ready(page)
        for key, expected in (("j", "q1"), ("ArrowRight", "q2"), ("k", "q1")):
            page.keyboard.press(key)
            title(page, expected)
        assert page.url.endswith("#query=q1")
        page.keyboard.press("c")
        page.wait_for_selector("#compare[open]")
        sides = [side("q1", 1)[0] for side in (digits[0].proponents, digits[0].opponents)]
        strongest = max(sides, key=lambda a: abs(a.score))
        assert page.inner_text("#compare-title") == f"Query q1 and training example {strongest.id}"
        assert "TracIn" in page.inner_text("#compare-body")
        page.keyboard.press("j")
        page.keyboard.press("Escape")
        title(page, "q1")
        page.keyboard.press("/")
        page.keyboard.type("59")
        until(page, "document.querySelectorAll('#table-body tr').length === 1")
        assert "of 1 that match, of 60" in page.inner_text("#table-count")
        page.keyboard.press("Tab")
        page.keyboard.press("Escape")


def test_an_address_leads_to_its_query_and_the_list_follows(browser, served):
    with opened(browser, served.url + "#query=q3") as page:
        ready(page)
        title(page, "q3")
        assert page.locator("#query-list [aria-current]").get_attribute("data-query") == "3"
        page.check("#only-wrong")
        until(page, "document.querySelectorAll('#query-list li').length === 1")
        page.uncheck("#only-wrong")
        page.fill("#query-filter", "q2")
        title(page, "q2")


def test_long_lists_of_queries_are_turned_page_by_page(browser):
    rng = np.random.default_rng(0)
    train = uw.Examples([f"text {i}" for i in range(40)], np.arange(40) % 2)
    queries = uw.Examples([f"query {i}" for i in range(120)], np.arange(120) % 2, ids=[f"q{i}" for i in range(120)])
    scores = Scores(rng.normal(size=(120, 40)), queries.ids, train.ids, Unit.EFFECT)
    with uw.Viewer(scores, train, queries).serve() as server, opened(browser, server.url + "#query=q49") as page:
        ready(page)
        page.keyboard.press("j")
        title(page, "q50")
        assert page.inner_text("#queries-page") == "page 2 of 3"
        page.keyboard.press("k")
        title(page, "q49")
        page.click("#queries-next")
        until(page, "document.querySelector('#queries-page').innerText === 'page 2 of 3'")
        page.locator("#query-list button").nth(3).click()
        title(page, "q53")
        page.locator(".card button.id").first.click()
        page.locator("#compare .affected button").first.click()
        until(page, "!document.querySelector('#compare').open")


def test_two_methods_stand_side_by_side(browser, served):
    with opened(browser, served.url) as page:
        ready(page)
        assert page.locator("#both h3").all_inner_texts() == ["Influence", "TracIn"]
        assert "nats" in page.locator("#both .side").nth(0).inner_text()
        assert "nats" not in page.locator("#both .side").nth(1).inner_text()
        page.click("#both button:text('opponents')")
        assert page.locator("#both .side.opp").count() == 2
        page.click("#column-other button")
        until(page, "document.querySelector('#column-other').getAttribute('aria-sort') === 'descending'")
        ranks = [int(text.split()[-1]) for text in page.locator("#table-body td:last-child").all_inner_texts()]
        assert ranks == list(range(1, 26))


def test_hostile_text_is_shown_and_never_run(browser, hostile):
    scores, train, queries, _ = hostile
    with uw.Viewer(scores, train, queries).serve() as server, opened(browser, server.url) as page:
        ready(page)
        page.keyboard.press("c")
        page.wait_for_selector("#compare[open]")
        for part in ("header", "nav", "#query", ".side.pro", "#table", "#overview", "#compare"):
            assert "<script>window.hacked=1</script>" in page.inner_text(part), part
        assert page.evaluate("window.hacked") is None and page.locator("img").count() == 0


def test_a_server_that_ended_is_named(browser, digits):
    server = uw.Viewer(*digits).serve()
    with opened(browser, server.url, allowed="ERR_CONNECTION_REFUSED") as page:
        ready(page)
        server.close()
        page.keyboard.press("j")
        page.wait_for_selector("#trouble:not([hidden])")
        assert "start upweight view again" in page.inner_text("#trouble")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_there_are_no_barriers_on_a_desktop_and_on_a_phone(axe, browser, served, width, scheme):
    with opened(browser, served.url, width, color_scheme=scheme) as page:
        ready(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert violations(page) == []
        page.keyboard.press("c")
        page.wait_for_selector("#compare[open]")
        assert violations(page) == []
