"""A language model trained by transformers' Trainer: which training texts made it likely to go on as it does?

Explaining it takes the line marked "recorded", and those after "explained". Scores go through the recorded training
itself: AdamW, warm-up, accumulation, clipping, dropout.

python examples/trainer.py [report.html]
"""

from __future__ import annotations

import inspect
import re
import statistics
import sys
import tempfile
from pathlib import Path

import datasets
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import upweight as uw


def sentences() -> list[str]:
    """First sentences of the documentation of parts of Python's standard library."""
    parts = [getattr(module, name) for module in (statistics, inspect, tempfile, re) for name in module.__all__]
    texts = [(inspect.getdoc(part) or "").split("\n\n")[0].split(". ")[0] for part in parts]
    plain = [" ".join(re.findall(r"[a-z]+", text.lower())[:16]) for text in texts]
    return list(dict.fromkeys(text for text in plain if text.count(" ") > 3))


transformers.set_seed(0)
texts = sentences()
words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"]))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
rows = datasets.Dataset.from_dict({"text": texts}).map(lambda row: tokenizer(row["text"]))
size = {"vocab_size": len(tokenizer), "n_positions": 16, "n_embd": 32, "n_layer": 1, "n_head": 2}
net = transformers.GPT2LMHeadModel(transformers.GPT2Config(**size, bos_token_id=None, eos_token_id=None))
arguments = transformers.TrainingArguments(
    tempfile.mkdtemp(),
    num_train_epochs=6,
    per_device_train_batch_size=8,
    gradient_accumulation_steps=2,
    learning_rate=3e-3,
    warmup_steps=5,
    weight_decay=0.01,
    adam_epsilon=1e-6,
    report_to=[],
    save_strategy="no",
    use_cpu=True,
)
collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
trainer = transformers.Trainer(net, arguments, train_dataset=rows, data_collator=collator)
recorder = uw.TrajectoryCallback(tempfile.mkdtemp(), every=10).attach(trainer)  # recorded
trainer.train()

# explained
model, train = uw.hf.from_trainer(trainer, trajectory=recorder.trajectory, training=recorder.training())
asked = ["return the median of numeric data", "create a temporary directory", "return the source code of an object"]
queries = uw.hf.examples(datasets.Dataset.from_dict({"text": asked}).map(lambda row: tokenizer(row["text"])), tokenizer)
scores = uw.Metagradient(at="full", removals=4).fit(model, train).attribute(queries)
for query, text in zip(queries.ids, asked, strict=True):
    print(f"{text!r} was made likely by:")
    for example, score in scores.proponents(query, k=3):
        print(f"   {score:+.3f}  {texts[train.positions([example])[0]]}")
check = uw.verify(model, train, queries, scores, removals=6)
print(check)
page = Path(sys.argv[1] if len(sys.argv) > 1 else "trainer.html")
uw.write_report(page, scores, train, queries, check=check)
print(f"report: {page}")
