"""Which task a net of transformers is for, by the name of its class."""

from __future__ import annotations

from typing import Any

from upweight.models.huggingface.collation import base_of

ENDINGS = {  # of the name of the net's class → the function of `uw.hf`
    "ForSequenceClassification": "classifier",
    "ForImageClassification": "classifier",
    "ForAudioClassification": "classifier",
    "ForMultipleChoice": "classifier",
    "ForTokenClassification": "classifier",
    "ForMaskedLM": "classifier",
    "ForCausalLM": "causal_lm",
    "LMHeadModel": "causal_lm",
    "ForConditionalGeneration": "seq2seq",
    "ForSeq2SeqLM": "seq2seq",
}


def task_of(net: Any) -> str | None:
    """The function of `uw.hf` for this net; None if its class does not say so.

    Nets `…ForConditionalGeneration` without an encoder (language models that also take pictures) are causal.
    """
    base = base_of(net)
    kind = type(base).__name__
    if kind.endswith("WithLMHeadModel"):  # masked or causal, by its configuration
        return None
    task = next((task for ending, task in ENDINGS.items() if kind.endswith(ending)), None)
    if task == "seq2seq" and getattr(getattr(base, "config", None), "is_encoder_decoder", True) is False:
        return "causal_lm"
    return task


def require_task(net: Any, task: str) -> None:
    """Raise TypeError for a net of another task, whose targets stand elsewhere."""
    known = task_of(net)
    if known not in (None, task):
        raise TypeError(
            f"expected a net for uw.hf.{task}, got {type(base_of(net)).__name__}, whose loss is that of "
            f"uw.hf.{known}(net, dataset, collator)"
        )
