"""Token scores: by target token equal to a backward pass per token, by position to copies of the parameters."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import upweight as uw
from support.token_nets import (
    PROMPT,
    SEQUENCES,
    collate,
    gradients_by_position,
    language_model,
    left_padded,
    sequences,
    small_lm,
    token_losses,
)
from upweight.gradients.functional import gradient_rows
from upweight.gradients.token_products import token_products

TRAIN, QUERIES = sequences(6), sequences(2, start=6)
KINDS = ["target", "position"]


def flat(net, gradients):
    return torch.cat([gradients[name].flatten() for name, _ in net.named_parameters()]).numpy()


def gradient(net, value):
    parameters = list(net.parameters())
    gradients = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    each = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    return torch.cat([g.flatten() for g in each]).detach().numpy()


def by_backward_passes(net, losses, batch_of, vector, examples):
    """−⟨v, ∇ℓ_it⟩ of every token, by a backward pass for each."""
    out = {}
    for example in examples.batches(1):
        each, _ = losses(net, batch_of(example))
        values = [-float(vector @ gradient(net, loss)) for loss in each[0]]
        out[example.ids[0].item()] = np.array([0.0, *values])
    return out


def measure_gradient(net, losses, batch_of, query):
    return gradient(net, -losses(net, batch_of(query))[0].sum())


def largest_error(scores, expected):
    return max(np.abs(s.values - expected[s.id]).max() for s in scores)


def test_scores_by_target_equal_a_backward_pass_per_token():
    net = small_lm()
    fitted = uw.GradDot().fit(language_model(net), TRAIN)
    result = uw.token_scores(fitted, QUERIES, k=6)
    for query in QUERIES.batches(1):
        vector = measure_gradient(net, token_losses, collate, query)
        expected = by_backward_passes(net, token_losses, collate, vector, TRAIN)
        assert largest_error(result.sequences[query.ids[0].item()], expected) < 1e-10


def test_scores_by_position_equal_gradients_in_copies_of_the_parameters():
    net, loss = small_lm(), uw.TokenLoss(token_losses)
    result = uw.token_scores(uw.GradDot().fit(language_model(net), TRAIN), QUERIES, k=6, by="position")
    for query in QUERIES.batches(1):
        vector = measure_gradient(net, token_losses, collate, query)
        for sequence in result.sequences[query.ids[0].item()]:
            batch = collate(TRAIN.select([sequence.id]))
            copies = gradients_by_position(net, loss, batch)
            expected = [
                -vector @ flat(net, {name: g[t] for name, g in copies.items()})
                for t in range(batch["input_ids"].shape[1])
            ]
            assert np.abs(sequence.values - expected).max() < 1e-10
            assert abs(sequence.rest) < 1e-12


@pytest.mark.sweep(3)
@pytest.mark.parametrize("by", KINDS)
@pytest.mark.parametrize(
    "recipe",
    [
        uw.GradDot(),
        uw.GradDot(modules=["head", "*norm*"]),
        uw.Influence(curvature=uw.EKFAC(), damping=0.1),
        uw.Influence(curvature=uw.DataInf(), damping=0.1),
        uw.Influence(curvature=uw.EmpiricalFisher(), modules="head"),
        uw.RelatIF(curvature=uw.EKFAC(), damping=0.1),
    ],
    ids=lambda recipe: f"{type(recipe).__name__} {getattr(recipe, 'curvature', '')} {recipe.modules or ''}",
)
def test_tokens_add_up_to_the_score_of_their_sequence(recipe, by):
    weighted = TRAIN.replaced(weights=[1, 0, 3, 1, 1, 2])
    model = language_model(objective=uw.Objective("mean", l2=0.01))
    fitted = recipe.fit(model, weighted)
    result = uw.token_scores(fitted, QUERIES, train=TRAIN.ids, by=by)
    scores = fitted.attribute(QUERIES)
    for row, query in enumerate(QUERIES.ids.tolist()):
        totals = [sequence.total for sequence in result.sequences[query]]
        assert np.abs(totals - scores.values[row]).max() < 1e-9 * np.abs(scores.values).max()
    assert not [warning for warning in result.diagnostics["warnings"] if "add up" in warning]


def recorded_model(folder):
    """A model whose training of six steps was recorded, with two checkpoints."""
    net, trajectory = small_lm(), uw.Trajectory(folder, every=3)
    optimiser, loss, batch = torch.optim.SGD(net.parameters(), lr=0.1), uw.TokenLoss(token_losses), collate(TRAIN)
    trajectory.save(net, optimiser)
    for _ in range(6):
        optimiser.zero_grad()
        loss(net, batch).mean().backward()
        optimiser.step()
        trajectory.record(net, optimiser)
    return language_model(net, trajectory=trajectory)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("by", KINDS)
@pytest.mark.parametrize("recipe", [uw.TracIn(), uw.SOURCE(segments=2), uw.SOURCE(segments=1, modules="head")], ids=str)
def test_methods_with_checkpoints_add_up_too(recipe, by, tmp_path):
    fitted = recipe.fit(recorded_model(tmp_path), TRAIN)
    result, scores = uw.token_scores(fitted, QUERIES, train=TRAIN.ids, by=by), fitted.attribute(QUERIES).values
    totals = [[sequence.total for sequence in result.sequences[query]] for query in QUERIES.ids.tolist()]
    assert np.abs(totals - scores).max() < 1e-9 * np.abs(scores).max()


def test_the_two_kinds_differ_and_the_result_says_which_it_is():
    fitted = uw.GradDot().fit(language_model(), TRAIN)
    results = [uw.token_scores(fitted, QUERIES, k=2, by=by) for by in KINDS]
    first, second = (result.sequences[6][0] for result in results)
    assert first.id == second.id and abs(first.total - second.total) < 1e-10
    assert np.abs(first.values - second.values).max() > 0.05 * np.abs(first.values).max()
    assert (first.values[:PROMPT] == 0).all() and (second.values[:PROMPT] != 0).all()  # a prompt is read, not predicted
    for result, word in zip(results, ("predict", "place"), strict=True):
        assert word in result.kind and word in result._repr_html_()
        assert set(result.to_pandas()["kind"]) == {result.by}


@pytest.mark.parametrize("by", KINDS)
def test_padding_on_either_side_and_batches_change_nothing(by):
    right, left = (
        uw.token_scores(uw.GradDot().fit(language_model(collate=made), TRAIN), QUERIES, train=TRAIN.ids, by=by)
        for made in (collate, left_padded)
    )
    alone = [
        uw.token_scores(uw.GradDot().fit(language_model(), TRAIN), QUERIES, train=[i], by=by).sequences[6][0]
        for i in TRAIN.ids.tolist()
    ]
    for one, other, single in zip(right.sequences[6], left.sequences[6], alone, strict=True):
        assert len(one.values) == len(SEQUENCES[one.id]) and one.text.tokens == other.text.tokens
        assert np.allclose(one.values, other.values, atol=1e-10) and np.allclose(one.values, single.values, atol=1e-10)


def test_a_query_takes_at_most_five_forward_passes_a_batch_and_leaves_the_net_as_it_was():
    net = small_lm().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fitted = uw.GradDot().fit(language_model(net), TRAIN)
    query = QUERIES.take([0])
    direction = fitted.score_directions(query)[0]
    calls = []
    handle = net.register_forward_hook(lambda *_: calls.append(1))
    direction.model.token_products(TRAIN, direction.vectors[0], "target")
    handle.remove()
    assert len(calls) <= 5
    assert net.training and all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


class OneWay(torch.autograd.Function):
    """tanh without forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx, slope):
        (x,) = ctx.saved_tensors
        return slope * (1 - x.tanh() ** 2)


