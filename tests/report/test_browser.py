"""The page in a real browser: it answers, it obeys the keys, it fetches nothing and runs nothing it was not given."""

import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from upweight.applications.follow import Course
from upweight.core.examples import Examples
from upweight.core.scores import Scores, Unit
from upweight.report import write_report
from upweight.report.page_limits import PageLimits

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    # The browser's driver wants a directory it may fill; some machines point it at one that is not there.
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=ARGS, env={**os.environ, "LANG": "en_US.UTF-8"})
        yield found
        found.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Open a report; afterwards nothing but the file itself was asked for and the console is clean."""

    @contextmanager
    def visiting(*parts, width=1280, after="", **context):
        path = write_report(tmp_path / "report.html", *parts)
        opened = browser.new_context(viewport={"width": width, "height": 900}, **context)
        page, asked, said = opened.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri() + after)
        yield page
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
        assert said == []
        opened.close()

    return visiting


def title(page):
    return page.inner_text("#query-title")


def column(page, number):
    return page.locator(f"#table-body tr > :nth-child({number})").all_inner_texts()


def number(text):
    return float(text.replace("−", "-"))


def test_answers_and_obeys_the_keys(visit, digits, check):
    with visit(*digits, check) as page:
        assert title(page) == "Query q0"
        for key, expected in [
            ("ArrowRight", "q1"),
            ("j", "q2"),
            ("j", "q3"),
            ("j", "q3"),
            ("k", "q2"),
            ("ArrowLeft", "q1"),
        ]:
            page.keyboard.press(key)
            assert title(page) == f"Query {expected}" and page.url.endswith(f"#query={expected}")
        assert page.get_attribute("#query-list button[aria-current]", "data-query") == "1"
        page.keyboard.press("?")
        assert page.is_visible("#keys")
        page.keyboard.press("j")
        assert title(page) == "Query q1"
        page.keyboard.press("Escape")
        assert not page.is_visible("#keys")
    with visit(*digits, check, after="#query=q3") as page:
        assert "Predicted 1, but the true label is 0." in page.inner_text("#query")
        page.check("#only-wrong")
        assert page.locator("#query-list button").count() == 1


def test_a_card_states_the_effect_of_removing_the_example(visit, digits, check, table):
    scores = digits[0]
    best = scores.proponents("q0", 1)[0]
    with visit(*digits, check) as page:
        first = page.locator(".side.pro .card").first
        assert f"Removing it would raise the loss by {best.score:.3g} nats." in first.get_attribute("title")
        assert str(best.id) in first.inner_text() and f"+{best.score:.3g} nats" in first.inner_text()
        assert "Removing it would lower the loss by" in page.locator(".side.opp .card").first.get_attribute("title")
        assert page.locator(".card").count() == 20
    with visit(*table) as page:
        title = page.locator(".side.pro .card").first.get_attribute("title")
        assert "Removing it lowers the margin; the size of a RANK score means nothing." in title
        assert "<b>town</b>" in page.inner_text("#query") and "missing" in page.inner_text("#table")
        assert "3 more columns" in page.inner_text("#query")


def test_table_sorts_filters_and_turns_pages(visit, digits):
    with visit(*digits) as page:
        assert page.get_attribute("#column-score", "aria-sort") == "descending"
        shown = [number(text) for text in column(page, 4)]
        assert shown == sorted(shown, reverse=True) and len(shown) == 25
        page.click("#column-score button")
        shown = [number(text) for text in column(page, 4)]
        assert page.get_attribute("#column-score", "aria-sort") == "ascending" and shown == sorted(shown)
        page.click("#column-id button")
        assert column(page, 2) == [str(i) for i in range(25)]
        page.click("#page-last")
        assert column(page, 2)[-1] == "59" and "51–60 of 60" in page.inner_text("#table-count")
        page.keyboard.press("/")
        page.keyboard.type("17")
        assert column(page, 2) == ["17"] and title(page) == "Query q0"
        page.fill("#filter", "")
        page.select_option("#label-filter", label="2")
        assert page.locator("#table-body tr").count() == 20
        page.fill("#filter", "nothing like this")
        assert "No training example matches" in page.inner_text("#table-count")


def test_saves_the_table(visit, digits):
    with visit(*digits) as page:
        page.fill("#filter", "17")
        with page.expect_download() as saved:
            page.click("#save")
        lines = saved.value.path().read_text(encoding="utf-8").splitlines()
        assert lines[0] == "id,label,score,rank" and lines[1].startswith('"17","2",')


def test_plot_marks_this_query(visit, digits, check):
    with visit(*digits, check) as page:
        assert page.locator("#plot circle.point").count() == 20 and page.locator("#plot .point.this-query").count() == 5
        page.click("text=groups (3)")
        assert page.locator("#plot path.point").count() == 12
        page.check("#only-this-query")
        assert page.locator("#plot path.point").count() == 3
        page.locator("#plot path.point").first.hover()
        assert "all of label" in page.inner_text("#plot .point-text")
        assert page.inner_text("#plot .numbers").split() == ["slope", "1.040", "Pearson", "0.980", "Spearman", "0.930"]


def test_light_and_dark_on_a_phone(visit, digits, check):
    with visit(*digits, check, width=390, color_scheme="dark") as page:
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.click("#theme")
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark != light and page.inner_text("#theme") == "Dark"
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.locator(".side.pro .card:visible").count() == 5
        page.click(".side.pro .more-cards")
        assert page.locator(".side.pro .card:visible").count() == 10


def test_the_overview_leads_to_the_mistakes_and_orders_the_training_examples(visit, digits, check):
    scores, train, queries = digits
    with visit(*digits, check) as page:
        assert "4 queries, of which 1 are mistakes" in page.inner_text("#overview")
        first = page.locator("#overview-body .overall:not(.kinds) tbody .id")
        assert first.first.inner_text() == str(np.abs(scores.values).mean(axis=0).argmax())
        page.click("text=harmed most")
        assert first.first.inner_text() == str(scores.values.mean(axis=0).argmin())
        page.click("text=behind mistakes")
        assert sorted(first.all_inner_texts()) == sorted(str(a.id) for a in scores.opponents("q3", 10))
        assert page.inner_text(".kinds .wrong") == "0 → 1"
        page.click(".kinds .link")
        assert title(page) == "Query q3"
    one = Scores(scores.values[:1], scores.query_ids[:1], scores.train_ids, Unit.EFFECT)
    with visit(one, train, queries) as page:
        assert page.locator("#overview").is_hidden() and page.locator("#to-overview").is_hidden()
    with visit(*digits, check, width=390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_paper_has_every_query(visit, digits, check):
    with visit(*digits, check) as page:
        headings = page.locator("h2:visible", has_text="Query q")
        assert headings.all_inner_texts() == ["Query q0"]
        page.emulate_media(media="print")
        page.wait_for_selector("#printed article")
        assert headings.all_inner_texts() == ["Query q0", "Query q1", "Query q2", "Query q3"]
        assert page.locator("#printed .side.opp .card:visible").count() == 40
        page.emulate_media(media="screen")
        page.wait_for_selector("#printed article", state="detached")
        assert headings.all_inner_texts() == ["Query q0"] and page.locator("#printed *").count() == 0


def test_a_row_shows_first_what_matters_and_marks_what_differs(visit):
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(402, 40)).round(3), columns=[f"c{i}" for i in range(40)])
    frame["insulin"] = np.arange(402) % 2 * 1.5
    frame["town"] = "Ulm"
    examples = Examples(frame, np.arange(402) % 2)
    train, queries = examples.take(range(400)), examples.take([400, 401])
    scores = Scores(rng.normal(size=(2, 400)), queries.ids, train.ids, Unit.EFFECT)
    with visit(scores, train, queries) as page:
        assert page.locator("#query dt").first.inner_text() == "insulin"
        for card in page.locator(".card").all():
            is_odd = int(card.locator(".id").inner_text()) % 2
            value = "1.5 ≠ 0" if is_odd else "0 ="
            assert [card.locator("dt").first.inner_text(), card.locator("dd").first.inner_text()] == ["insulin", value]
        card = page.locator(".card").first
        assert card.locator("dt").count() == 8
        card.locator("summary").click()
        card.locator("dt").nth(41).wait_for()
        assert card.locator("dt").count() == 42 and "Ulm =" in card.inner_text()


def test_hostile_text_is_shown_and_never_run(visit, hostile):
    with visit(*hostile) as page:
        page.click("text=Diagnostics and settings")
        page.click("text=This query’s numbers")
        for part in ("header", "nav", "#query", ".side.pro", ".side.opp", "#plot", "#table"):
            assert "<script>window.hacked=1</script>" in page.inner_text(part), part
        page.wait_for_timeout(50)
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0 and page.locator("script").count() == 2


def test_a_text_among_the_columns_of_a_row_can_be_read(visit, digits):
    scores, train, queries = digits
    mails = pytest.importorskip("pandas").DataFrame({"mail": ["word " * 200] * len(train), "words": 200})
    rows = Examples(train.x, train.y, ids=train.ids, shown=mails)
    with visit(scores, rows, queries, width=390) as page:
        cell = page.locator(".side.pro .prose dd").first
        assert 20 < cell.inner_text().count("word") < 60
        cell.get_by_role("button").click()
        assert cell.inner_text().count("word") == 200
        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_of_sixty_thousand_rows_a_page_is_drawn_and_left_out_scores_are_reported(visit):
    random = np.random.default_rng(0)
    train, queries = Examples(np.zeros((60_000, 1)), np.arange(60_000) % 10), Examples(np.zeros((2, 1)), [0, 1])
    scores = Scores(random.normal(size=(2, 60_000)), queries.ids, train.ids, Unit.EFFECT)
    with visit(scores, train, queries) as page:
        page.evaluate("() => { sortBy('id'); choose(1); }")
        assert "of 60,000" in page.inner_text("#table-count")
        assert page.locator("#table-body tr").count() <= 1000  # a page of the table: what makes large ones fast
    with visit(scores, train, queries, None, None, PageLimits(scores=1000)) as page:
        assert "125 highest and the 125 lowest" in page.inner_text("#table-notes")
        page.click("#column-rank button")
        page.click("#page-last")
        assert column(page, 1)[-1] == "60,000" and column(page, 2)[-1].endswith(str(scores.opponents(0, 1)[0].id))


def test_the_course_of_training_is_drawn_for_the_chosen_example(visit, digits):
    scores, train, queries = digits
    with visit(scores, train, queries) as page:
        assert page.locator("#course").is_hidden()
    steps, some = np.array([0, 50, 100]), np.random.default_rng(3)
    m, n = scores.values.shape
    pushes = some.normal(size=(3, m, n)).astype(np.float32)
    pushes[:, 3] = np.nan  # one query was not followed
    course = Course(steps, queries.ids, train.ids, -some.uniform(size=(3, m)), -some.uniform(size=(3, n)), pushes)
    for width in (1280, 390):
        with visit(scores, train, queries, None, course, width=width) as page:
            strongest = scores.proponents("q0", 2)
            chosen = page.locator("#course-choice")
            assert chosen.input_value() == str(strongest[0].id)
            assert page.locator("#course svg").count() == 2
            assert page.locator("#course rect.push").count() == 3
            page.locator("#course details summary").click()
            told = page.locator("#course tbody tr").first.locator("td").all_inner_texts()
            place = int(train.positions([strongest[0].id])[0])
            expected = [-course.of_queries[0, 0], -course.of_train[0, place], pushes[0, 0, place]]
            assert [number(t) for t in told] == pytest.approx(expected, rel=5e-3)
            chosen.select_option(str(strongest[1].id))
            assert chosen.input_value() == str(strongest[1].id)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.goto(page.url.split("#")[0] + "#query=q3")
            assert "not followed" in page.inner_text("#course")
