"""Fine-tunes of language models whose truth is retrained: MiniLM with LoRA, and a small GPT, on film reviews."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from benchmarks.encoder_nets import WORDS, encoded, lora, phrases, reviews
from benchmarks.nets import GPT, KINDS, PRETRAINING
from benchmarks.replayed import WIDTH, Task, keep, pretrained_gpt, sequence_loss
from benchmarks.replayed_peer import NAME as BERGSON
from numpy.typing import NDArray
from torch import Tensor, nn

import upweight as uw

Array = NDArray[np.float64]
PHRASES, BATCH, QUERIES, HELD, SUBSETS = 150, 8, 12, 200, 40
SEQUENCES, TOKENS, BLOCKS, VOCABULARY = 2000, 10, 2, 500  # of the GPT
SMOOTH = 1e-3  # ε of AdamW at which its steps are smooth in the weights of rare words
METAGRADIENT, TRAK, EK_FAC = "Metagradient, full set", "TRAK, not projected", "Influence, EK-FAC"
KRONFLUENCE, DATTRI, DATTRI_DOT = "kronfluence 1.0.1, EK-FAC", "dattri-llm 0.1.0, EK-FAC", "dattri-llm 0.1.0, TracIn"


@dataclass(frozen=True, eq=False)
class FineTune(Task):
    """A fine-tune, with the texts of its training set and of the queries.

    `held`: phrases held out for the accuracy of a classifier. `absent`: methods that are not run. `remark`: what is to
    be known about its table. `alone`: queries that are retrained without their own strongest texts. `peers`: methods
    of other packages.
    """

    texts: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    held: uw.Examples | None = None
    absent: tuple[str, ...] = ()
    remark: str = ""
    alone: int = 6
    peers: tuple[str, ...] = ()

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
        """(m, n) 1 where the labels agree and −1 elsewhere; 1 for sequences, which have no labels."""
        if self.held is None:
            return np.ones((len(self.queries), len(self.train)))
        return np.where(self.queries.y[:, None] == self.train.y[None], 1.0, -1.0)

    @property
    def accuracy(self) -> str:
        """Of the phrases held out, as a sentence; empty for sequences."""
        if self.held is None:
            return ""
        correct = np.asarray(self.model.predict(self.held).predicted) == self.held.y
        return f"Accuracy on {len(self.held)} phrases held out: {np.mean(correct):.3f}. "


def label_losses(net: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(net(batch.x), batch.y, reduction="none")


def label_margins(net: nn.Module, batch: Any) -> Tensor:
    """log p/(1 − p) of the label."""
    outputs = net(batch.x)
    return (outputs * (2 * F.one_hot(batch.y, 2) - 1)).sum(1)


def adapted_encoder(data: Path) -> FineTune:
    """MiniLM, 22.7 million parameters, of which 74,498 are trained; no part of its forward pass is precomputed."""
    texts, y = reviews(data, PHRASES + QUERIES + HELD)
    x = encoded(texts)
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
    remark = (
        f"Not measured here: random removals of 1 % (2 texts of {PHRASES}), metagradients, bergson, whose scores at a "
        "trained net are those of causal language models. Other packages have the same checkpoint, and the linear "
        "layers that are trained. One fine-tune of short phrases: it ranks methods on this training only."
    )
    parts = tuple(texts[: ends[0]]), tuple(texts[slice(*ends)]), held, (METAGRADIENT,), remark
    shares = 0.1, 0.5
    peers = KRONFLUENCE, DATTRI, DATTRI_DOT
    task = FineTune("minilm", title, training, lora, label_losses, None, train, queries, SUBSETS, shares, 0, *parts)
    return replace(task, peers=peers)


def openings(data: Path, count: int) -> list[str]:
    """The first words of random phrases of SST-2 that have more; no two are equal."""
    words = [text.split()[: TOKENS + 1] for text in phrases(data)]
    long = list(dict.fromkeys(" ".join(of) for of in words if len(of) > TOKENS))
    return [long[i] for i in np.random.default_rng(0).permutation(len(long))[:count]]


def word_ids(texts: list[str]) -> Tensor:
    """The words (n, T) of texts of one length: the most frequent ones by rank, and the last id for all others."""
    counts = Counter(word for text in texts for word in text.split())
    ranks = {word: rank for rank, (word, _) in enumerate(counts.most_common(VOCABULARY - 1))}
    return torch.tensor([[ranks.get(word, VOCABULARY - 1) for word in text.split()] for text in texts])


def small_gpt(data: Path) -> FineTune:
    """A GPT over words that has read other reviews, fine-tuned on openings of reviews."""
    texts = openings(data, SEQUENCES + QUERIES + PRETRAINING)
    ids, ends = word_ids(texts), (SEQUENCES, SEQUENCES + QUERIES)
    before = ids[ends[1] :]
    kind = replace(KINDS["gpt"], make=lambda: GPT(WIDTH, BLOCKS, VOCABULARY))
    start = pretrained_gpt(f"{BLOCKS}-{VOCABULARY}", kind, before[:, :-1], before[:, 1:])

    def fresh(_: int) -> nn.Module:
        net = kind.make()
        net.load_state_dict(start)
        return net

    training = uw.Training(
        optimiser="adamw", lr=1e-3, epochs=1, batch_size=50, schedule="linear", warmup=6, weight_decay=0.01
    )
    x, y = ids[:, :-1].numpy(), ids[:, 1:].numpy()
    train = uw.Examples(x[: ends[0]], y[: ends[0]], shown=texts[: ends[0]])
    queries = uw.Examples(
        x[slice(*ends)], y[slice(*ends)], [f"q{i}" for i in range(QUERIES)], shown=texts[slice(*ends)]
    )
    size = sum(parameter.numel() for parameter in kind.make().parameters())
    title = (
        f"GPT ({BLOCKS} blocks, width {WIDTH}, {size:,} parameters) over the {VOCABULARY - 1} most frequent words "
        f"({np.mean(ids.numpy() < VOCABULARY - 1):.0%} of all words), pretrained on {PRETRAINING:,} other openings of "
        f"film reviews of SST-2 and fine-tuned on {SEQUENCES:,} of {TOKENS + 1} words, "
        f"{len(training.drawn(np.arange(SEQUENCES), 0))} steps of {training.batch_size}, AdamW ({training.lr:g}, "
        "warm-up, linear decay). Influence() takes EK-FAC"
    )
    remark = (
        "Phrases of SST-2 are parts of the same sentences, so some openings share most of their words. Other packages "
        "have the same checkpoint. EK-FAC of kronfluence and dattri-llm: linear layers alone, with a damping of a "
        "tenth of each layer's mean eigenvalue; ours: all parameters, of the mean nonzero eigenvalue. bergson's MAGIC "
        "has its default of 1e-17 under AdamW's root, without which √0 has no slope; its own figure on GPT-2 and "
        "WikiText at 1 % is .931 [.925, .936]. The metagradient misses its target because of ε of AdamW (1e-8): in the "
        "next table it is 1e-3, and nothing else "
        "is changed. With a small ε, parameters whose gradients come from few sequences, as those of rare words, move "
        "by a full step whatever these sequences weigh, and the derivative does not see what their removal does."
    )
    parts = tuple(texts[: ends[0]]), tuple(texts[slice(*ends)]), None, (TRAK, EK_FAC), remark
    shares = 0.01, 0.1, 0.5
    task = FineTune("gpt", title, training, fresh, sequence_loss, None, train, queries, SUBSETS, shares, 0, *parts)
    return replace(task, peers=(BERGSON, KRONFLUENCE, DATTRI, DATTRI_DOT))


def smooth_gpt(data: Path) -> FineTune:
    """The same with another ε of AdamW, for the metagradient alone."""
    task = small_gpt(data)
    title = task.title.replace("linear decay)", f"linear decay, ε = {SMOOTH:g})")
    others = ("Influence()", "Influence, DataInf", "Influence, empirical Fisher", "TracIn", "GradCos", "embeddings")
    return replace(
        task,
        name="gpt-smooth",
        title=title,
        training=replace(task.training, eps=SMOOTH),
        shares=(0.01,),
        absent=(*task.absent, *others, "features of the net"),
        remark="Texts, order and initial parameters are those of the table above; ε alone is another.",
        alone=0,
        peers=(BERGSON,),
    )
