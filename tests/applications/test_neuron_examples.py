"""The examples of each neuron against the sorted activations of the whole training set."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import upweight as uw

RNG = np.random.default_rng(0)


def largest(activations, k):
    """Positions (k, neurons) of the largest activations (n, neurons); of equal ones the first."""
    return np.argsort(-activations, axis=0, kind="stable")[:k]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def convolution(torch):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(48, 4), torch.nn.Linear(4, 2)
    ).double()
    train = uw.Examples(
        RNG.normal(size=(600, 2, 6, 6)), RNG.integers(0, 2, 600), ids=[f"t{i}" for i in range(600)], labels={0: "no"}
    )

    def cross_entropy(net, batch):
        return torch.nn.functional.cross_entropy(net(batch.x), batch.y, reduction="none")

    return uw.TorchModel(net, cross_entropy), train


def test_a_channel_is_as_active_as_its_most_active_position(torch, convolution):
    model, train = convolution
    maps = torch.tanh(model.network.net[0](torch.as_tensor(train.x))).detach().numpy()
    result = uw.neuron_examples(model, train, "1", [2, 0], k=5)
    for row, channel in enumerate((2, 0)):
        flat = maps[:, channel].reshape(600, -1)
        order = largest(flat.max(axis=1)[:, None], 5)[:, 0]
        assert result.ids[row].tolist() == [f"t{i}" for i in order]
        assert np.allclose(result.activations[row], flat.max(axis=1)[order])
        assert result.places[row].tolist() == flat.argmax(axis=1)[order].tolist() and result.map_shape == (4, 4)
        assert result.means[row] == pytest.approx(flat.max(axis=1).mean())
        assert result.deviations[row] == pytest.approx(flat.max(axis=1).std())
    assert result.of(2)[0] == (result.ids[0][0], result.activations[0][0])


def test_the_most_selective_neurons_come_first(torch, convolution):
    model, train = convolution
    hidden = model.network.net[:4](torch.as_tensor(train.x)).detach().numpy()
    result = uw.neuron_examples(model, train, "3", 2, k=7)
    top = np.take_along_axis(hidden, largest(hidden, 7), axis=0).mean(axis=0)
    selectivity = (top - hidden.mean(axis=0)) / hidden.std(axis=0)
    assert result.neurons.tolist() == np.argsort(-selectivity)[:2].tolist() and result.map_shape == ()


def test_without_a_layer_neurons_are_the_features_of_the_last_step():
    texts = ["good film", "bad film", "good good play", "dull"]
    train = uw.Examples(texts * 3, [1, 0, 1, 0] * 3)
    model = uw.explainable(make_pipeline(CountVectorizer(), LogisticRegression()).fit(train.x, train.y), train)
    words = model.predictor[0].get_feature_names_out().tolist()
    result = uw.neuron_examples(model, train, neurons=[words.index("good")], k=3)
    assert result.ids[0].tolist() == [2, 6, 10] and result.activations[0].tolist() == [2, 2, 2]
    assert result.label(words.index("good")) == (1, 1.0, 0.5)


def test_a_sequence_is_as_active_as_its_most_active_token(torch):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Embedding(9, 5), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(20, 2))
    train = uw.Examples(RNG.integers(0, 9, (30, 4)), RNG.integers(0, 2, 30))
    model = uw.TorchModel(net, lambda net, b: torch.nn.functional.cross_entropy(net(b.x), b.y, reduction="none"))
    values = torch.tanh(net[0](torch.as_tensor(train.x))).detach().double().numpy().max(axis=1)
    result = uw.neuron_examples(model, train, "1", [3], k=4)
    assert np.allclose(result.activations[0], np.sort(values[:, 3])[::-1][:4]) and result.map_shape == (4,)


def test_examples_of_weight_zero_are_left_out(convolution):
    model, train = convolution
    weights = np.ones(600)
    first = uw.neuron_examples(model, train, "3", [1], k=1).ids[0, 0]
    weights[train.positions([first])] = 0
    assert first not in uw.neuron_examples(model, train.replaced(weights=weights), "3", [1], k=20).ids


def test_neurons_that_never_change_are_marked(torch, convolution):
    model, train = convolution
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(72, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)
    ).double()
    with torch.no_grad():
        net[1].weight[1], net[1].bias[1] = 0, -1
    dead = uw.TorchModel(net, model.network.loss)
    assert "(e.g. neuron 1)" in uw.neuron_examples(dead, train, "2", [0, 1], k=2).diagnostics["warnings"][0]
    assert uw.neuron_examples(dead, train, "2", [0, 2], k=2).diagnostics["warnings"] == []


def test_what_has_no_neurons_is_refused(convolution):
    model, train = convolution
    small = train.take(range(20))
    with pytest.raises(ValueError, match="the net has no layer 'conv9'; its layers are 0, 1, 2, 3, 4"):
        uw.neuron_examples(model, small, "conv9")
    with pytest.raises(ValueError, match="expected k of at most 20, the training examples with weight, got 21"):
        uw.neuron_examples(model, small, "1", k=21)
    for neurons in ([3], [-1], [], [0.5]):
        with pytest.raises(ValueError, match="expected neurons from 0 to 2"):
            uw.neuron_examples(model, small, "1", neurons)
    with pytest.raises(KeyError, match="neuron 1 was not chosen"):
        uw.neuron_examples(model, small, "1", [0]).of(1)
    linear = uw.explainable(
        LogisticRegression().fit(small.x.reshape(20, -1), small.y), uw.Examples(small.x.reshape(20, -1), small.y)
    )
    with pytest.raises(TypeError, match="needs a model that is LayerActivations"):
        uw.neuron_examples(linear, small, "1")
