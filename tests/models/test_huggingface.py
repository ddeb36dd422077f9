"""`uw.hf`: models and examples of transformers, held against plain autograd and the losses of transformers itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import upweight as uw

pytest.importorskip("transformers")
pytest.importorskip("datasets")
import datasets
import transformers

from support.tiny_transformers import text_dataset, texts, tiny, with_adapters, word_tokenizer

Task = tuple[uw.TorchModel, uw.Examples]


def token_labels(rows: Any) -> Any:
    """The words as labels of their own; the first is left out."""
    labels = [[-100, *(word % 2 for word in row[1:])] for row in rows["input_ids"]]
    return rows.remove_columns("label").add_column("labels", labels)


def completions(rows: Any) -> Any:
    """The words as labels, except the first two, which are the prompt."""
    labels = [[-100, -100, *row[2:]] for row in rows["input_ids"]]
    return rows.remove_columns("label").add_column("labels", labels)


def targets(rows: Any) -> Any:
    return rows.remove_columns("label").add_column("labels", [row[::-1] for row in rows["input_ids"]])


def task(kind: str, dtype: torch.dtype = torch.float64, count: int = 8, **settings: Any) -> Task:
    net, rows, tokenizer = tiny(kind, dtype), text_dataset(count), word_tokenizer()
    if kind == "bert":
        return uw.hf.classifier(net, rows, tokenizer, ids="key", **settings)
    if kind == "bert tokens":
        return uw.hf.classifier(net, token_labels(rows), tokenizer, ids="key", **settings)
    if kind == "t5":
        return uw.hf.seq2seq(net, targets(rows), tokenizer, ids="key", **settings)
    return uw.hf.causal_lm(net, completions(rows), tokenizer, ids="key", **settings)


def loss_of_transformers(model: uw.TorchModel, example: uw.Examples) -> torch.Tensor:
    """What the net itself computes for one example: a mean over its targets."""
    batch = model.network.batch(example)
    batch.pop("decoder_input_ids", None)
    loss: torch.Tensor = model.network.net(**batch).loss
    return loss


KINDS = ["bert", "bert tokens", "gpt2", "llama", "t5"]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_those_of_transformers_on_each_example_alone(kind: str) -> None:
    model, train = task(kind, tokens="mean")
    parameters = list(model.network.parameters().values())
    precision = 1e-6 if kind in ("gpt2", "llama") else 1e-10  # transformers casts their logits to float32
    rows = model.loss_rows(train).dense()
    together = -model.measure(train)
    for i, example in enumerate(train.batches(1)):
        loss = loss_of_transformers(model, example)
        gradient = torch.autograd.grad(loss, parameters, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for g, p in zip(gradient, parameters, strict=True)]
        assert together[i] == pytest.approx(loss.item(), rel=precision)
        np.testing.assert_allclose(
            rows[i], torch.cat([g.flatten() for g in flat]), atol=10 * precision * abs(rows).max()
        )


@pytest.mark.parametrize(
    ("problem", "outputs", "labels"),
    [
        ("regression", 1, np.linspace(-1, 1, 6).tolist()),
        ("regression", 3, np.linspace(-1, 1, 18).reshape(6, 3).tolist()),
        ("multi_label_classification", 3, [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]] * 3),
        ("single_label_classification", 3, [0, 1, 2] * 2),
    ],
)
def test_the_problem_of_a_classifier_is_that_of_its_configuration(problem: str, outputs: int, labels: Any) -> None:
    rows = text_dataset(6).remove_columns("label").add_column("labels", labels)
    net = tiny("bert", torch.float64, num_labels=outputs, problem_type=problem)
    model, train = uw.hf.classifier(net, rows, word_tokenizer())
    losses = [loss_of_transformers(model, example).item() for example in train.batches(1)]
    assert -model.measure(train) == pytest.approx(losses, rel=1e-10)


@pytest.mark.filterwarnings("ignore")
def test_scores_of_a_language_model_with_adapters_are_those_of_a_dense_computation() -> None:
    net = with_adapters(tiny("gpt2", torch.float64)).double()
    model, rows = uw.hf.causal_lm(net, completions(text_dataset(10)), word_tokenizer())
    train, queries = rows.take(range(8)), rows.take([8, 9])
    recipe = uw.Influence(curvature=uw.GaussNewton(), damping=0.05, correction=None)
    scores = recipe.fit(model, train).attribute(queries).values

    parameters = list(model.network.parameters().values())

    def flat(value: torch.Tensor) -> np.ndarray:
        parts = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        return np.concatenate([part.flatten().numpy() for part in parts if part is not None])

    matrix, gradients = 0.0, []
    for example in rows.batches(1):
        tokens = torch.tensor(example.x["input_ids"][:])
        logits = net(input_ids=tokens).logits[0]
        chosen = torch.log_softmax(logits[1:-1], 1).gather(1, tokens[0, 2:, None])  # the first two are the prompt
        gradients.append(flat(-chosen.sum()))
        if len(gradients) > 8:
            continue
        for output in logits[1:-1]:
            p = torch.softmax(output, 0).detach().numpy()
            jacobian = np.array([flat(z) for z in output])
            matrix = matrix + jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian / 8
    solved = np.linalg.solve(matrix + 0.05 * np.eye(len(gradients[0])), np.array(gradients[:8]).T)
    np.testing.assert_allclose(scores, np.array(gradients[8:]) @ solved / 8, rtol=1e-6)


def test_token_losses_stand_where_their_token_stands() -> None:
    def copy(input_ids: torch.Tensor, **_: Any) -> Any:  # predicts that a token is followed by itself
        return SimpleNamespace(logits=50.0 * torch.nn.functional.one_hot(input_ids, 9).double())

    batch = {"input_ids": torch.tensor([[3, 3, 3, 5, 5], [2, 2, 7, 0, 0]]), "attention_mask": torch.ones(2, 5)}
    batch["attention_mask"][1, 3:] = 0
    losses = uw.hf.TokenLoss(shift=True).per_token(copy, batch)
    assert losses.round().tolist() == [[0, 0, 0, 50, 0], [0, 0, 50, 0, 0]]
    assert uw.hf.TokenLoss(shift=True).targets(batch).sum(1).tolist() == [4, 2]
    assert uw.hf.TokenLoss("mean", shift=True)(copy, batch).tolist() == pytest.approx([50 / 4, 50 / 2])
    labelled = {**batch, "labels": torch.tensor([[-100, -100, 3, 5, -100], [-100] * 5])}
    assert uw.hf.TokenLoss("mean", shift=True)(copy, labelled).tolist() == pytest.approx([25, 0])
    assert uw.hf.TokenLoss("sum")(copy, {**batch, "labels": batch["input_ids"]}).tolist() == pytest.approx([0, 0])


def test_rows_give_the_same_model_in_every_form(tmp_path: Path) -> None:
    tokenizer, net = word_tokenizer(), tiny("gpt2", torch.float64)
    rows = text_dataset(6).remove_columns(["label", "key"])
    rows.save_to_disk(tmp_path / "rows")
    encoded = tokenizer(texts(6), return_token_type_ids=False)
    forms = [
        rows,
        rows.with_format("torch"),
        datasets.load_from_disk(tmp_path / "rows"),
        list(rows),
        encoded,
        dict(encoded),
        encoded["input_ids"],
        uw.Examples(rows),
    ]
    expected = uw.hf.causal_lm(net, rows, tokenizer)[0].measure(uw.hf.examples(rows))
    for form in forms:
        model, train = uw.hf.causal_lm(net, form, tokenizer)
        assert model.measure(train) == pytest.approx(expected, rel=1e-12)
        assert uw.hf.examples(form, tokenizer).take([4, 2]).ids.tolist() == [4, 2]
    equal = np.array([[5, 6, 7, 8], [9, 5, 6, 7]])
    model, train = uw.hf.causal_lm(net, equal)
    assert model.measure(train) == pytest.approx(uw.hf.causal_lm(net, equal.tolist(), tokenizer)[0].measure(train))


def test_ids_labels_and_texts_come_from_the_data_set() -> None:
    rows = text_dataset(6).cast_column("label", datasets.ClassLabel(names=["bad", "good"]))
    train = uw.hf.examples(rows, word_tokenizer(), ids="key")
    assert train.ids.tolist() == rows["key"][:] and train.label("row2") == ["bad", "good"][rows["label"][2]]
    assert [train.preview(i).value for i in train.ids] == rows["text"][:]
    assert train.take([3, 1]).preview("row3").value == rows["text"][3]
    assert list(train.shown[1:3]) == rows["text"][1:3] and train.shown[-1] == rows["text"][5]
    configured = tiny("bert", id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
    _, named = uw.hf.classifier(configured, text_dataset(6), word_tokenizer())
    assert named.label(0) == ["no", "yes"][text_dataset(6)["label"][0]]
    _, pairs = uw.hf.seq2seq(tiny("t5"), targets(text_dataset(6)), word_tokenizer())
    text = text_dataset(6)["text"][0]
    assert pairs.preview(0).value == f"{text} → {' '.join(reversed(text.split()))}"


def test_changed_labels_change_the_loss_and_words_are_shown_for_them() -> None:
    model, train = task("bert")
    assert train.y is not None
    flipped = train.replaced(y=1 - train.y)
    probability = np.exp(model.measure(train)) + np.exp(model.measure(flipped))
    assert probability == pytest.approx(np.ones(8), rel=1e-10)
    assert flipped.preview("row1") == train.preview("row1")


def test_a_model_is_recognised_again_although_its_tokenizer_was_used() -> None:
    tokenizer, net = word_tokenizer(), tiny("bert")
    model, _ = uw.hf.classifier(net, text_dataset(6), tokenizer)
    before = model.identity()
    tokenizer(["w1 w2", "w3"], padding=True, truncation=True, max_length=2)
    assert model.identity() == before == uw.hf.classifier(net, text_dataset(6), word_tokenizer())[0].identity()
    left = uw.hf.classifier(net, text_dataset(6), word_tokenizer(padding_side="left"))[0]
    padded = transformers.DataCollatorWithPadding(word_tokenizer(), pad_to_multiple_of=8)
    others = [left, uw.hf.classifier(net, text_dataset(6), padded)[0]]
    assert all(other.identity()["loss"] != before["loss"] for other in others)
    assert (
        uw.hf.causal_lm(tiny("gpt2"), [[5, 6]])[0].identity()["loss"]
        != (uw.hf.causal_lm(tiny("gpt2"), [[5, 6]], tokens="mean")[0].identity()["loss"])
    )


def test_the_default_curvature_of_a_transformer_is_that_of_ekfac_and_an_answer_says_so(tmp_path: Path) -> None:
    model, rows = task("gpt2", torch.float32)
    fitted = uw.Influence().fit(model, rows)
    answer = fitted.attribute(rows.take([0]))
    chosen = uw.Influence(curvature=uw.EKFAC()).fit(model, rows).attribute(rows.take([0]))
    np.testing.assert_allclose(answer.values, chosen.values, rtol=1e-5)
    assert any(w.startswith("Without curvature=, EKFAC() is used") for w in answer.diagnostics["warnings"])
    fitted.save(tmp_path / "fitted")
    again = uw.Influence().load(tmp_path / "fitted", model, rows)
    np.testing.assert_allclose(again.attribute(rows.take([0])).values, answer.values, rtol=1e-5)
    few = uw.hf.causal_lm(with_adapters(tiny("gpt2")), completions(text_dataset(8)), word_tokenizer())
    small = uw.Influence().fit(*few).attribute(few[1].take([0])).diagnostics["warnings"]
    assert not any("EKFAC" in warning for warning in small)


def test_pictures_that_a_transform_prepares_are_classified() -> None:
    rng = np.random.default_rng(0)
    rows = datasets.Dataset.from_dict({"image": rng.random((6, 4, 4)).tolist(), "label": [0, 1, 2] * 2})

    def prepare(batch: Any) -> dict[str, Any]:
        return {"pixel_values": [np.float32([image]) for image in batch["image"]], "labels": batch["label"]}

    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(image_size=4, patch_size=2, num_channels=1, num_labels=3, **size)
    torch.manual_seed(0)
    net = transformers.ViTForImageClassification(config).double()
    model, train = uw.hf.classifier(net, rows.with_transform(prepare))
    losses = [loss_of_transformers(model, example).item() for example in train.batches(1)]
    assert -model.measure(train) == pytest.approx(losses, rel=1e-10)
    assert train.y is not None and train.take([4, 2]).y.tolist() == [1, 2]


def test_bm25_reads_decoded_texts_or_token_ids_and_no_mixture() -> None:
    model, train = task("gpt2", torch.float32)
    by_words = uw.BM25().fit(model, train).attribute(train.take([0, 3])).values
    plain = uw.Examples(train.x, shown=text_dataset(8)["text"])
    np.testing.assert_allclose(by_words, uw.BM25().fit(model, plain).attribute(plain.take([0, 3])).values)
    numbers = uw.Examples(train.x)
    np.testing.assert_allclose(uw.BM25().fit(model, numbers).attribute(numbers.take([0, 3])).values, by_words)
    with pytest.raises(TypeError, match=r"pass shown=texts to both"):
        uw.BM25().fit(model, train).attribute(numbers.take([0]))


def test_a_choice_among_texts_is_classified() -> None:
    words = text_dataset(12)["input_ids"][:]
    rows = datasets.Dataset.from_dict(
        {"input_ids": list(zip(words[::2], words[1::2], strict=True)), "label": [0, 1] * 3}
    )
    config = tiny("bert").config
    torch.manual_seed(0)
    net = transformers.BertForMultipleChoice(config).eval().double()
    collator = transformers.DataCollatorForMultipleChoice(word_tokenizer())
    model, train = uw.hf.classifier(net, rows, collator)
    losses = [loss_of_transformers(model, example).item() for example in train.batches(1)]
    assert -model.measure(train) == pytest.approx(losses, rel=1e-10)
    assert train.preview(0).value == "\n".join(text_dataset(12)["text"][:2])
