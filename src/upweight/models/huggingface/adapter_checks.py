"""Adapters of peft that cannot be explained as they are: merged, switched off, frozen or never trained."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn


def require_trained_adapters(net: nn.Module) -> None:
    """Raise ValueError if the adapters of a net do not act on its output, or nothing in the net requires gradients."""
    for name, module in net.named_modules():
        if not _is_adapter(module):
            continue
        if module.merged:
            raise ValueError(
                f"the adapters are merged into the base (first at {name!r}), so that the output does not depend on "
                "them; call net.unmerge_adapter()"
            )
        if module.disable_adapters:
            raise ValueError(
                f"the adapters are switched off (first at {name!r}), so that the output does not depend on them; call "
                "net.enable_adapter_layers()"
            )
    if any(parameter.requires_grad for parameter in net.parameters()):
        return
    if any(_is_adapter(module) for module in net.modules()):
        raise ValueError(
            "expected adapters that require gradients, but all parameters are frozen, as after loading for inference; "
            "load them with PeftModel.from_pretrained(base, folder, is_trainable=True)"
        )
    raise ValueError(
        "expected a net with parameters that require gradients, but all are frozen; if adapters were trained and then "
        "merged (merge_and_unload), pass the net with its adapters, else call net.requires_grad_(True)"
    )


def untrained_adapters(net: nn.Module) -> str | None:
    """A sentence if every adapter still is what peft starts with: its second factor is zero."""
    factors = [p for name, p in net.named_parameters() if ".lora_B." in name or ".lora_embedding_B." in name]
    if not factors or any(bool(torch.any(p.detach() != 0)) for p in factors):
        return None
    return (
        "All adapters are as peft initialises them (lora_B is zero): if this net was trained, its adapters were not "
        "loaded."
    )


def _is_adapter(module: Any) -> bool:
    peft = sys.modules.get("peft.tuners.tuners_utils")
    return peft is not None and isinstance(module, peft.BaseTunerLayer)
