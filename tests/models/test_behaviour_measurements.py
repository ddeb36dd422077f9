"""Measurements of behaviour: their values by plain loops, their gradients by autograd, and their identity."""

import numpy as np
import pytest
import torch

import upweight as uw
from support.token_nets import SEQUENCES, VOCABULARY, WIDTH, collate, language_model, left_padded, sequences, small_lm
from support.token_nets import token_losses as losses_of_tokens

LOSS = uw.TokenLoss(losses_of_tokens)
TRAIN, QUERIES = sequences(5), sequences(3, start=5)
REFUSALS, COMPLIANCES = ((3, 4), (5,)), ((7, 1, 2), (8, 9))


def call(net, ids, mask):
    return net(ids, mask)


def refuses():
    first, second = (uw.AnswerProbability(answers, call) for answers in (REFUSALS, COMPLIANCES))
    return uw.Contrast(first, second)


def pairs(examples, left=False):
    """The text, and the same with another last token."""
    made = collate(examples, left)
    rejected = collate(examples.replaced(x=[[*x[:-1], 1 + x[-1] % (VOCABULARY - 1)] for x in examples.x]), left)
    return {**made, "chosen": made, "rejected": rejected}


def log_p(net, tokens, start):
    """log p of the tokens from `start` on, by a loop."""
    logits = net(torch.tensor([tokens]))[0].log_softmax(-1)
    return sum(logits[t - 1, tokens[t]] for t in range(start, len(tokens)))


def refusal_by_loop(net, tokens):
    each = [
        torch.logsumexp(torch.stack([log_p(net, [*tokens, *a], len(tokens)) for a in answers]), 0)
        for answers in (REFUSALS, COMPLIANCES)
    ]
    return each[0] - each[1]


def contrast_by_loop(net, tokens):
    other = [*tokens[:-1], 1 + tokens[-1] % (VOCABULARY - 1)]
    return log_p(net, tokens, 2) - log_p(net, other, 2)


def probe_by_loop(net, tokens):
    return net.norm(_hidden(net, tokens))[-1] @ torch.arange(1.0, WIDTH + 1, dtype=torch.float64)


def mean_probe_by_loop(net, tokens):
    return (net.norm(_hidden(net, tokens)) @ torch.arange(1.0, WIDTH + 1, dtype=torch.float64)).mean()


def _hidden(net, tokens):
    seen = []
    handle = net.norm.register_forward_pre_hook(lambda module, args: seen.append(args[0][0]))
    net(torch.tensor([tokens]))
    handle.remove()
    return seen[0]


def call_net(net, batch):
    return net(batch["input_ids"], batch["attention_mask"])


def probe(positions):
    return uw.LayerDirection("norm", np.arange(1.0, WIDTH + 1), positions, call_net)


CASES = {
    "answer": (uw.LogProbability(LOSS), collate, lambda net, x: log_p(net, x, 2)),
    "tokens": (uw.LogProbability(LOSS, (2, 4)), collate, lambda net, x: log_p(net, x[:4], 2)),
    "tokens, padded on the left": (uw.LogProbability(LOSS, (2, 4)), left_padded, lambda net, x: log_p(net, x[:4], 2)),
    "continuations": (
        uw.Contrast(uw.LogProbability(LOSS, part="chosen"), uw.LogProbability(LOSS, part="rejected")),
        pairs,
        contrast_by_loop,
    ),
    "refusal": (refuses(), collate, refusal_by_loop),
    "refusal, padded on the left": (refuses(), left_padded, refusal_by_loop),
    "probe": (probe("last"), collate, probe_by_loop),
    "probe, padded on the left": (probe("last"), left_padded, probe_by_loop),
    "mean probe": (probe("mean"), collate, mean_probe_by_loop),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_a_plain_loop(name):
    measure, made, by_loop = CASES[name]
    net = small_lm()
    model = language_model(net, measure, collate=made)
    values = [by_loop(net, tokens) for tokens in QUERIES.x]
    assert np.allclose(model.measure(QUERIES), [value.item() for value in values], atol=1e-12)
    parameters = list(net.parameters())
    expected = [
        torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).flatten()
                for p, g in zip(parameters, torch.autograd.grad(value, parameters, allow_unused=True), strict=True)
            ]
        ).numpy()
        for value in values
    ]
    assert np.abs(model.measure_rows(QUERIES).dense() - expected).max() < 1e-11
    assert model.measurement == measure.__name__


def test_a_mean_over_prompts_is_one_query_with_the_mean_of_their_scores():
    measure = refuses()
    each = (
        uw.Influence(curvature=uw.EKFAC(), damping=0.1).fit(language_model(measure=measure), TRAIN).attribute(QUERIES)
    )
    mean = uw.MeanOverPrompts(measure, QUERIES, collate)
    fitted = uw.Influence(curvature=uw.EKFAC(), damping=0.1).fit(language_model(measure=mean), TRAIN)
    scores = fitted.attribute()
    assert scores.values.shape == (1, len(TRAIN)) and scores.query_ids.tolist() == [mean.__name__]
    assert np.allclose(scores.values[0], each.values.mean(axis=0), rtol=1e-8)
    assert scores.measured == pytest.approx(each.measured.mean())
    tokens = uw.token_scores(fitted, k=5)
    of_train = dict(zip(scores.train_ids.tolist(), scores.values[0].tolist(), strict=True))
    for sequence in tokens.sequences[mean.__name__]:
        assert sequence.total == pytest.approx(sequence.score) == pytest.approx(of_train[sequence.id])
    with pytest.raises(TypeError, match="self-influence"):
        fitted.self_influence()