def test_an_operator_without_forward_mode_is_differentiated_by_backward_passes():
    net, plain = small_lm(), small_lm()
    net.norm.register_forward_hook(lambda module, args, output: OneWay.apply(output))
    plain.norm.register_forward_hook(lambda module, args, output: output.tanh())
    ours, expected = (
        uw.token_scores(uw.GradDot().fit(language_model(each), TRAIN), QUERIES, train=[0, 1]).sequences[6]
        for each in (net, plain)
    )
    assert all(np.allclose(a.values, b.values, atol=1e-10) for a, b in zip(ours, expected, strict=True))


@pytest.mark.parametrize("recipe", [uw.GradDot(), uw.Influence(curvature=uw.EKFAC(), damping=0.1)])
def test_a_span_of_the_query_is_measured_by_its_log_probability(recipe):
    def tokens_3_and_4(net, batch):
        return -token_losses(net, batch)[0][:, 2:4].sum(1)

    result = uw.token_scores(recipe.fit(language_model(), TRAIN), QUERIES, k=2, span=(3, 5))
    expected = recipe.fit(language_model(measure=tokens_3_and_4), TRAIN).attribute(QUERIES)
    assert result.measurement == "log-probability of tokens 3 to 4 (nats)"
    for row, query in enumerate(QUERIES.ids.tolist()):
        strongest = np.argsort(-np.abs(expected.values[row]))[:2]
        assert [s.id for s in result.sequences[query]] == expected.train_ids[strongest].tolist()
        totals = [(s.score, s.total) for s in result.sequences[query]]
        assert np.allclose(totals, expected.values[row][strongest][:, None], rtol=1e-9)


