"""A causal language model that completes a signature with its documentation: which training texts made it say that?

python examples/causal_lm.py [report.html]
"""

from __future__ import annotations

import importlib
import inspect
import sys
import tempfile
from typing import Any

import datasets
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import upweight as uw

MODULES = ["os", "shutil", "math", "statistics", "random", "socket", "zipfile", "tarfile", "difflib", "calendar"]
LONGEST = 48  # tokens


def signatures() -> datasets.Dataset:
    """Functions of the standard library: how each is called, and the first sentence of its documentation."""
    rows = {}
    for module in map(importlib.import_module, MODULES):
        for name, member in inspect.getmembers(module, callable):
            sentence = (inspect.getdoc(member) or "").split("\n\n")[0].replace("\n", " ")[:120]
            try:
                signature = str(inspect.signature(member))[:60]
            except (ValueError, TypeError):
                continue
            if sentence and not name.startswith("_"):
                rows[f"{module.__name__}.{name}"] = f"{name}{signature}:", f" {sentence}"
    prompts, completions = zip(*rows.values(), strict=True)
    table = {"name": [*rows], "prompt": prompts, "completion": completions}
    return datasets.Dataset.from_dict(table).shuffle(seed=0)


def byte_pairs(rows: datasets.Dataset) -> Any:
    """A tokenizer of byte pairs, trained on the texts."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer, pairs.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<end>"], show_progress=False)
    pairs.train_from_iterator([*rows["prompt"], *rows["completion"]], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=pairs, eos_token="<end>", pad_token="<end>")


def tokenised(rows: datasets.Dataset, tokenizer: Any) -> datasets.Dataset:
    """Prompt and completion as one sequence, of which only the completion is learned: labels are −100 before it."""

    def tokenise(row: dict[str, str]) -> dict[str, list[int]]:
        prompt, completion = tokenizer(row["prompt"])["input_ids"], tokenizer(row["completion"])["input_ids"]
        ids = [*prompt, *completion, tokenizer.eos_token_id][:LONGEST]
        labels = [-100] * min(len(prompt), LONGEST) + ids[len(prompt) :]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}

    return rows.map(tokenise).filter(lambda row: any(label != -100 for label in row["labels"]))


def main(report: str = "causal_lm.html") -> None:
    datasets.disable_progress_bars()
    transformers.set_seed(0)
    rows = signatures()
    tokenizer = byte_pairs(rows)
    split = tokenised(rows, tokenizer).train_test_split(0.1, seed=0)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=LONGEST, n_embd=48, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    arguments = transformers.TrainingArguments(
        tempfile.mkdtemp(), num_train_epochs=12, learning_rate=5e-3, per_device_train_batch_size=16,
        report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    net, collator = transformers.GPT2LMHeadModel(config), transformers.DataCollatorForSeq2Seq(tokenizer)
    trainer = transformers.Trainer(net, arguments, train_dataset=split["train"], data_collator=collator)
    trainer.train()

    model, train = uw.hf.from_trainer(trainer, ids="name")
    prompts = split["test"].select_columns(["name", "prompt"]).select(range(3))
    written = prompts.add_column("completion", [complete(net, tokenizer, prompt) for prompt in prompts["prompt"]])
    queries = uw.hf.examples(tokenised(written, tokenizer), collator, ids="name")
    scores = uw.Influence(curvature=uw.EKFAC()).fit(model, train).attribute(queries)
    print(f"{len(train)} functions; what the net writes, and the texts that made this likely:")
    for query in queries.ids.tolist():
        print(queries.preview(query).value)
        for example, score in scores.proponents(query, k=2):
            print(f"   {score:+.3f}  {train.preview(example).value[:90]}")
    print("wrote", uw.write_report(report, scores, train, queries))


def complete(net: Any, tokenizer: Any, prompt: str) -> str:
    """The completion that the net finds likeliest, token by token."""
    given = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        ids = net.generate(**given, max_length=LONGEST, do_sample=False, pad_token_id=0)[0]
    return str(tokenizer.decode(ids[given["input_ids"].shape[1] :], skip_special_tokens=True)) or " "


if __name__ == "__main__":
    main(*sys.argv[1:])
