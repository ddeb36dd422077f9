"""The report shows what decides a query beside what decides its training examples, one query at a time."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import upweight as uw
from support.browser import opened, running_browser, violations

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
TRAIN = uw.Examples(X[:50], (X[:50, 0] > 0).astype(int), names=list("abcd"))
QUERIES = uw.Examples(X[50:], (X[50:, 0] > 0).astype(int), ids=[f"<q{i}>" for i in range(10)], names=list("abcd"))


@pytest.fixture(scope="module")
def explained():
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(TRAIN.x, TRAIN.y), TRAIN)
    explained = uw.explain(model, TRAIN, QUERIES.take([0, 1]), removals=0)
    return explained.with_inputs(uw.shared_inputs(model, explained, k=3))


def test_attributions_of_other_queries_are_refused(explained):
    model = uw.explainable(LogisticRegression(tol=1e-8).fit(TRAIN.x, TRAIN.y), TRAIN)
    others = uw.explain(model, TRAIN, QUERIES.take([1, 2]), removals=0)
    with pytest.raises(ValueError, match=r"got none of \['<q2>'\]; pass uw\.shared_inputs"):
        others.with_inputs(explained.inputs)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_section_follows_the_query(explained, width, tmp_path):
    path = uw.write_page(tmp_path / "report.html", explained)
    with running_browser() as browser, opened(browser, path.as_uri(), width) as page:
        for key, name in ((None, "<q0>"), ("j", "<q1>")):
            if key:
                page.keyboard.press(key)
            shown = page.locator("#inputs .besides:visible")
            assert shown.count() == 1 and shown.locator(".query-side .id").inner_text() == name
            ids = [str(example.id) for example in explained.inputs.examples[name]]
            assert shown.locator(".decided:not(.query-side) .id").all_inner_texts() == ids
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.emulate_media(media="print")
        page.locator("#printed .besides").nth(1).wait_for(state="attached")
        assert page.locator("#printed .besides").count() == 2
        page.emulate_media(media="screen")
        assert violations(page) == []  # last: where there is no axe-core, the test ends here
