"""A classifier with LoRA adapters, trained by the Trainer: which texts made it take a function for another kind?

python examples/lora_classifier.py [report.html [encoder]]

`encoder` is the name or folder of a pretrained encoder; without it a tiny one with random weights stands in.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import tempfile
from typing import Any

import datasets
import numpy as np
import peft
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

import upweight as uw

KINDS = {
    "files": ["os", "shutil", "tempfile", "pathlib", "zipfile", "tarfile", "glob", "mmap", "io", "fileinput"],
    "numbers": ["math", "cmath", "statistics", "decimal", "fractions", "random", "numbers", "operator"],
    "network": ["socket", "ssl", "urllib.request", "http.client", "smtplib", "ftplib", "imaplib", "asyncio.streams"],
}


def documentation() -> datasets.Dataset:
    """The beginning of the documentation of functions of the standard library, and what they are about."""
    rows = {}
    for label, modules in enumerate(KINDS.values()):
        for module in map(importlib.import_module, modules):
            for owner in [module, *(kind for _, kind in inspect.getmembers(module, inspect.isclass))]:
                for name, member in inspect.getmembers(owner, callable):
                    text = " ".join((inspect.getdoc(member) or "").split())[:200]
                    its_own = getattr(member, "__module__", None) in (module.__name__, f"_{module.__name__}")
                    if its_own and len(text) > 30 and not name.startswith("_"):
                        rows[text] = f"{module.__name__}.{getattr(member, '__qualname__', name)}", text, label
    names, texts, labels = zip(*{name: row for row in rows.values() for name in [row[0]]}.values(), strict=True)
    kinds = datasets.ClassLabel(names=[*KINDS])
    columns = {"name": datasets.Value("string"), "text": datasets.Value("string"), "label": kinds}
    table = {"name": names, "text": texts, "label": labels}
    return datasets.Dataset.from_dict(table, datasets.Features(columns)).shuffle(seed=0)


def encoder(texts: list[str], name: str | None) -> tuple[Any, Any]:
    """(An encoder with a head for the kinds, its tokenizer)."""
    if name is not None:
        net = transformers.AutoModelForSequenceClassification.from_pretrained(name, num_labels=len(KINDS))
        return net, transformers.AutoTokenizer.from_pretrained(name)
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    words.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=1500, special_tokens=["[PAD]", "[UNK]"]))
    size = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.BertConfig(
        vocab_size=words.get_vocab_size(), max_position_embeddings=64, num_labels=len(KINDS), pad_token_id=0, **size
    )
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    return transformers.BertForSequenceClassification(config), tokenizer


def main(report: str = "lora_classifier.html", name: str | None = None) -> None:
    datasets.disable_progress_bars()
    transformers.set_seed(0)
    rows = documentation()
    net, tokenizer = encoder(rows["text"][:], name)
    rows = rows.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=48), batched=True)
    split = rows.train_test_split(0.2, seed=0)
    adapters = peft.LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"])
    arguments = transformers.TrainingArguments(
        tempfile.mkdtemp(), num_train_epochs=6, learning_rate=1e-2, per_device_train_batch_size=32,
        report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    trainer = transformers.Trainer(
        peft.get_peft_model(net, adapters), arguments, train_dataset=split["train"], processing_class=tokenizer
    )
    trainer.train()

    model, train = uw.hf.from_trainer(trainer, ids="name")
    unseen = uw.hf.examples(split["test"], tokenizer, ids="name")
    is_right = np.equal(model.predict(unseen).predicted, [unseen.label(name) for name in unseen.ids.tolist()])
    print(f"{len(train)} functions; of {len(unseen)} others, {is_right.mean():.0%} are recognised")
    wrong = unseen.take(np.flatnonzero(~is_right)[:4])
    scores = uw.Influence(curvature=uw.EKFAC()).fit(model, train).attribute(wrong)
    for query, guess in zip(wrong.ids.tolist(), scores.predictions.predicted, strict=True):
        print(f"{query} is about {wrong.label(query)}, the net says {guess}; the strongest opponents:")
        for example, score in scores.opponents(query, k=2):
            print(f"   {score:+.4f}  {example} ({train.label(example)}): {train.preview(example).value[:70]}")
    print("wrote", uw.write_report(report, scores, train, wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
