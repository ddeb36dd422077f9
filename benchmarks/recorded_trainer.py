"""A run of transformers' Trainer, recorded: agreement of scores with the same run without random tenths of the texts.

OMP_NUM_THREADS=1 python -m benchmarks.recorded_trainer

A GPT-2 of one layer learns first sentences of the standard library's documentation with the Trainer's AdamW, warm-up,
accumulation, clipping and dropout. The truth is the recorded run, repeated without removals. LDS: mean rank correlation
per query, with the interval over removals.
"""

from __future__ import annotations

import inspect
import re
import statistics
import tempfile
import time
from typing import Any

import datasets
import transformers
from benchmarks.results import Section, Table, versions
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import upweight as uw

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.recorded_trainer"
REMOVALS, KEPT, QUERIES = 30, 0.9, 12


def sentences() -> list[str]:
    parts = [getattr(module, name) for module in (statistics, inspect, tempfile, re) for name in module.__all__]
    texts = [(inspect.getdoc(part) or "").split("\n\n")[0].split(". ")[0] for part in parts]
    plain = [" ".join(re.findall(r"[a-z]+", text.lower())[:16]) for text in texts]
    return list(dict.fromkeys(text for text in plain if text.count(" ") > 3))


def recorded_run(texts: list[str]) -> tuple[uw.TorchModel, uw.Examples, uw.Examples]:
    """(model, training set, queries): every ninth text is a query."""
    transformers.set_seed(0)
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"]))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    rows = datasets.Dataset.from_dict({"text": texts}).map(lambda row: tokenizer(row["text"]))
    query_positions = list(range(0, len(texts), 9))[:QUERIES]
    size = {"vocab_size": len(tokenizer), "n_positions": 16, "n_embd": 32, "n_layer": 1, "n_head": 2}
    net = transformers.GPT2LMHeadModel(transformers.GPT2Config(**size, bos_token_id=None, eos_token_id=None))
    settings: dict[str, Any] = {"num_train_epochs": 6, "learning_rate": 3e-3, "warmup_steps": 5, "adam_epsilon": 1e-6}
    batches: dict[str, Any] = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "weight_decay": 0.01}
    quiet: dict[str, Any] = {"report_to": [], "save_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    arguments = transformers.TrainingArguments(tempfile.mkdtemp(), **settings, **batches, **quiet)
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    taken = rows.select([at for at in range(len(texts)) if at not in query_positions])
    trainer = transformers.Trainer(net, arguments, train_dataset=taken, data_collator=collator)
    recorder = uw.TrajectoryCallback(tempfile.mkdtemp(), every=6).attach(trainer)
    trainer.train()
    model, train = uw.hf.from_trainer(trainer, trajectory=recorder.trajectory, training=recorder.training())
    return model, train, uw.hf.examples(rows.select(query_positions), tokenizer)


METHODS: dict[str, Any] = {
    "Metagradient, at full": uw.Metagradient(at="full", removals=0),
    "SOURCE": uw.SOURCE(),
    "SOURCE, segments, EK-FAC": uw.SOURCE(segments=3, curvature=uw.EKFAC()),
    "TracIn": uw.TracIn(),
    "GAS": uw.GAS(),
    "LESS": uw.LESS(),
    "LESS without momentum": uw.LESS(momentum=False),
    "TrackStar": uw.TrackStar(),
    "TrackStar, Adam's moments": uw.TrackStar(second_moments="optimiser"),
    "TrackStar, no correction": uw.TrackStar(second_moments=None),
    "Influence, EK-FAC": uw.Influence(curvature=uw.EKFAC()),
    "GradDot": uw.GradDot(),
    "GradCos": uw.GradCos(),
    "Chance": uw.Chance(),
}


def main() -> None:
    model, train, queries = recorded_run(sentences())
    start = time.process_time()
    removals = uw.subsets(train, REMOVALS, KEPT)
    truth = uw.retrain_truth(model, train, queries, removals, retraining=uw.Retraining(processes=1))
    spent = time.process_time() - start
    table = Table(
        "Scores beside the same run without a tenth of the texts",
        "none was set beforehand",
        ["method", "LDS", "95 % interval", "CPU s"],
    )
    for name, method in METHODS.items():
        start = time.process_time()
        scores = method.fit(model, train).attribute(queries)
        seconds, result = time.process_time() - start, uw.lds(scores, truth)
        table.add(name, round(result.mean, 3), f"{result.low:.3f} … {result.high:.3f}", round(seconds, 1))
    table.rows.sort(key=lambda row: -row[1])
    table.notes += [
        f"A GPT-2 of one layer, {len(train)} texts, six epochs of AdamW with warm-up, accumulation, "
        f"clipping and dropout. Truth: the recorded run, repeated without {REMOVALS} random tenths of the texts "
        f"({spent:.0f} CPU s); {len(queries)} queries.",
        "SOURCE has a checkpoint every six steps, the metagradient follows each. TrackStar has fewer examples than "
        "directions (1,024), so that its whitening is mostly damping.",
        "One task and one seed.",
    ]
    used = versions(["torch", "transformers", "upweight"])
    section = Section("recorded trainer", "A recorded run of the Trainer", COMMAND, [table], used)
    section.keep()
    print(section.markdown())


if __name__ == "__main__":
    main()
