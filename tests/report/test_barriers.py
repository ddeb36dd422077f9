"""The report and the review page have no barriers, on a desktop and on a phone, with pictures, texts and tables."""

from __future__ import annotations

import numpy as np
import pytest

import upweight as uw
from support.browser import axe_source, opened, running_browser, violations


@pytest.fixture(scope="module")
def browser():
    axe_source()  # before anything else is made
    with running_browser() as running:
        yield running


@pytest.fixture(params=["pictures", "texts", "rows"])
def report(request, digits, check, hostile, table, tmp_path):
    scores, train, queries, verified = {"pictures": (*digits, check), "texts": hostile, "rows": (*table, None)}[
        request.param
    ]
    return uw.write_report(tmp_path / "report.html", scores, train, queries, verified)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_has_none(browser, report, width):
    with opened(browser, report.as_uri(), width) as page:
        page.click("text=Diagnostics and settings")
        assert violations(page) == []
        page.keyboard.press("?")
        assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_review_has_none(browser, scheme, tmp_path):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.normal(size=(60, 2)) + 3 * np.eye(3)[y][:, :2]
    train = uw.Examples(x, y, labels={0: "ham", 1: "spam", 2: "news"}, shown=[f"mail {i}" for i in range(60)])
    suspects = uw.mislabeled(uw.explainable(LogisticRegression(tol=1e-8).fit(x, y), train), train, budget=4)
    with opened(browser, uw.write_page(tmp_path / "review.html", suspects).as_uri(), color_scheme=scheme) as page:
        assert violations(page) == []
        page.keyboard.press("a")
        page.click("text=All decisions")
        assert violations(page) == []
