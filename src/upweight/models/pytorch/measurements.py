"""Measurements of a network's behaviour, each a function `(net, batch) -> (m,)` for `TorchModel(measure=…)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from upweight.core.examples import Examples
from upweight.gradients.batches import collate as stack
from upweight.gradients.batches import to_device
from upweight.gradients.network import PerExampleFunction
from upweight.gradients.token_loss import NOT_TEXT, TokenLoss, named_tensors
from upweight.models.pytorch.layer_direction import LABELS, has_encoder


@dataclass(frozen=True)
class LogProbability:
    """log p of a query's target tokens, or of some of them: −Σ of their losses, a sum also if the loss is a mean.

    Label smoothing of a loss of `uw.hf` is left out; a loss of your own has to be −log p.

    Args:
        loss: the loss of the model: a `TokenLoss`, or the `model.network.loss` of a model of `uw.hf`.
        tokens: (start, stop): only the tokens start … stop − 1 of the query's text, counted from 0 without padding.
        part: name of the entry of the batch that holds the text, if the batch holds several, as for a `Contrast` of two
            continuations; None for the batch itself.

    Raises:
        ValueError: some query has no target among these tokens.
    """

    loss: TokenLoss
    tokens: tuple[int, int] | None = None
    part: str | None = None

    def __post_init__(self) -> None:
        loss = TokenLoss.of(self.loss)
        if loss is None:
            raise TypeError(f"expected uw.TokenLoss(token_losses), got {self.loss!r}")
        object.__setattr__(self, "loss", loss)
        span: Any = self.tokens
        if span is not None and not (isinstance(span, Sequence) and len(span) == 2 and 0 <= span[0] < span[1]):
            raise ValueError(f"expected tokens (start, stop) with 0 ≤ start < stop, got {self.tokens}")

    @property
    def __name__(self) -> str:
        where = "" if self.tokens is None else f" of tokens {self.tokens[0]} to {self.tokens[1] - 1}"
        return f"log-probability{where}{'' if self.part is None else f' of {self.part}'} (nats)"

    def __call__(self, net: Any, batch: Any) -> Tensor:
        """The log-probability of every query, (m,)."""
        if self.part is not None:
            batch = _entry(batch, self.part)
        summed = self.loss.likelihood()
        losses, targets = summed.split(net, batch)
        if self.tokens is None:
            return -losses.sum(1)
        text = summed.text(net, batch, losses.shape[1], len(losses))
        place = text.present.long().cumsum(1) - 1  # of each token in its own text
        chosen = text.present & (place >= self.tokens[0]) & (place < self.tokens[1])
        columns = chosen[:, text.first : text.first + losses.shape[1]] & targets
        if not bool(columns.any(1).all()):
            raise ValueError(
                f"expected tokens {self.tokens[0]} to {self.tokens[1] - 1} with a target in every query, got none in "
                "one of them: prompts, padding and the first token of a causal model are not targets"
            )
        return -torch.where(columns, losses, 0.0).sum(1)


@dataclass(frozen=True)
class AnswerProbability:
    """log Σ p(answer | query) over a class of answers, each appended to the query, which is a prompt.

    Args:
        answers: token ids of every answer, e.g. of all ways to refuse.
        logits: `logits(net, ids, mask) -> (m, L, vocabulary)`; None calls a model of transformers as
            `net(input_ids=ids, attention_mask=mask).logits`, any other net as `net(ids)`.
        name: of the class of answers, for people, e.g. "refusal".

    The prompts are the batch's first integers (m, L); where its `attention_mask` is 0, there is padding. Cost: a
    forward pass per answer.
    """

    answers: tuple[tuple[int, ...], ...]
    logits: Callable[[Any, Tensor, Tensor], Tensor] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        try:
            answers = tuple(tuple(int(token) for token in answer) for answer in self.answers)
        except (TypeError, ValueError):  # texts, or the tokens of one answer
            answers = ()
        if not answers or not all(answers) or min(map(min, answers)) < 0:
            raise ValueError(
                f"expected the token ids of at least one answer, none of them empty, got {self.answers!r}; encode "
                "texts with your tokenizer, without special tokens"
            )
        if len(set(answers)) < len(answers):
            raise ValueError(f"expected answers that differ, because each adds its probability, got {answers}")
        object.__setattr__(self, "answers", answers)

    @property
    def __name__(self) -> str:
        count = len(self.answers)
        return f"log-probability of {self.name or ('the answer' if count == 1 else f'one of {count} answers')} (nats)"

    def __call__(self, net: Any, batch: Any) -> Tensor:
        """The log-probability of the class of answers, (m,). Raises ValueError for tokens beyond the vocabulary."""
        ids, mask = _prompts(batch)
        embeddings = net.get_input_embeddings() if hasattr(net, "get_input_embeddings") else None
        self._require_known(getattr(embeddings, "num_embeddings", None))
        each = torch.stack([self._one(net, ids, mask, answer) for answer in self.answers])
        return torch.logsumexp(each, dim=0)

    def _require_known(self, vocabulary: int | None) -> None:
        """Raise ValueError if an answer has a token that is not among so many; None if the number is not known."""
        last = max(max(answer) for answer in self.answers)
        if vocabulary is not None and last >= vocabulary:
            raise ValueError(
                f"expected answers of tokens 0 to {vocabulary - 1}, which the net knows, got token {last}; encode the "
                "answers with the tokenizer of this net"
            )

    def _one(self, net: Any, ids: Tensor, mask: Tensor, answer: Sequence[int]) -> Tensor:
        count, length = ids.shape
        last = torch.where(mask, torch.arange(length, device=ids.device), -1).amax(1)  # the last token of the prompt
        if bool((last < 0).any()):
            raise ValueError("expected prompts with at least one token, got one that is padding only")
        at = last[:, None] + 1 + torch.arange(len(answer), device=ids.device)
        tokens = torch.tensor(answer, device=ids.device).to(ids.dtype).expand(count, -1)
        extended = torch.cat([ids, ids.new_zeros(count, len(answer))], 1).scatter(1, at, tokens)
        present = torch.cat([mask, mask.new_zeros(count, len(answer))], 1).scatter(1, at, torch.ones_like(at).bool())
        logits = (self.logits or _logits)(net, extended, present.to(ids.dtype))
        self._require_known(logits.shape[-1])
        before = logits.gather(1, (at - 1)[..., None].expand(-1, -1, logits.shape[-1]))
        return before.log_softmax(-1).gather(2, tokens[..., None].long())[..., 0].sum(1)


@dataclass(frozen=True)
class Contrast:
    """The difference of two measurements: of two continuations, of refusal and compliance, of behaviour and control.

    Args:
        first, second: `(net, batch) -> (m,)`, such as `LogProbability` or `AnswerProbability`. Higher = more of the
            first.
    """

    first: PerExampleFunction
    second: PerExampleFunction

    def __post_init__(self) -> None:
        _require_functions(first=self.first, second=self.second)

    @property
    def __name__(self) -> str:
        return f"{_name(self.first)} minus {_name(self.second)}"

    def __call__(self, net: Any, batch: Any) -> Tensor:
        """first − second, (m,)."""
        return self.first(net, batch) - self.second(net, batch)


@dataclass(frozen=True)
class MeanOverPrompts:
    """The mean of a measurement over a set of prompts: one question about a behaviour, so `attribute()` needs no query.

    Args:
        measure: `(net, batch) -> (m,)`.
        prompts: the set.
        collate: as for `TorchModel`.

    All prompts are one batch.
    """

    measure: PerExampleFunction
    prompts: Examples
    collate: Callable[[Examples], Any] | None = None

    def __post_init__(self) -> None:
        _require_functions(measure=self.measure)
        if not isinstance(self.prompts, Examples):
            raise TypeError(f"expected prompts as upweight.Examples, got {type(self.prompts).__name__}")
        if self.prompts.weights is not None:
            raise ValueError("expected prompts without weights, because each counts once in the mean, got weights")

    @property
    def __name__(self) -> str:
        return f"mean over {len(self.prompts)} prompts of {_name(self.measure)}"

    def __call__(self, net: Any, batch: Any) -> Tensor:
        """The mean, (1,); the batch is not read."""
        parameter = next(iter(net.parameters()))
        prompts = to_device((self.collate or stack)(self.prompts), parameter.device, parameter.dtype)
        values = self.measure(net, prompts)
        if values.shape != (len(self.prompts),):
            raise ValueError(f"expected one number per prompt ({len(self.prompts)},), got {tuple(values.shape)}")
        return values.mean()[None]

    def query(self) -> Examples:
        """The one query, named as the measurement."""
        return self.prompts.take([0]).replaced(ids=[self.__name__])


def _prompts(batch: Any) -> tuple[Tensor, Tensor]:
    """The token ids (m, L) of a batch, and where they are not padding."""
    tensors = dict(named_tensors(batch))
    for name, ids in tensors.items():
        if ids.ndim == 2 and not ids.is_floating_point() and name not in (*NOT_TEXT, LABELS):
            mask = tensors.get("attention_mask")
            return ids, torch.ones_like(ids).bool() if mask is None or mask.shape != ids.shape else mask.bool()
    raise ValueError(
        f"expected a batch with token ids (m, L), got { ({name: tuple(t.shape) for name, t in tensors.items()}) }"
    )


def _logits(net: Any, ids: Tensor, mask: Tensor) -> Tensor:
    if has_encoder(net):
        raise ValueError(
            "expected a causal language model, which continues its prompt, got an encoder and decoder; pass answers "
            "as labels of the queries, and measure LogProbability(model.network.loss)"
        )
    is_transformers = hasattr(net, "config") and hasattr(net, "get_input_embeddings")
    output = net(input_ids=ids, attention_mask=mask, use_cache=False) if is_transformers else net(ids)
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        raise ValueError(
            "expected a net that returns logits (m, L, vocabulary); pass AnswerProbability(…, logits=f) with "
            "f(net, ids, mask)"
        )
    return logits


def _entry(batch: Any, part: str) -> Any:
    if not isinstance(batch, Mapping) or part not in batch:
        names = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
        raise ValueError(f"expected a batch with the entry {part!r}, got {names}; `collate` makes the batches")
    return batch[part]


def _name(measure: Any) -> str:
    return str(getattr(measure, "__name__", type(measure).__name__))


def _require_functions(**functions: Any) -> None:
    for name, function in functions.items():
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"expected {name} as a measurement (net, batch) -> (m,), got {function!r}")
