"""Arguments of transformers' Trainer: which runs are not recorded, and which are recorded but cannot be replayed."""

from __future__ import annotations

from typing import Any

from upweight.training.replay_record import RunFacts

SHARDED = ("deepspeed", "fsdp")


def require_recordable(args: Any) -> None:
    """Raise ValueError for a run on several devices, and for one whose steps a callback does not see."""
    for name in SHARDED:
        if getattr(args, name, None):
            raise ValueError(
                f"expected a Trainer on one device, got {name}: parameters are spread over processes, and no process "
                "can save a checkpoint of them all. Train without it to record the run"
            )
    devices = max(int(getattr(args, "world_size", 1)), int(getattr(args, "n_gpu", 1)))
    if devices > 1:
        raise ValueError(
            f"expected a Trainer on one device, got {devices}: each process sees its own share of the examples only. "
            "Run one process (without torchrun) and one GPU (CUDA_VISIBLE_DEVICES=0)"
        )
    if getattr(args, "auto_find_batch_size", False):
        raise ValueError("expected a fixed batch size, got auto_find_batch_size=True, which begins the run anew")


def facts_of(args: Any, trainer: Any = None) -> RunFacts:
    """The facts of a run with these arguments; of a Trainer that is known, also what it overrides."""
    clip = float(getattr(args, "max_grad_norm", 0.0) or 0.0)
    examples = None if trainer is None else len(trainer.train_dataset)
    autocast = bool(getattr(args, "bf16", False))
    facts = RunFacts(device=args.device.type, clip=clip if clip > 0 else None, examples=examples, autocast=autocast)
    if getattr(args, "fp16", False):
        facts.note("it trained in fp16, whose scaler changes gradients and skips steps")
    if autocast and facts.device != "cpu":
        facts.note(
            f"it trained in bf16 under autocast on {facts.device}, whose kernels may round otherwise in a replay"
        )
    if getattr(args, "neftune_noise_alpha", None):
        facts.note("NEFTune added noise to the embeddings (neftune_noise_alpha)")
    if getattr(args, "label_smoothing_factor", 0.0) and trainer is None:
        facts.note(
            "labels were smoothed (label_smoothing_factor), so the net got no labels: record it with attach(trainer)"
        )
    if getattr(args, "torch_compile", False):
        facts.note("the net was compiled (torch_compile), whose kernels draw other random numbers")
    if trainer is not None and _overrides(trainer, "training_step"):
        facts.note(f"{type(trainer).__name__} has a training_step of its own")
    return facts


def _overrides(trainer: Any, method: str) -> bool:
    from transformers import Trainer

    return getattr(type(trainer), method) is not getattr(Trainer, method)
