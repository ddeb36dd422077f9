import numpy as np
import pytest

from support.report_stand_ins import HOSTILE, Removal, Retrained
from upweight.core.examples import Examples
from upweight.core.model import Predictions
from upweight.core.scores import Scores, Unit


@pytest.fixture
def digits():
    """Sixty 4×4 pictures in three classes, four queries of which one is predicted wrongly."""
    random = np.random.default_rng(0)
    pictures, y = random.integers(0, 17, (60, 4, 4)).astype(float), np.arange(60) % 3
    train = Examples(pictures.reshape(60, -1), y, shown=pictures)
    queries = Examples(pictures[:4].reshape(4, -1), [0, 1, 2, 0], ids=["q0", "q1", "q2", "q3"], shown=pictures[:4])
    predictions = Predictions((0, 1, 2, 1), (0, 1, 2), random.dirichlet(np.ones(3), 4))
    values = np.round(random.normal(size=(4, 60)), 4)
    recipe, diagnostics = {"method": "Influence", "curvature": {"kind": "exact"}}, {"damping": 0.5, "warnings": []}
    return (
        Scores(
            values, queries.ids, train.ids, Unit.EFFECT, "−loss (nats)", recipe, diagnostics, -np.ones(4), predictions
        ),
        train,
        queries,
    )


@pytest.fixture
def check(digits):
    scores = digits[0]
    ones = [Removal(f"training example {i}", "one", (i,)) for i in range(5)]
    groups = [Removal(f"all of label {c}", "group", tuple(range(c, 60, 3))) for c in range(3)]
    return Retrained(
        scores, (*ones, *groups), {"trainings": 17, "seconds": 3.2, "warnings": ["two refits did not converge"]}
    )


@pytest.fixture
def hostile():
    """Texts, ids, labels, warnings, settings and class names that would run if they were taken for HTML."""
    ids = [f"{i}{HOSTILE}" for i in range(6)]
    labels = {0: "ham" + HOSTILE, 1: "spam" + HOSTILE}
    train = Examples([f"text {i} {HOSTILE}" for i in range(6)], [0, 1, 0, 1, 0, 1], ids=ids, labels=labels)
    queries = Examples([HOSTILE + " query"], [0], ids=["q" + HOSTILE], labels=labels)
    predictions = Predictions((1,), (0, 1), np.array([[0.25, 0.75]]))
    diagnostics = {"warnings": ["mind " + HOSTILE], HOSTILE: HOSTILE}
    recipe = {"method": "M" + HOSTILE, "setting": HOSTILE}
    values = np.linspace(-1, 1, 6)[None, :]
    scores = Scores(
        values,
        queries.ids,
        train.ids,
        Unit.EFFECT,
        f"−loss ({HOSTILE})",
        recipe,
        diagnostics,
        np.array([-1.0]),
        predictions,
    )
    removals = (Removal(HOSTILE, "one", (ids[0],)),)
    return scores, train, queries, Retrained(scores, removals, {"trainings": 2, "warnings": [HOSTILE]})


@pytest.fixture
def table():
    """A regression over rows with a hostile column name and a missing value."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {"age": [20.0, 30.0, np.nan], "<b>town</b>": ["Ulm", "Bonn", "Ulm"]} | {f"c{i}": [i] * 3 for i in range(9)}
    )
    train, queries = Examples(frame, [1.5, 2.5, 3.5]), Examples(frame.iloc[:1], [2.0])
    values = np.array([[0.5, -0.25, 0.0]])
    scores = Scores(
        values,
        queries.ids,
        train.ids,
        Unit.RANK,
        "margin (logits)",
        {"method": "TracIn"},
        {},
        np.array([1.75]),
        Predictions((1.75,)),
    )
    return scores, train, queries
