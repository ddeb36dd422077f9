"""Necessity and sufficiency of parts, against loops that erase them one by one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import upweight as uw

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 6))
Y = (X @ np.array([3.0, -2.0, 1.0, 0.3, 0.0, 0.0]) > 0).astype(int)
TRAIN, QUERIES = uw.Examples(X[:60], Y[:60]), uw.Examples(X[60:], Y[60:])


@pytest.fixture(scope="module")
def model():
    return uw.explainable(LogisticRegression(tol=1e-8).fit(TRAIN.x, TRAIN.y), TRAIN)


def test_curves_are_the_probabilities_without_and_with_the_first_parts(model):
    attributions = uw.attribute_inputs(model, QUERIES)
    need = uw.necessity(model, attributions, points=6)
    enough = uw.sufficiency(model, attributions, points=6)
    for i in range(len(QUERIES)):
        order = np.argsort(-attributions.values[i])
        label = attributions.targets[i]
        for k in range(7):
            without, alone = X[60 + i].copy(), np.zeros(6)
            without[order[:k]] = 0
            alone[order[:k]] = X[60 + i][order[:k]]
            probability = model.predictor.predict_proba(np.stack([without, alone]))[:, label]
            assert need.values[i, k] == pytest.approx(probability[0]) and enough.values[i, k] == pytest.approx(
                probability[1]
            )
    assert np.allclose(need.whole, enough.whole) and np.allclose(need.erased, 0.5, atol=0.2)


def test_areas_are_clipped_as_in_the_paper(model):
    attributions = uw.attribute_inputs(model, QUERIES)
    need, enough = uw.necessity(model, attributions), uw.sufficiency(model, attributions)
    left = np.maximum(need.values - need.erased[:, None], 0).mean(axis=1)
    back = (np.minimum(enough.values, enough.whole[:, None]) - enough.erased[:, None]).mean(axis=1)
    assert np.allclose(need.areas, left) and np.allclose(enough.areas, back)
    drawn = [np.maximum(values - need.erased[:, None], 0).mean(axis=1) for values in need.random]
    assert np.allclose(need.random_areas, np.mean(drawn, axis=0))


def test_the_order_of_a_linear_model_beats_random_orders_and_its_reverse_does_not(model):
    from dataclasses import replace

    attributions = uw.attribute_inputs(model, QUERIES)
    backwards = replace(attributions, values=tuple(-v for v in attributions.values))
    for criterion, sign in ((uw.necessity, 1), (uw.sufficiency, -1)):
        good, bad = criterion(model, attributions), criterion(model, backwards)
        assert good.beats_random > 0.9 and bad.beats_random < 0.1
        assert sign * good.areas.mean() < sign * good.random_areas.mean() < sign * bad.areas.mean()
    assert "lower is better" in repr(uw.necessity(model, attributions))


def test_words_have_an_ordering_too():
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.pipeline import make_pipeline

    texts = ["good", "bad", "good one", "bad one", "some", "any"] * 4
    train = uw.Examples(texts, [1, 0, 1, 0, 1, 0] * 4)
    model = uw.explainable(make_pipeline(CountVectorizer(), LogisticRegression(tol=1e-8)).fit(texts, train.y), train)
    attributions = uw.attribute_inputs(model, uw.Examples(["one good any", "bad one"]))
    curve = uw.sufficiency(model, attributions, points=3)
    probability = model.predictor.predict_proba(["good"])[0, 1]
    assert curve.values[0, 1] == pytest.approx(probability) and curve.values.shape == (2, 4)


def test_what_has_no_ordering_is_refused(model):
    attributions = uw.attribute_inputs(model, QUERIES)
    with pytest.raises(ValueError, match="expected points of at least 2"):
        uw.necessity(model, attributions, points=1)
    with pytest.raises(ValueError, match="expected a baseline of one value or one per part"):
        uw.sufficiency(model, attributions, baseline=[1.0, 2.0])
    with pytest.raises(TypeError, match="wrap a fitted estimator"):
        uw.necessity(model.predictor, attributions)


def test_attributions_of_what_collate_made_are_refused():
    torch = pytest.importorskip("torch")
    pytest.importorskip("captum", reason="captum is not installed: pip install 'upweight[captum]'")
    net = torch.nn.Linear(3, 2).double()

    def halves(examples):
        from types import SimpleNamespace

        return SimpleNamespace(x=torch.as_tensor(examples.x[:, :3]), y=torch.as_tensor(examples.y))

    model = uw.TorchModel(
        net, lambda net, b: torch.nn.functional.cross_entropy(net(b.x), b.y, reduction="none"), collate=halves
    )
    with pytest.raises(ValueError, match="expected attributions of the 6 parts of the examples, got 3"):
        uw.necessity(model, uw.attribute_inputs(model, QUERIES, uw.Saliency()))
