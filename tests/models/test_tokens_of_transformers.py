"""Token scores of models that `uw.hf` makes, held against a backward pass per token, with their own attention."""

import numpy as np
import pytest
import torch

import upweight as uw

pytest.importorskip("transformers")
pytest.importorskip("datasets")
from support.tiny_transformers import text_dataset, tiny, word_tokenizer

KINDS = ["bert tokens", "gpt2", "llama", "t5"]


def task(kind, reduction="sum"):
    rows, tokenizer, net = text_dataset(8), word_tokenizer(), tiny(kind)
    labels = [[-100, *(word % 2 for word in row[1:])] for row in rows["input_ids"]]
    if kind == "t5":
        labels = [row[::-1] for row in rows["input_ids"]]
    elif kind != "bert tokens":
        labels = [[-100, -100, *row[2:]] for row in rows["input_ids"]]
    rows = rows.remove_columns("label").add_column("labels", labels)
    make = {"bert tokens": uw.hf.classifier, "t5": uw.hf.seq2seq}.get(kind, uw.hf.causal_lm)
    return make(net, rows, tokenizer, ids="key", tokens=reduction)


def gradient(net, value):
    parameters = list(net.parameters())
    gradients = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    each = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    return torch.cat([g.flatten() for g in each]).double().numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_by_target_equal_a_backward_pass_per_token(kind):
    model, examples = task(kind)
    train, query = examples.take(range(6)), examples.take([7])
    net, loss, attention = model.network.net, model.network.loss, model.network.net.config._attn_implementation
    fitted, calls = uw.GradDot().fit(model, train), []
    vector = gradient(net, -loss(net, model.network.batch(query)).sum())
    direction = fitted.score_directions(query)[0]
    handle = net.register_forward_hook(lambda *_: calls.append(1))
    products = model.token_products(train, direction.vectors[0], "target")
    handle.remove()
    assert len(calls) == 1  # one forward-mode pass: no operator needed the two backward passes
    expected = []
    for example in train.batches(1):
        batch = model.network.batch(example)
        each = loss.per_token(net, batch)[0][: len(example.x[0]["input_ids"])]
        expected.append(np.array([vector @ gradient(net, value) if value.requires_grad else 0.0 for value in each]))
    scale = max(np.abs(values).max() for values in expected)
    for product, values in zip(products, expected, strict=True):
        assert np.abs(product.values - values).max() < 1e-5 * scale
    assert net.config._attn_implementation == attention


@pytest.mark.sweep(2)
@pytest.mark.parametrize(("kind", "reduction"), zip(KINDS, ["mean", "sum", "mean", "sum"], strict=True))
def test_tokens_of_either_kind_add_up_to_the_scores_of_the_method(kind, reduction):
    model, examples = task(kind, reduction)
    train, queries = examples.take(range(6)), examples.take([6, 7])
    fitted = uw.Influence(curvature=uw.EKFAC(), damping=0.1).fit(model, train)
    scores = fitted.attribute(queries).values
    for by in ("target", "position"):
        result = uw.token_scores(fitted, queries, train=train.ids, by=by)
        totals = [[s.total for s in result.sequences[query]] for query in queries.ids.tolist()]
        assert np.abs(totals - scores).max() < 1e-5 * np.abs(scores).max()
        if kind in ("gpt2", "llama"):  # every parameter acts at a position
            assert max(abs(s.rest) for each in result.sequences.values() for s in each) < 1e-5 * np.abs(scores).max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_on_a_frozen_base_are_split_alike(dtype):
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    net = peft.get_peft_model(tiny("llama", dtype), adapter)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    model, train = uw.hf.causal_lm(net, text_dataset(6).remove_columns("label"), word_tokenizer(), ids="key")
    fitted = uw.Influence(curvature=uw.DataInf()).fit(model, train)
    for by in ("target", "position"):
        result = uw.token_scores(fitted, train.take([0]), k=6, by=by)
        pairs = np.array([(s.score, s.total) for s in result.sequences["row0"]])
        exact, half = 1e-5, 3e-2
        assert np.abs(pairs[:, 0] - pairs[:, 1]).max() < (exact if dtype == torch.float32 else half) * abs(pairs).max()
        assert any("low precision" in w for w in result.diagnostics["warnings"]) == (dtype == torch.bfloat16)