@pytest.mark.parametrize(
    ("recipe", "span"), [(uw.GradDot(), None), (uw.Influence(curvature=uw.EKFAC(), damping=0.1), (3, 5))]
)
def test_the_effect_of_the_training_texts_together_is_split_over_the_tokens_of_the_query(recipe, span):
    weighted = TRAIN.replaced(weights=[1, 0, 3, 1, 1, 2])
    fitted = recipe.fit(language_model(objective=uw.Objective("mean", l2=0.01)), weighted)
    result = uw.token_scores(fitted, QUERIES, k=4, span=span)
    for query, text in result.queries.items():
        train = [s.id for s in result.sequences[query]]
        for t in range(PROMPT, len(text)):  # each token measured alone
            alone = uw.token_scores(fitted, QUERIES.select([query]), train=train, span=(t, t + 1))
            total = sum(s.score for s in alone.sequences[query])
            is_measured = span is None or span[0] <= t < span[1]
            assert text.values[t] == pytest.approx(total if is_measured else 0.0, rel=1e-8)


def test_a_measurement_that_is_no_sum_over_tokens_is_not_split_over_the_query():
    def squared(net, batch):
        return token_losses(net, batch)[0].sum(1) ** 2

    fitted = uw.GradDot().fit(language_model(measure=squared), TRAIN)
    assert uw.token_scores(fitted, QUERIES, k=2).queries[6].values is None
    assert uw.token_scores(uw.GradDot().fit(language_model(), TRAIN), QUERIES, by="position").queries[6].values is None


def test_a_mean_over_tokens_divides_by_the_targets_of_the_sequence():
    mean = uw.TorchModel(small_lm(), uw.TokenLoss(token_losses, "mean"), collate=collate)
    total = language_model()
    means, sums = (
        uw.token_scores(uw.GradDot().fit(model, TRAIN), QUERIES, train=TRAIN.ids, span=(2, 5))
        for model in (mean, total)
    )
    for a, b in zip(means.sequences[6], sums.sequences[6], strict=True):
        assert np.allclose(a.values * (len(SEQUENCES[a.id]) - PROMPT), b.values, rtol=1e-9)


def test_scores_of_a_net_in_half_precision_are_near_those_in_float32():
    exact, half = (
        uw.token_scores(uw.GradDot().fit(language_model(net), TRAIN), QUERIES, train=TRAIN.ids).sequences[6]
        for net in (small_lm().float(), small_lm().bfloat16())
    )
    pairs = [np.concatenate([s.values for s in each]) for each in (exact, half)]
    assert np.corrcoef(*pairs)[0, 1] > 0.99


