"""Input attributions against what their definitions give, computed by hand."""

import importlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

import upweight as uw

torch = pytest.importorskip("torch")
F, nn = torch.nn.functional, torch.nn
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 5)), RNG.integers(0, 3, 60)
NAMES = {"names": list("abcde"), "labels": {0: "low", 1: "middle", 2: "high"}}
TRAIN, QUERIES = uw.Examples(X[:50], Y[:50], **NAMES), uw.Examples(X[50:], Y[50:], ids=range(100, 110), **NAMES)


def cross_entropy(net, batch):
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


class Functional(nn.Module):
    """A ReLU that is no module."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(F.relu(self.first(x)))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.last(torch.tanh(x + self.attention(x, x, x)[0]).mean(1))


@pytest.fixture(scope="module")
def captum():
    return pytest.importorskip("captum", reason="captum is not installed: pip install 'upweight[captum]'")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return uw.TorchModel(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double(), cross_entropy)


@pytest.fixture(scope="module")
def pictures():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(48, 3)).double()
    return uw.TorchModel(net, cross_entropy), uw.Examples(RNG.normal(size=(3, 2, 6, 6)), [0, 1, 2])


@pytest.fixture(scope="module")
def tokens():
    torch.manual_seed(2)
    return uw.TorchModel(Transformer().double(), cross_entropy), uw.Examples(RNG.integers(0, 20, (4, 6)), [0, 1, 2, 0])


@pytest.fixture(scope="module")
def linear():
    return uw.explainable(LogisticRegression(tol=1e-8).fit(TRAIN.x, TRAIN.y), TRAIN)


def outputs(net, x, columns):
    return net(torch.as_tensor(x)).detach().numpy()[np.arange(len(x)), columns]


def gradients(net, x, columns):
    x = torch.tensor(x, requires_grad=True)
    chosen = net(x)[torch.arange(len(x)), torch.as_tensor(np.broadcast_to(columns, len(x)).copy())].sum()
    return torch.autograd.grad(chosen, x)[0].numpy()


def log_probability(estimator, x, label):
    return estimator.predict_log_proba(x)[:, label]


def test_erasing_a_column_is_its_drop_of_the_log_probability(linear):
    attributions = uw.attribute_inputs(linear, QUERIES, of="label", train=TRAIN)
    estimator = linear.predictor
    for i in range(len(QUERIES)):
        for j in range(5):
            without = QUERIES.x[i : i + 1].copy()
            without[0, j] = TRAIN.x[:, j].mean()
            drop = log_probability(estimator, QUERIES.x[i : i + 1], QUERIES.y[i]) - log_probability(
                estimator, without, QUERIES.y[i]
            )
            assert attributions.values[i][j] == pytest.approx(drop[0], rel=1e-9, abs=1e-12)
    first = attributions.top(100, k=1)[0]
    assert first.name in "abcde" and abs(first.attribution) == np.abs(attributions.of(100)).max()


def test_erasing_a_word_leaves_it_out_of_the_text():
    texts = ["good film, good cast", "bad film", "a good play", "bad and dull"] * 5
    train = uw.Examples(texts, [1, 0, 1, 0] * 5)
    model = uw.explainable(make_pipeline(TfidfVectorizer(), LogisticRegression(tol=1e-8)).fit(texts, train.y), train)
    query = uw.Examples(["A good film, not dull!"], [1], ids=["q"])
    attributions = uw.attribute_inputs(model, query, of=1)
    assert attributions.names == (("A", "good", "film", "not", "dull"),) and attributions.parts == "words"
    for j, text in enumerate([" good film, not dull!", "A  film, not dull!", "A good , not dull!"]):
        drop = log_probability(model.predictor, list(query.x), 1) - log_probability(model.predictor, [text], 1)
        assert attributions.of("q")[j] == pytest.approx(drop[0], abs=1e-12)


def test_columns_of_a_frame_are_erased_by_what_is_usual_in_the_training_set():
    frame = pd.DataFrame(
        {"age": [20, 31, 40, 50], "job": ["cook", "cook", "nurse", "nurse"], "n": [1.5, 2.5, 0.5, 3.0]}
    )
    train = uw.Examples(pd.concat([frame.iloc[:3]] * 8, ignore_index=True), [0.0, 1.0, 2.0] * 8)
    seen = []

    class Recorded(uw.Measurable):
        measurement = "f"

        def measure(self, queries):
            return np.zeros(len(queries))

        def predict(self, examples):
            seen.append(examples.x)
            return uw.Predictions(tuple(examples.x["age"] + (examples.x["job"] == "nurse") * 100.0 + examples.x["n"]))

    attributions = uw.attribute_inputs(Recorded(), uw.Examples(frame.iloc[3:].reset_index(drop=True)), train=train)
    mean_age = np.mean([20, 31, 40])
    assert attributions.values[0] == pytest.approx([50 - mean_age, 100.0, 3.0 - 1.5])
    assert all(list(x.columns) == ["age", "job", "n"] for x in seen)
    with pytest.raises(ValueError, match="column 'job' is not a number, so that 0 cannot stand in for it; pass train="):
        uw.attribute_inputs(Recorded(), uw.Examples(frame))


def test_polars_frames_and_sparse_rows_are_erased_too(linear):
    polars = pytest.importorskip("polars")
    from scipy.sparse import csr_array

    plain = uw.attribute_inputs(linear, QUERIES).values
    sparse = uw.attribute_inputs(linear, uw.Examples(csr_array(QUERIES.x), QUERIES.y, names=NAMES["names"])).values
    assert np.allclose(plain, sparse, atol=1e-12)

    class Sums(uw.Measurable):
        measurement = "f"

        def measure(self, queries):
            return np.zeros(len(queries))

        def predict(self, examples):
            return uw.Predictions(tuple((examples.x["a"] * 1.0 + examples.x["b"].str.len_chars()).to_list()))

    frame = polars.DataFrame({"a": [1, 3], "b": ["x", "four"]})
    assert uw.attribute_inputs(Sums(), uw.Examples(frame), uw.Erasure(baseline=[0.5, ""])).values[1].tolist() == [
        2.5,
        4,
    ]


def test_regression_erases_by_the_prediction_and_a_model_without_probabilities_by_its_measurement():
    ridge = uw.explainable(Ridge().fit(X, X @ np.arange(5)), uw.Examples(X, X @ np.arange(5)))
    drops = uw.attribute_inputs(ridge, uw.Examples(X[:3], [0.0, 0.0, 0.0])).values
    assert np.allclose(drops, X[:3] * ridge.predictor.coef_)
    binary = uw.Examples(X, (Y > 0).astype(int))
    svm = uw.explainable(LinearSVC(tol=1e-10, max_iter=100_000).fit(X, binary.y), binary)
    attributions = uw.attribute_inputs(svm, binary.take([0]), of=1)
    without = X[:1].copy()
    without[0, 2] = 0
    drop = svm.measure(uw.Examples(X[:1], [1])) - svm.measure(uw.Examples(without, [1]))
    assert attributions.values[0][2] == pytest.approx(drop[0]) and attributions.described == svm.measurement


def test_saliency_is_the_absolute_gradient_and_gradient_times_input_their_product(captum, model):
    columns = [list(NAMES["labels"].values()).index(label) for label in model.predict(QUERIES).predicted]
    expected = gradients(model.network.net, QUERIES.x, columns)
    assert np.allclose(uw.attribute_inputs(model, QUERIES, uw.Saliency()).values, np.abs(expected))
    assert np.allclose(uw.attribute_inputs(model, QUERIES, uw.GradientTimesInput()).values, QUERIES.x * expected)
    assert not uw.attribute_inputs(model, QUERIES, uw.Saliency()).is_signed


def test_integrated_gradients_are_the_integral_and_add_up(captum, pictures):
    model, examples = pictures
    baseline = RNG.normal(size=(2, 6, 6))
    attributions = uw.attribute_inputs(model, examples, uw.IntegratedGradients(baseline=baseline), of="label")
    net, change = model.network.net, examples.x - baseline
    points = (np.arange(2000) + 0.5) / 2000
    for i in range(len(examples)):
        path = baseline + points[:, None, None, None] * change[i]
        assert np.allclose(attributions.values[i], change[i] * gradients(net, path, [i]).mean(axis=0), atol=1e-6)
        rise = outputs(net, examples.x[i : i + 1], [i]) - outputs(net, baseline[None], [i])
        assert attributions.values[i].sum() == pytest.approx(rise[0], rel=1e-6)
    assert attributions.diagnostics["delta"] < 1e-6 and attributions.diagnostics["warnings"] == []


def test_integrals_of_too_few_steps_are_marked_and_those_of_enough_are_not(captum):
    torch.manual_seed(0)
    model = uw.TorchModel(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double(), cross_entropy)
    far = uw.Examples(5 * QUERIES.x, QUERIES.y)
    coarse = uw.attribute_inputs(model, far, uw.IntegratedGradients(steps=1))
    assert "fail to add up to f(x) − f(baseline)" in coarse.diagnostics["warnings"][0]
    assert uw.attribute_inputs(model, far, uw.IntegratedGradients(steps=200)).diagnostics["warnings"] == []


def test_deeplift_follows_the_rescale_rule(captum, model):
    """Of a net with one ReLU layer: multipliers are slopes of the secant."""
    attributions = uw.attribute_inputs(model, QUERIES, uw.DeepLIFT(), of="high")
    first, _, last = model.network.net
    before = first(torch.as_tensor(QUERIES.x)).detach().numpy()
    start = first(torch.zeros(1, 5).double()).detach().numpy()
    secant = (np.maximum(before, 0) - np.maximum(start, 0)) / (before - start)
    weights, head = first.weight.detach().numpy(), last.weight.detach().numpy()[2]
    assert np.allclose(attributions.values, QUERIES.x * ((secant * head) @ weights))


def test_deeplift_that_does_not_see_a_non_linearity_is_refused(captum):
    torch.manual_seed(0)
    model = uw.TorchModel(Functional().double(), cross_entropy)
    with pytest.raises(ValueError, match="DeepLIFT does not see all non-linearities of this net; make them modules"):
        uw.attribute_inputs(model, QUERIES, uw.DeepLIFT())


def test_occlusion_is_the_mean_drop_over_the_windows_that_cover_a_number(captum, pictures):
    model, examples = pictures
    attributions = uw.attribute_inputs(model, examples, uw.Occlusion(window=2, stride=1), of=0)
    net, x = model.network.net, examples.x[0]
    drops, counts = np.zeros_like(x), np.zeros_like(x)
    for top in range(5):
        for left in range(5):
            without = x.copy()
            without[:, top : top + 2, left : left + 2] = 0
            drops[:, top : top + 2, left : left + 2] += outputs(net, x[None], [0]) - outputs(net, without[None], [0])
            counts[:, top : top + 2, left : left + 2] += 1
    assert np.allclose(attributions.values[0], drops / counts)


def test_influence_directed_attributes_to_the_inputs_of_the_most_influential_neurons(captum, pictures):
    model, examples = pictures
    attributions = uw.attribute_inputs(model, examples, uw.InfluenceDirected(layer="0", neurons=3, steps=80), of=1)
    convolution, *rest = model.network.net
    x = torch.as_tensor(examples.x[:1])
    influence = torch.zeros(48).double()
    for t in (np.arange(400) + 0.5) / 400:
        z = convolution(t * x).detach().requires_grad_(True)
        influence += torch.autograd.grad(nn.Sequential(*rest)(z)[0, 1], z)[0].flatten() / 400
    chosen = influence.abs().topk(3).indices
    x.requires_grad_(True)
    (expected,) = torch.autograd.grad((convolution(x).flatten()[chosen] * influence[chosen]).sum(), x)
    assert np.allclose(attributions.values[0], expected[0].numpy(), atol=1e-5)


def test_neurons_that_are_off_are_marked(captum):
    net = nn.Sequential(nn.Linear(5, 2), nn.ReLU(), nn.Linear(2, 3)).double()
    with torch.no_grad():
        net[0].bias.fill_(-100.0)
    attributions = uw.attribute_inputs(
        uw.TorchModel(net, cross_entropy), QUERIES, uw.InfluenceDirected(layer="1"), of=1
    )
    assert "of 10 of 10 examples are off there" in attributions.diagnostics["warnings"][0]


def test_attention_weights_are_those_of_the_softmax(tokens):
    model, examples = tokens
    attributions = uw.attribute_inputs(model, examples, uw.AttentionWeights())
    net = model.network.net
    x = net.embedding(torch.as_tensor(examples.x))
    query, key, _ = (x @ net.attention.in_proj_weight.T + net.attention.in_proj_bias).chunk(3, dim=-1)
    heads = [(q @ k.mT / 2).softmax(-1) for q, k in zip(query.split(4, -1), key.split(4, -1), strict=True)]
    expected = torch.stack(heads).mean((0, 2)).detach().numpy()
    assert np.allclose(attributions.values, expected) and "attention of layer -1" in repr(attributions)


def test_attention_inside_a_fused_layer_is_recorded():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.Sequential(nn.Embedding(20, 8), nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(48, 3)).double()
    examples = uw.Examples(RNG.integers(0, 20, (4, 6)), [0, 1, 2, 0])
    attributions = uw.attribute_inputs(uw.TorchModel(net, cross_entropy), examples, uw.AttentionWeights(layer=0))
    assert np.allclose([row.sum() for row in attributions.values], 1)


def test_embeddings_are_summed_to_one_number_per_token_with_its_word(captum, tokens):
    model, examples = tokens
    words = [[f"w{token}" for token in row] for row in examples.x]
    attributions = uw.attribute_inputs(model, examples, uw.GradientTimesInput(), of=2, words=words)
    net = model.network.net
    x = net.embedding(torch.as_tensor(examples.x)).detach().requires_grad_(True)
    output = net.last(torch.tanh(x + net.attention(x, x, x)[0]).mean(1))[:, 2].sum()
    (gradient,) = torch.autograd.grad(output, x)
    assert np.allclose(attributions.values, (x * gradient).sum(-1).detach().numpy())
    assert attributions.names[0] == tuple(words[0]) and attributions.parts == "words"
    padded = uw.attribute_inputs(model, examples, uw.IntegratedGradients(baseline=3), of=2)
    rise = outputs(net, examples.x, [2] * 4) - outputs(net, np.full((4, 6), 3), [2] * 4)
    assert np.allclose([row.sum() for row in padded.values], rise, atol=1e-4)


def test_texts_that_are_padded_in_each_batch_keep_their_own_lengths(captum, tokens):
    model, _ = tokens
    rng = np.random.default_rng(1)
    texts = [" ".join(f"w{i}" for i in rng.integers(1, 20, 3 + (k == 50))) for k in range(60)]
    examples = uw.Examples(texts, [0] * 60)

    def collate(part):
        rows = [[int(word[1:]) for word in text.split()] for text in part.x]
        width = max(map(len, rows))
        padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        return SimpleNamespace(x=padded, y=torch.as_tensor(part.y))

    padded = uw.TorchModel(model.network.net, cross_entropy, collate=collate)
    attributions = uw.attribute_inputs(
        padded, examples, uw.Saliency(), of=1, words=lambda part: [text.split() for text in part.x]
    )
    assert [len(values) for values in attributions.values] == [3] * 32 + [4] * 28
    assert attributions.names[50] == tuple(texts[50].split()) and attributions.names[59][3] == ""


def test_of_several_tensors_the_inputs_are_those_of_the_batch_and_a_warning_says_so(captum):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, scale, x):
            return self.layer(scale[:, None] * x)

    net = Two().double()

    def scaled(net, batch):
        return F.cross_entropy(net(2 * torch.ones(len(batch.x)).double(), batch.x), batch.y, reduction="none")

    attributions = uw.attribute_inputs(uw.TorchModel(net, scaled), QUERIES, uw.Saliency(), of=1)
    assert np.allclose(attributions.values, 2 * np.abs(net.layer.weight[1].detach().numpy()))
    assert "The net receives 2 tensors of numbers" in attributions.diagnostics["warnings"][0]


def test_a_net_is_left_as_it_was(captum, model):
    net = model.network.net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for recipe in (uw.Saliency(), uw.DeepLIFT(), uw.IntegratedGradients(), uw.InfluenceDirected(layer="0")):
        uw.attribute_inputs(model, QUERIES, recipe)
    assert net.training and all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_attributions_do_not_depend_on_the_other_examples(captum, model):
    many = uw.Examples(RNG.normal(size=(70, 5)), RNG.integers(0, 3, 70))
    together = uw.attribute_inputs(model, many, uw.IntegratedGradients())
    alone = uw.attribute_inputs(model, many.take([69]), uw.IntegratedGradients())
    assert np.allclose(together.values[69], alone.values[0])

    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x):
            return self.layer(x * x.mean(0, keepdim=True))

    with pytest.raises(ValueError, match="depends on which others are in its batch"):
        uw.attribute_inputs(uw.TorchModel(Mixing().double(), cross_entropy), many, uw.Saliency())


@pytest.mark.parametrize(
    ("recipe", "of", "error", "sentence"),
    [
        (uw.IntegratedGradients(baseline=[0.0, 1.0]), "label", ValueError, "baseline of one number or of shape"),
        (uw.IntegratedGradients(baseline=np.nan), "label", ValueError, "expected a finite baseline"),
        (uw.InfluenceDirected(layer="conv9"), "label", ValueError, "the net has no layer 'conv9'; its layers are 0, 1"),
        (uw.InfluenceDirected(layer="0", neurons=9), "label", ValueError, "expected at most 8 neurons"),
        (uw.Occlusion(window=(2, 2)), "label", ValueError, "expected a window with 1 sides"),
        (uw.AttentionWeights(), "label", TypeError, "expected a net with nn.MultiheadAttention"),
        (uw.Saliency(), "huge", ValueError, "no class of the model is called 'huge'; the classes are"),
        (uw.Saliency(), [0, 1], ValueError, r"expected one class per example \(10\), got 2"),
        ("saliency", "label", TypeError, "expected a recipe such as"),
    ],
)
def test_what_cannot_be_attributed_is_refused_in_a_sentence(model, recipe, of, error, sentence):
    if not isinstance(recipe, uw.AttentionWeights | str):
        pytest.importorskip("captum", reason="captum is not installed: pip install 'upweight[captum]'")
    with pytest.raises(error, match=sentence):
        uw.attribute_inputs(model, QUERIES, recipe, of=of)


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (np.full((2, 5), np.nan), r"the model cannot take these 2 examples \(Input X contains NaN\); pass inputs"),
        (np.zeros((1, 4)), r"the model cannot take this query \(X has 4 features, but LogisticRegression"),
    ],
)
def test_inputs_that_the_model_cannot_take_are_refused_in_one_sentence(linear, inputs, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        uw.attribute_inputs(linear, uw.Examples(inputs))
    assert "\n" not in str(refused.value)


def test_inputs_that_a_recipe_is_not_for_are_refused(captum, model, tokens, linear):
    with pytest.raises(TypeError, match=r"Saliency needs a model that is InputAttributable .*uw\.Erasure\(\) works"):
        uw.attribute_inputs(linear, QUERIES, uw.Saliency())
    with pytest.raises(ValueError, match="the inputs of example 1 contain NaN"):
        uw.attribute_inputs(model, uw.Examples(np.array([[0.0] * 5, [np.nan] * 5]), [0, 1]), uw.Saliency(), of=0)
    with pytest.raises(TypeError, match="Occlusion is for numbers, and this net receives token ids"):
        uw.attribute_inputs(*tokens, uw.Occlusion())
    with pytest.raises(ValueError, match="expected token ids below 20 as the baseline, got 20"):
        uw.attribute_inputs(*tokens, uw.IntegratedGradients(baseline=20))
    with pytest.raises(ValueError, match="expected words for 4 examples with at most 6 positions, got 4 with 7"):
        uw.attribute_inputs(*tokens, uw.Saliency(), words=[["a"] * 7] * 4)
    with pytest.raises(TypeError, match="wrap a fitted estimator"):
        uw.attribute_inputs(linear.predictor, QUERIES)
    with pytest.raises(ValueError, match='expected examples with labels for of="label"'):
        uw.attribute_inputs(linear, QUERIES.replaced(y=None), of="label")


def test_without_captum_the_sentence_says_what_to_install(model, monkeypatch):
    monkeypatch.setitem(importlib.import_module("sys").modules, "captum", None)
    monkeypatch.setitem(importlib.import_module("sys").modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"Saliency needs captum, which is not installed .*upweight\[captum\]"):
        uw.attribute_inputs(model, QUERIES, uw.Saliency())
    assert uw.attribute_inputs(model, QUERIES).values[0].shape == (5,)  # erasure needs nothing
