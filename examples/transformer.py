"""A small language model: which training sentences, and which of their words, caused its predictions?

It is trained on sentences from the documentation of Python's standard library. The script asks three questions: what
made a whole sentence likely, what made each word of it likely, and which words of the training sentences did so.

python examples/transformer.py [report.html]
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

import upweight as uw

MODULES = ("random", "statistics", "argparse", "datetime", "pathlib", "fractions", "threading", "tarfile")
WORDS, LENGTH, WIDTH = 400, 16, 32  # known words, tokens of a sentence, numbers per token
PAD, OTHER, START = 0, 1, 2


def sentences(module: str) -> Iterator[str]:
    """First sentences of the docstrings of a module, its classes and their methods."""
    imported = importlib.import_module(module)
    owners = [imported, *(c for _, c in inspect.getmembers(imported, inspect.isclass) if c.__module__ == module)]
    for owner in owners:
        for name, part in inspect.getmembers(owner, callable):
            if not name.startswith("_") and part.__doc__:
                first = re.split(r"\.\s|\n\n|:\s", inspect.cleandoc(part.__doc__))[0]
                text = " ".join(re.findall(r"[a-z']+", first.lower()))
                if text.count(" ") > 3:
                    yield " ".join(text.split()[: LENGTH - 1])


class Language:
    """A vocabulary: words as numbers."""

    def __init__(self, texts: list[str]) -> None:
        common = [word for word, _ in Counter(" ".join(texts).split()).most_common(WORDS - 3)]
        self.code = {word: place + 3 for place, word in enumerate(common)}

    def encoded(self, text: str) -> list[int]:
        """START, the words, and padding up to LENGTH."""
        codes = [START, *(self.code.get(word, OTHER) for word in text.split())]
        return codes + [PAD] * (LENGTH - len(codes))


class Transformer(nn.Module):
    """One block of causal attention."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        q, k, v = (t.unflatten(2, (2, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=2))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return self.head(self.norm(x + self.down(F.gelu(self.up(x)))))


def token_losses(net: nn.Module, ids: Tensor) -> Tensor:
    """−log p of every word after the first token, (n, LENGTH − 1); 0 at the padding."""
    return F.cross_entropy(net(ids)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none", ignore_index=PAD)


def examples() -> tuple[uw.Examples, uw.Examples]:
    """Sentences to train on, and every eighth, which the net has not seen; ids name the module."""
    texts = dict.fromkeys(text for module in MODULES for text in sentences(module))
    home = {text: module for module in reversed(MODULES) for text in sentences(module)}
    language = Language(list(texts))
    ids = [f"{home[text]} {place}" for place, text in enumerate(texts)]
    whole = uw.Examples(np.array([language.encoded(text) for text in texts]), ids=ids, shown=list(texts))
    held_out = np.arange(len(whole)) % 8 == 7
    return whole.take(~held_out), whole.take(held_out)


def sentence_loss(net: nn.Module, batch: Any) -> Tensor:
    """−log p of every sentence, summed over its words."""
    return token_losses(net, batch.x).sum(1)


def word_loss(net: nn.Module, batch: Any) -> Tensor:
    """−log p of one word of every sentence: `batch.y` says which."""
    return token_losses(net, batch.x).gather(1, batch.y[:, None] - 1)[:, 0]


def word_measure(net: nn.Module, batch: Any) -> Tensor:
    """log p of one word of every sentence."""
    return -word_loss(net, batch)


def train_net(x: Tensor) -> nn.Module:
    """Train for 20 epochs on the sum over words, averaged over sentences."""
    torch.manual_seed(0)
    net = Transformer()
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(20):
        for batch in torch.randperm(len(x)).split(32):
            optimiser.zero_grad()
            token_losses(net, x[batch]).sum(1).mean().backward()
            optimiser.step()
    return net


def words_of(sentence: uw.Examples) -> uw.Examples:
    """Every word of every sentence as a separate example: the sentence, and the position of the word."""
    length = (sentence.x != PAD).sum(1)
    owner = np.repeat(np.arange(len(sentence)), length - 1)
    place = np.concatenate([np.arange(1, n) for n in length])
    texts, ids = [], []
    for i, j in zip(owner, place, strict=True):
        words = sentence.shown[i].split()
        texts.append(" ".join([*words[: j - 1], f"[{words[j - 1]}]", *words[j:]]))
        ids.append(f"{sentence.ids[i]}, word {j}")
    return uw.Examples(sentence.x[owner], place, ids=ids, shown=texts)


def main(report: str = "transformer.html") -> None:
    train, unseen = examples()
    net = train_net(torch.from_numpy(train.x))
    print(f"{len(train)} sentences, {sum(p.numel() for p in net.parameters()):,} parameters")

    model = uw.TorchModel(net, sentence_loss)
    length = (unseen.x != PAD).sum(1)
    queries = unseen.take(np.argsort(-model.measure(unseen) / length)[:6])  # the most probable sentences, per word
    recipe = uw.Influence(curvature=uw.EmpiricalFisher())
    scores = recipe.fit(model, train).attribute(queries)
    query = queries.ids[0].item()
    print(f"\nthe sentence: {queries.shown[0]!r}")
    for example, score in scores.proponents(query, k=3):
        print(f"   {score:+.3f}  {example}: {train.preview(example).value}")

    words = words_of(queries.take([0]))
    by_word = uw.TorchModel(net, sentence_loss, measure=word_measure)
    word_scores = recipe.fit(by_word, train).attribute(words)
    print("\nword by word:")
    for word in words.ids.tolist():
        example, score = word_scores.proponents(word, k=1)[0]
        print(f"   {words.preview(word).value}   {score:+.3f}  {train.preview(example).value}")

    strongest = train.select([example for example, _ in scores.proponents(query, k=20)])
    train_words = words_of(strongest)
    token_model = uw.TorchModel(net, word_loss, measure=word_measure, objective="sum")
    between_words = uw.Influence(curvature=uw.Identity()).fit(token_model, train_words).attribute(words.take([3]))
    print(f"\nthe words that made {words.preview(words.ids[3]).value!r} likely:")
    for example, score in between_words.proponents(words.ids[3], k=5):
        print(f"   {score:+.3f}  {train_words.preview(example).value}")
    print("\nwrote", uw.write_report(report, scores, train, queries))


if __name__ == "__main__":
    main(*sys.argv[1:])