def test_a_set_of_prompts_of_one_is_that_prompt():
    one = QUERIES.take([0])
    mean = language_model(measure=uw.MeanOverPrompts(refuses(), one, collate))
    single = language_model(measure=refuses())
    assert np.allclose(mean.measure_rows(one).dense(), single.measure_rows(one).dense(), atol=1e-12)


def test_an_answer_of_several_tokens_is_less_likely_than_its_beginning():
    one, two = (language_model(measure=uw.AnswerProbability([a], call)).measure(QUERIES) for a in ([3], [3, 4]))
    both = language_model(measure=uw.AnswerProbability([[3], [4]], call)).measure(QUERIES)
    other = language_model(measure=uw.AnswerProbability([[4]], call)).measure(QUERIES)
    assert (two < one).all() and np.allclose(np.exp(both), np.exp(one) + np.exp(other))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (uw.LogProbability(LOSS), uw.LogProbability(LOSS, (2, 3))),
        (uw.AnswerProbability([[1]], call), uw.AnswerProbability([[2]], call)),
        (refuses(), uw.Contrast(refuses().second, refuses().first)),
        (uw.MeanOverPrompts(refuses(), QUERIES), uw.MeanOverPrompts(refuses(), TRAIN)),
        (probe("last"), probe("mean")),
        (probe("last"), uw.LayerDirection("norm", np.arange(2.0, WIDTH + 2), "last", call_net)),
        (LOSS, uw.TokenLoss(losses_of_tokens, "mean")),
    ],
)
def test_another_setting_has_another_identity(first, second):
    assert uw.digest(first) != uw.digest(second)


def test_equal_measurements_have_equal_identities_so_that_fits_are_loaded(tmp_path):
    fitted = uw.GradDot().fit(language_model(measure=refuses()), TRAIN)
    fitted.save(tmp_path / "fit.npz")
    loaded = uw.GradDot().load(tmp_path / "fit.npz", language_model(measure=refuses()), TRAIN)
    assert (loaded.attribute(QUERIES).values == fitted.attribute(QUERIES).values).all()
    with pytest.raises(ValueError, match=r"^the fit in .* was made with another measurement"):
        uw.GradDot().load(tmp_path / "fit.npz", language_model(measure=probe("last")), TRAIN)


def test_wrong_settings_are_refused_in_a_sentence():
    with pytest.raises(TypeError, match=r"expected uw\.TokenLoss"):
        uw.LogProbability(losses_of_tokens)
    with pytest.raises(ValueError, match="start < stop"):
        uw.LogProbability(LOSS, (4, 2))
    with pytest.raises(ValueError, match="at least one answer"):
        uw.AnswerProbability([[]])
    for tokens_of_one in ("Rome", [3, 4]):
        with pytest.raises(ValueError, match="encode texts with your tokenizer"):
            uw.AnswerProbability(tokens_of_one)
    with pytest.raises(ValueError, match="answers that differ"):
        uw.AnswerProbability([[3], [4], [3]])
    with pytest.raises(ValueError, match="token ids of at least one answer"):
        uw.AnswerProbability([[3, -1]])
    for answer in ([VOCABULARY], [3, VOCABULARY + 40]):  # the last token is predicted only, others are looked up too
        with pytest.raises(ValueError, match=r"Encode|encode the answers with the tokenizer of this net"):
            language_model(measure=uw.AnswerProbability([[2], answer], call)).measure(QUERIES)
    foreign = QUERIES.replaced(x=[[*x[:-1], VOCABULARY + 5] for x in QUERIES.x])
    with pytest.raises(ValueError, match=r"token ids.*to be among those that it knows.*out of range"):
        language_model(measure=uw.LogProbability(LOSS)).measure(foreign)
    for span in (3, (3,)):
        with pytest.raises(ValueError, match="start < stop"):
            uw.LogProbability(LOSS, span)
    with pytest.raises(TypeError, match="expected first as a measurement"):
        uw.Contrast("refusal", refuses())
    with pytest.raises(TypeError, match="expected prompts as"):
        uw.MeanOverPrompts(refuses(), SEQUENCES)
    with pytest.raises(ValueError, match="prompts without weights"):
        uw.MeanOverPrompts(refuses(), QUERIES.replaced(weights=np.arange(len(QUERIES)) + 1.0))
    with pytest.raises(ValueError, match=r"finite real numbers \(d,\)"):
        uw.LayerDirection("norm", [[1.0]])
    with pytest.raises(ValueError, match="no layer 'nowhere'"):
        language_model(measure=uw.LayerDirection("nowhere", [1.0], call=call_net)).measure(QUERIES)
    with pytest.raises(ValueError, match=r"expected activations \(m, 2\)"):
        language_model(measure=uw.LayerDirection("norm", [1.0, 2.0], call=call_net)).measure(QUERIES)
    with pytest.raises(ValueError, match="entry 'chosen'"):
        language_model(measure=uw.LogProbability(LOSS, part="chosen")).measure(QUERIES)
    with pytest.raises(ValueError, match="none in one of them"):
        language_model(measure=uw.LogProbability(LOSS, (0, 2))).measure(QUERIES)
