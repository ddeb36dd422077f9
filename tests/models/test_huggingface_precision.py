"""Scores in bfloat16, under autocast and with gradient checkpointing are those of the same weights in float32."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch

import upweight as uw

pytest.importorskip("transformers")
pytest.importorskip("datasets")
pytest.importorskip("peft")
from support.tiny_transformers import text_dataset, tiny, with_adapters, word_tokenizer

CURVATURES = {
    "Identity": uw.Identity(),
    "Diagonal": uw.Diagonal(),
    "EmpiricalFisher": uw.EmpiricalFisher(),
    "DataInf": uw.DataInf(),
    "KFAC": uw.KFAC(),
    "EKFAC": uw.EKFAC(),
    "GaussNewton": uw.GaussNewton(),
}
KINDS = ("bert", "gpt2", "llama")
EVERY = [(kind, adapted, name) for kind in KINDS for adapted in (True, False) for name in CURVATURES]
FAST = [("bert", True, "EKFAC"), ("gpt2", False, "EKFAC"), ("llama", True, "EKFAC"), ("llama", False, "EKFAC")]
SLOW = [case for case in EVERY if case not in FAST]


def rounded(kind: str, has_adapters: bool, dtype: torch.dtype) -> Any:
    """A net whose base has weights of bfloat16, in this type; adapters are in float32, as peft makes them."""
    net = tiny(kind, torch.bfloat16).to(dtype)
    return with_adapters(net) if has_adapters else net


def scores(net: Any, curvature: Any) -> np.ndarray:
    rows = text_dataset(28)
    if hasattr(base(net), "bert"):
        model, rows = uw.hf.classifier(net, rows, word_tokenizer())
    else:
        model, rows = uw.hf.causal_lm(net, rows.remove_columns("label"), word_tokenizer())
    fitted = uw.Influence(curvature=curvature).fit(model, rows.take(range(24)))
    return fitted.attribute(rows.take([24, 25, 26, 27])).values


def base(net: Any) -> Any:
    return net.get_base_model() if hasattr(net, "get_base_model") else net


@functools.cache
def exact(kind: str, has_adapters: bool, name: str) -> np.ndarray:
    return scores(rounded(kind, has_adapters, torch.float32), CURVATURES[name])


def agreement(some: np.ndarray, others: np.ndarray) -> float:
    """The smallest Pearson correlation of a query's scores."""
    return min(float(np.corrcoef(a, b)[0, 1]) for a, b in zip(some, others, strict=True))


@pytest.mark.sweep(2)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "has_adapters", "name"), FAST)
def test_scores_in_bfloat16_are_those_in_float32(kind: str, has_adapters: bool, name: str) -> None:
    half = scores(rounded(kind, has_adapters, torch.bfloat16), CURVATURES[name])
    assert agreement(half, exact(kind, has_adapters, name)) > 0.99


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "has_adapters", "name"), SLOW)
def test_scores_in_bfloat16_are_those_in_float32_for_every_curvature(kind: str, has_adapters: bool, name: str) -> None:
    half = scores(rounded(kind, has_adapters, torch.bfloat16), CURVATURES[name])
    assert agreement(half, exact(kind, has_adapters, name)) > 0.99


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_gradient_checkpointing_changes_nothing_and_autocast_little(kind: str) -> None:
    checkpointed = rounded(kind, True, torch.float32)
    checkpointed.train()  # as a Trainer leaves it
    base(checkpointed).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    checkpointed.enable_input_require_grads()
    np.testing.assert_allclose(scores(checkpointed, uw.EKFAC()), exact(kind, True, "EKFAC"), rtol=1e-4, atol=1e-6)
    assert checkpointed.training
    cast = rounded(kind, True, torch.float32)
    inner = base(cast)
    inner.forward = torch.autocast("cpu", torch.bfloat16)(inner.forward)
    assert agreement(scores(cast, uw.EKFAC()), exact(kind, True, "EKFAC")) > 0.99