def test_texts_and_completions_come_from_the_data_set():
    model, examples = task("gpt2")
    result = uw.token_scores(uw.GradDot().fit(model, examples), examples.take([0]), k=1)
    (sequence,) = result.sequences["row0"]
    assert "".join(sequence.text.tokens) == examples.preview(sequence.id).value
    assert sequence.text.targets.tolist() == [False, False, *[True] * (len(sequence.text) - 2)]


def test_behaviour_is_measured_with_the_losses_of_the_model():
    model, examples = task("llama")
    measure = uw.LogProbability(model.network.loss, (2, 3))
    queries, net = examples.take([6, 7]), model.network.net
    spanned, _ = uw.hf.causal_lm(net, examples.x, word_tokenizer(), measure=measure)
    ids = [row["input_ids"] for row in queries.x]
    logits = [net(input_ids=torch.tensor([row])).logits[0].log_softmax(-1) for row in ids]
    expected = [z[1, row[2]].item() for z, row in zip(logits, ids, strict=True)]
    assert np.allclose(spanned.measure(queries), expected, rtol=1e-5)
    answered, _ = uw.hf.causal_lm(net, examples.x, word_tokenizer(), measure=uw.AnswerProbability([[5], [6]]))
    expected = [torch.logsumexp(z[-1, [5, 6]], 0).item() for z in logits]
    assert np.allclose(answered.measure(queries), expected, rtol=1e-4)
    probe = uw.LayerDirection("model.layers.0", np.ones(16))
    along, _ = uw.hf.causal_lm(net, examples.x, word_tokenizer(), measure=probe)
    hidden = [net(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states[1][0, -1] for row in ids]
    assert np.allclose(along.measure(queries), [h.sum().item() for h in hidden], atol=1e-4)


def test_log_probabilities_leave_out_the_label_smoothing_of_the_training():
    rows, tokenizer, net = text_dataset(6).remove_columns("label"), word_tokenizer(), tiny("gpt2")
    model, examples = uw.hf.causal_lm(net, rows, tokenizer, ids="key", label_smoothing=0.2)
    span = (1, 3)
    query, batch = examples.take([5]), model.network.batch(examples.take([5]))
    logits = net.eval()(input_ids=batch["input_ids"]).logits[0, :2].log_softmax(-1)
    expected = logits.gather(1, batch["input_ids"][0, 1:3, None]).sum()
    measured = uw.LogProbability(model.network.loss, span)(net, batch)
    assert measured.item() == pytest.approx(expected.item(), rel=1e-5)

    fitted = uw.GradDot().fit(model, examples)
    result = uw.token_scores(fitted, query, train=[examples.ids[0].item()], span=span)
    loss = model.network.loss(net, model.network.batch(examples.take([0]))).sum()
    score = -gradient(net, expected) @ gradient(net, loss)
    assert result.sequences[examples.ids[5].item()][0].score == pytest.approx(score, rel=1e-4)


@pytest.mark.parametrize("positions", ["last", "mean"])
def test_padding_of_a_decoder_counts_for_no_activation_of_it(positions):
    rows = [{"input_ids": [5, 6, 7, 8], "labels": labels} for labels in ([4, 5], [6, 7, 8, 9], [9, 8, 3])]
    probe = uw.LayerDirection("decoder.block.0", np.arange(16.0), positions)
    model, train = uw.hf.seq2seq(tiny("t5"), rows, word_tokenizer(), measure=probe)
    alone = [model.measure(train.take([i])).item() for i in range(3)]
    assert model.measure(train) == pytest.approx(alone, rel=1e-4)


def test_answers_of_a_net_with_an_encoder_are_refused_in_a_sentence():
    rows = [{"input_ids": [5, 6, 7], "labels": [4, 5]}]
    model, train = uw.hf.seq2seq(tiny("t5"), rows, word_tokenizer(), measure=uw.AnswerProbability([[4]]))
    with pytest.raises(ValueError, match="got an encoder and decoder"):
        model.measure(train)
