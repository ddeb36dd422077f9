"""Every classifier and regressor of scikit-learn is read with its default settings, and the page lists how."""

import pytest

from support import every_estimator
from support.scikit_learn_versions import PASSIVE_AGGRESSIVE_TAKES_WEIGHTS

LEAST_ANSWERED = 0.9


@pytest.fixture(scope="module")
def answers():
    return every_estimator.answers()


def test_nine_of_ten_classifiers_and_regressors_are_explained(answers):
    refused = {name: answer for name, answer in answers.items() if answer.startswith("refused")}
    assert len(answers) >= 90
    assert len(refused) <= (1 - LEAST_ANSWERED) * len(answers), refused


@pytest.mark.skipif(not PASSIVE_AGGRESSIVE_TAKES_WEIGHTS, reason="the page is of a newer scikit-learn")
def test_the_page_lists_how_every_estimator_is_explained(answers):
    pytest.importorskip("torch")  # multilayer perceptrons are explained by it
    text = every_estimator.PAGE.read_text(encoding="utf-8")
    rows = dict(line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("| `"))
    listed = {name.strip("`"): answer for name, answer in rows.items()}
    assert listed == answers, "run `python tests/support/every_estimator.py`, with tests/ on PYTHONPATH"
