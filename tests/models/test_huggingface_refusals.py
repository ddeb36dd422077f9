"""What `uw.hf` refuses before long work, each in a sentence with a way out, and what it notes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import upweight as uw

pytest.importorskip("transformers")
pytest.importorskip("datasets")
pytest.importorskip("peft")
import transformers

from support.tiny_transformers import text_dataset, tiny, with_adapters, word_tokenizer

Net = Callable[[], Any]


def sequences(**columns: Any) -> Any:
    rows = text_dataset(9).remove_columns("label")
    for name, column in columns.items():
        rows = rows.add_column(name, column(rows["input_ids"]))
    return rows


def longer(tokens: list[int]) -> dict[str, list[int]]:
    return {"input_ids": tokens * 4, "attention_mask": [1] * (4 * len(tokens))}


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_the_left_is_refused_only_where_it_moves_positions(side: str) -> None:
    tokenizer = word_tokenizer(padding_side=side)
    model, train = uw.hf.causal_lm(tiny("llama", torch.float64), sequences(), tokenizer)
    plain, _ = uw.hf.causal_lm(tiny("llama", torch.float64), sequences(), word_tokenizer())
    assert model.measure(train) == pytest.approx(plain.measure(train), rel=1e-5)
    if side == "left":
        with pytest.raises(ValueError, match=r"pads on the left.*padding_side = 'right'"):
            uw.hf.causal_lm(tiny("gpt2"), sequences(), tokenizer)
        blocks = [{"input_ids": row[:3]} for row in sequences()["input_ids"]]
        packed, _ = uw.hf.causal_lm(tiny("gpt2"), blocks, tokenizer)
        with pytest.raises(ValueError, match=r"pads on the left.*padding_side = 'right'"):
            packed.measure(uw.hf.examples([{"input_ids": [5, 6]}, {"input_ids": [5, 6, 7]}], tokenizer))


@pytest.mark.parametrize(
    ("dataset", "settings", "error", "message"),
    [
        (sequences().to_iterable_dataset(), {}, TypeError, r"streamed.*Dataset\.from_list"),
        (sequences().select([]), {}, ValueError, "at least one example"),
        (
            sequences().map(lambda row, i: {"input_ids": row["input_ids"][: 3 * (i != 6)]}, with_indices=True),
            {},
            ValueError,
            "at least one token, got none in example 'row6'",
        ),
        (sequences(), {"ids": "id"}, ValueError, r"a column 'id' with one id per row, got the columns \['att"),
        (sequences().select_columns("text"), {}, ValueError, "tokenise first: dataset.map"),
        (
            sequences().map(lambda row: {"input_ids": [i + 30 for i in row["input_ids"]]}),
            {},
            ValueError,
            r"example 'row0' has the token \d\d.*below 44.*tokenised for another model",
        ),
        (sequences().map(lambda row: longer(row["input_ids"])), {}, ValueError, r"32 tokens.*positions for 16.*max_l"),
        (
            sequences(labels=lambda rows: [[-100] * len(row) for row in rows]),
            {},
            ValueError,
            "all labels of the 9 examples that were looked at are −100.*template",
        ),
        (sequences(labels=lambda rows: [[5] + [-100] * (len(r) - 1) for r in rows]), {}, ValueError, "all labels"),
        (sequences(key2=lambda rows: [0] * len(rows)), {"ids": "key2"}, ValueError, "expected unique ids, got 0"),
    ],
)
def test_data_that_do_not_fit_are_refused(dataset: Any, settings: Any, error: type[Exception], message: str) -> None:
    settings = {"ids": "key", **settings} if "key" in (dataset.column_names or []) else settings
    with pytest.raises(error, match=message):
        uw.hf.causal_lm(tiny("gpt2"), dataset, word_tokenizer(), **settings)


def test_texts_without_tokens_are_refused_as_queries_and_raw_texts_everywhere() -> None:
    model, _ = uw.hf.causal_lm(tiny("gpt2"), sequences(), word_tokenizer())
    with pytest.raises(ValueError, match="at least one token, got none in example 'empty'"):
        model.measure(uw.hf.examples([{"input_ids": []}], word_tokenizer(), ids=["empty"]))
    with pytest.raises(TypeError, match="tokenise them first"):
        uw.hf.causal_lm(tiny("gpt2"), ["w1 w2", "w3"], word_tokenizer())


def test_examples_without_labels_are_refused_where_the_loss_needs_them() -> None:
    rows = text_dataset(9)
    model, _ = uw.hf.classifier(tiny("bert"), rows, word_tokenizer())
    with pytest.raises(ValueError, match="expected examples with labels"):
        model.measure(uw.hf.examples(rows.remove_columns("label"), word_tokenizer()))
    with pytest.raises(ValueError, match="expected examples with labels"):  # not the tokens as labels
        uw.hf.classifier(tiny("bert tokens", num_labels=44), sequences(), word_tokenizer())
    language_model, _ = uw.hf.causal_lm(tiny("gpt2"), sequences(labels=list), word_tokenizer())
    of_tokens, _ = uw.hf.causal_lm(tiny("gpt2"), sequences(), word_tokenizer())
    plain = uw.hf.examples(sequences(), word_tokenizer())
    assert language_model.measure(plain) == pytest.approx(of_tokens.measure(plain), rel=1e-5)


def test_labels_of_another_form_are_refused_in_a_sentence() -> None:
    rows = text_dataset(9)
    words = rows.remove_columns("label").add_column("label", [f"class {i % 2}" for i in range(9)])
    with pytest.raises(TypeError, match=r"labels that are numbers, got .*class_encode_column"):
        uw.hf.classifier(tiny("bert"), words, word_tokenizer())
    numbers = rows.remove_columns("label").add_column("label", [i % 2 / 1 for i in range(9)])
    with pytest.raises(ValueError, match=r"expected 2 labels per example.*whole number"):
        uw.hf.classifier(tiny("bert"), numbers, word_tokenizer())
    moved = sequences(labels=lambda rows: [row[1:] for row in rows])
    with pytest.raises(ValueError, match=r"a label for every token.*labels are not moved"):
        uw.hf.causal_lm(tiny("gpt2"), moved, word_tokenizer())


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        ("gpt2", "classifier", "causal_lm"),
        ("llama", "seq2seq", "causal_lm"),
        ("t5", "causal_lm", "seq2seq"),
        ("bert tokens", "causal_lm", "classifier"),
    ],
)
def test_a_net_of_another_task_is_refused(kind: str, wrong: str, right: str) -> None:
    rows = sequences(labels=lambda rows: [list(row) for row in rows])
    with pytest.raises(TypeError, match=rf"whose loss is that of uw\.hf\.{right}"):
        getattr(uw.hf, wrong)(tiny(kind), rows, word_tokenizer())


@pytest.mark.parametrize(
    ("collator", "message"),
    [
        (word_tokenizer(extra_special_tokens=["[A]", "[B]"]), "46 tokens and the net an embedding of 44"),
        (word_tokenizer(pad_token=None), "set tokenizer.pad_token = tokenizer.eos_token"),
        (transformers.DataCollatorForLanguageModeling(word_tokenizer()), "masks or augments at random"),
        (None, "sequences have 3 to 8 tokens; pass the data collator"),
    ],
)
def test_collators_that_do_not_fit_are_refused(collator: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        uw.hf.causal_lm(tiny("gpt2"), sequences(), collator)


def merged() -> Any:
    net = with_adapters(tiny("gpt2"))
    net.merge_adapter()
    return net


def switched_off() -> Any:
    net = with_adapters(tiny("gpt2"))
    net.base_model.disable_adapter_layers()
    return net


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (merged, r"adapters are merged into the base.*unmerge_adapter\(\)"),
        (lambda: with_adapters(tiny("gpt2")).merge_and_unload(), "merged .merge_and_unload."),
        (switched_off, "switched off.*enable_adapter_layers"),
        (lambda: with_adapters(tiny("gpt2")).requires_grad_(False), "is_trainable=True"),
    ],
)
def test_adapters_that_do_not_act_on_the_output_are_refused(net: Net, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        uw.hf.causal_lm(net(), sequences(), word_tokenizer())


def test_labels_beyond_the_outputs_and_nets_without_logits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels below the number of the net's outputs.*label 4"):
        uw.hf.classifier(tiny("bert"), text_dataset(9, classes=5), word_tokenizer())
    with pytest.raises(TypeError, match="GPT2Model does not"):
        uw.hf.causal_lm(tiny("gpt2").transformer, sequences(), word_tokenizer())
    with pytest.raises(ValueError, match="a column of labels"):
        uw.hf.seq2seq(tiny("t5"), sequences(), word_tokenizer())


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_base_is_refused_if_gradients_do_not_pass_through_it() -> None:
    net = tiny("bert")  # gradients reach the embeddings past the quantised layers too, and would be wrong there
    net.bert.encoder = torch.ao.quantization.quantize_dynamic(net.bert.encoder, {torch.nn.Linear}, dtype=torch.qint8)
    with pytest.raises(ValueError, match=r"the quantised 'bert.encoder.layer.0\S+' does not differentiate"):
        uw.hf.classifier(net, text_dataset(9), word_tokenizer())
    net.requires_grad_(False)
    net.classifier = torch.nn.Linear(16, 2)  # above the quantised layers
    assert uw.hf.classifier(net, text_dataset(9), word_tokenizer())[0].network.names[0] == "classifier.weight"


def test_the_loss_of_a_batch_is_refused_with_a_pointer() -> None:
    rows = uw.Examples([[5, 6, 7]] * 4)
    net = tiny("gpt2")
    model = uw.TorchModel(net, lambda net, batch: net(input_ids=batch.x, labels=batch.x).loss)
    with pytest.raises(ValueError, match=r"got shape \(\).*see uw.hf.classifier"):
        model.measure(rows)


def notes(net: Any, dataset: Any, **settings: Any) -> str:
    return " ".join(uw.hf.causal_lm(net, dataset, word_tokenizer(), **settings)[0].notes)


def test_notes_say_what_a_reader_has_to_know() -> None:
    partly = sequences(labels=lambda rows: [row if i else [-100] * len(row) for i, row in enumerate(rows)])
    assert "1 of 9 examples that were looked at have no target (first 'row0')" in notes(tiny("gpt2"), partly, ids="key")
    wide = tiny("gpt2")
    wide.resize_token_embeddings(3000)
    assert "3,000 tokens and the tokenizer only 44: is it the tokenizer of another model?" in notes(wide, sequences())
    long = sequences().map(lambda row: longer(row["input_ids"]))
    assert "up to 32 tokens long (example 0), beyond the context of 16" in notes(tiny("llama"), long)
    untrained = with_adapters(tiny("gpt2"), init_lora_weights=True)
    assert "its adapters were not loaded" in notes(untrained, sequences())
    assert "28 frozen parameters" in notes(untrained, sequences())
    assert "the sum over its target tokens. The Trainer" in notes(tiny("gpt2"), sequences())
    assert "every sequence counts alike" in notes(tiny("gpt2"), sequences(), tokens="mean")


def test_positions_of_a_shuffled_data_set_are_noted() -> None:
    note = "shuffled, filtered or selected from another"
    assert note in notes(tiny("gpt2"), sequences().shuffle(seed=0))
    assert note not in notes(tiny("gpt2"), sequences().select(range(4)))
    assert note not in notes(tiny("gpt2"), sequences().shuffle(seed=0), ids="key")