def test_tokens_come_from_a_tokenizer_and_an_explanation_brings_its_queries():
    model = language_model()
    explained = uw.explain(model, TRAIN, QUERIES, uw.GradDot(), removals=0)
    result = uw.token_scores(explained, k=1, tokens=lambda ids: [f"w{i}" for i in ids])
    text = result.queries[6]
    assert text.tokens == tuple(f"w{i}" for i in SEQUENCES[6])
    assert text.targets.tolist() == [False] * PROMPT + [True] * (len(text) - PROMPT)
    frame = result.to_pandas()
    assert frame["score"].sum() == pytest.approx(sum(s.score for each in result.sequences.values() for s in each))
    described = result.as_dict()
    assert described["kind"] == "target" and described["queries"][0]["train"][0]["values"]
    assert result.of(6, result.sequences[6][0].id) is result.sequences[6][0]
    with pytest.raises(KeyError, match="one of its training examples"):
        result.of(6, "nothing")


def no_sum(net, batch):
    return token_losses(net, batch)[0].sum()


def test_what_cannot_be_split_is_refused_in_a_sentence():
    model = language_model()
    fitted = uw.GradDot().fit(model, TRAIN)
    plain = uw.TorchModel(small_lm(), lambda net, batch: token_losses(net, batch)[0].sum(1), collate=collate)
    with pytest.raises(TypeError, match="TokenLoss"):
        uw.token_scores(uw.GradDot().fit(plain, TRAIN), QUERIES)
    with pytest.raises(TypeError, match="divides gradients by their norms"):
        uw.token_scores(uw.GradCos().fit(model, TRAIN), QUERIES)
    with pytest.raises(TypeError, match="not products with loss gradients"):
        uw.token_scores(uw.Chance().fit(model, TRAIN), QUERIES)
    with pytest.raises(TypeError, match="not first order"):
        uw.token_scores(uw.Influence(curvature=uw.EKFAC(), correction="leverage").fit(model, TRAIN), QUERIES)
    with pytest.raises(TypeError, match=r"uw\.explain returned"):
        uw.token_scores(model, QUERIES)
    with pytest.raises(TypeError, match="no fitted method"):
        uw.token_scores(replace(uw.explain(model, TRAIN, QUERIES, uw.GradDot(), removals=0), fitted=None))
    with pytest.raises(ValueError, match='by="target" or "position"'):
        uw.token_scores(fitted, QUERIES, by="word")
    for span in ((3, 3), 3, slice(3, 5)):
        with pytest.raises(ValueError, match="start < stop"):
            uw.token_scores(fitted, QUERIES, span=span)
    with pytest.raises(ValueError, match="with a target in every query"):
        uw.token_scores(fitted, QUERIES, span=(0, 2))
    with pytest.raises(ValueError, match="one text per token id"):
        uw.token_scores(fitted, QUERIES, tokens=lambda ids: ["w"])
    with pytest.raises(ValueError, match="one loss per token"):
        uw.TorchModel(small_lm(), uw.TokenLoss(no_sum), collate=collate).measure(QUERIES)
    with pytest.raises(ValueError, match=r"return \(losses, targets\)"):
        uw.TorchModel(small_lm(), uw.TokenLoss(lambda n, b: token_losses(n, b)[0], "mean"), collate=collate).measure(
            QUERIES
        )
    with pytest.raises(ValueError, match="entry 'tokens' of the batch"):
        named = uw.TokenLoss(token_losses, ids="tokens")
        uw.token_scores(uw.GradDot().fit(uw.TorchModel(small_lm(), named, collate=collate), TRAIN), QUERIES)


def test_a_layer_as_wide_as_the_text_has_no_positions():
    """The second axis of its input is that of the features."""

    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.mix, self.head = torch.nn.Embedding(8, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 8)

        def forward(self, ids):
            states = self.tokens(ids)
            return self.head(states + self.mix(states[:, 0])[:, None])

    def losses(net, batch):
        return torch.nn.functional.cross_entropy(net(batch.x)[:, :-1].mT, batch.x[:, 1:], reduction="none")

    torch.manual_seed(0)
    network = uw.TorchModel(Pooled().double(), uw.TokenLoss(losses)).network
    texts = uw.Examples(np.random.default_rng(0).integers(0, 8, (4, 6)))
    vector = np.random.default_rng(1).normal(size=network.size)
    products = token_products(network, texts, vector, "position", np.ones(4), 0.0)
    with network.preserved():
        rows = network.join(gradient_rows(network, "loss", texts, network.names, None))
    np.testing.assert_allclose([each.values.sum() + each.rest for each in products], rows @ vector, rtol=1e-10)
