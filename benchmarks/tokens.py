"""What scores of tokens cost beside a forward pass and a backward pass per token, and DataInf beside EK-FAC on LoRA.

    python -m benchmarks.tokens        two to five minutes of one core; needs transformers and peft

Nets are made from configurations, with random weights: costs do not depend on them, nor do the identities checked here.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from benchmarks.results import Section, Table, verdict, versions

import upweight as uw

VOCABULARY, LENGTH, TRAIN, QUERIES = 257, 64, 64, 4
LORA_TRAIN, LORA_QUERIES = 200, 8
FIRST_TOKENS = 24  # whose backward passes are timed


def token_losses(net: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Next-token losses; all tokens but the first are targets."""
    logits = net(input_ids=batch.x, use_cache=False).logits[:, :-1]
    losses = F.cross_entropy(logits.transpose(1, 2), batch.x[:, 1:], reduction="none")
    return losses, torch.ones_like(losses, dtype=torch.bool)


def language_models() -> dict[str, Any]:
    """GPT-2 of .84 M parameters and Llama of .66 M."""
    import transformers

    ends: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}
    gpt2 = transformers.GPT2Config(vocab_size=VOCABULARY, n_positions=128, n_embd=128, n_layer=4, n_head=4, **ends)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    llama = transformers.LlamaConfig(
        vocab_size=VOCABULARY, num_key_value_heads=2, tie_word_embeddings=False, **sizes, **ends
    )
    return {"GPT-2, .84 M": transformers.GPT2LMHeadModel(gpt2), "Llama, .66 M": transformers.LlamaForCausalLM(llama)}


def lora_classifier() -> uw.TorchModel:
    """A BERT of MiniLM's shape (6 × 384) with LoRA of rank 8 on queries and values: 74,498 trained parameters."""
    import peft
    import transformers

    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    net = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=3000, num_labels=2, **sizes))
    adapted: Any = peft.get_peft_model(
        net, peft.LoraConfig(r=8, target_modules=["query", "value"], task_type="SEQ_CLS")
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    return uw.TorchModel(adapted, classification_losses, collate=padded)


def classification_losses(net: Any, batch: Any) -> torch.Tensor:
    logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return F.cross_entropy(logits, batch["labels"], reduction="none")


def padded(examples: uw.Examples) -> dict[str, torch.Tensor]:
    longest = max(map(len, examples.x))
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(examples.x):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.as_tensor(tokens), 1
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.as_tensor(examples.y)}


def seconds(task: Callable[[], Any], repeats: int = 3) -> float:
    """The median processor time."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        task()
        taken.append(time.process_time() - start)
    return float(np.median(taken))


def tokens_of(name: str, net: Any) -> list[Any]:
    """One row: seconds of a forward pass and of the scores of all tokens of the training set for one query."""
    x = np.random.default_rng(0).integers(0, VOCABULARY, (TRAIN + QUERIES, LENGTH))
    model = uw.TorchModel(net.eval(), uw.TokenLoss(token_losses))
    train, queries = uw.Examples(x[:TRAIN]), uw.Examples(x[TRAIN:], ids=[f"q{i}" for i in range(QUERIES)])
    fitted = uw.GradDot().fit(model, train)
    query = queries.take([0])
    fitted.attribute(query)  # inspections are done once
    direction: Any = fitted.score_directions(query)[0]
    scores = fitted.attribute(query).values[0]
    costs, errors = [], []
    for by in ("target", "position"):
        costs.append(seconds(lambda by=by: direction.model.token_products(train, direction.vectors[0], by)))
        products = direction.model.token_products(train, direction.vectors[0], by)
        totals = -np.array([each.values.sum() + each.rest for each in products])
        errors.append(np.abs(totals - scores).max() / np.abs(scores).max())
    forward = seconds(lambda: model.measure(train))
    batch, parameters = model.network.batch(train.take([0])), list(net.parameters())

    def backward() -> list[float]:
        losses = token_losses(net, batch)[0][0]
        values = []
        for loss in losses[:FIRST_TOKENS]:
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            flat = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
            values.append(float(torch.cat([g.flatten() for g in flat]).double().numpy() @ direction.vectors[0]))
        return values

    each = seconds(backward) / FIRST_TOKENS
    product = direction.model.token_products(train.take([0]), direction.vectors[0], "target")[0]
    expected = np.array(backward())
    error = np.abs(product.values[1 : FIRST_TOKENS + 1] - expected).max() / np.abs(expected).max()
    by_target, by_position = costs
    cells = [forward, by_target, by_target / forward, by_position, each * TRAIN * (LENGTH - 1), error, max(errors)]
    is_met = by_target <= 5 * forward and max(error, *errors) <= 1e-5
    return [name, *(float(f"{cell:.2g}") for cell in cells), verdict(is_met)]


def curvatures_on_lora() -> dict[str, list[float]]:
    """Curvature → seconds of fit, of the scores of eight queries, and of self-influence."""
    rng, count = np.random.default_rng(0), LORA_TRAIN + LORA_QUERIES
    rows = [rng.integers(1, 3000, size).tolist() for size in rng.integers(8, 40, count)]
    labels = rng.integers(0, 2, count)
    train = uw.Examples(rows[:LORA_TRAIN], labels[:LORA_TRAIN])
    names = [f"q{i}" for i in range(LORA_QUERIES)]
    queries = uw.Examples(rows[LORA_TRAIN:], labels[LORA_TRAIN:], ids=names)
    model = lora_classifier()
    table: dict[str, list[float]] = {}
    uw.GradDot().fit(model, train).attribute(queries)  # inspections are done once
    for curvature in (uw.DataInf(), uw.EKFAC(), uw.EmpiricalFisher()):
        start = time.process_time()
        fitted = uw.Influence(curvature=curvature, correction=None).fit(model, train)
        after_fit = time.process_time()
        fitted.attribute(queries)
        after_scores = time.process_time()
        fitted.self_influence()
        spent = (after_fit - start, after_scores - after_fit, time.process_time() - after_scores)
        table[type(curvature).__name__] = [*(round(part, 2) for part in spent), round(peak_megabytes())]
    return table


def peak_megabytes() -> float:
    """Of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokens = Table(
        f"Scores of the tokens of {TRAIN} sequences of {LENGTH} for a query, beside a backward pass per token",
        "at most 5 forward passes for a query and batch; equal to backward passes, and in sum to the sequence, to 1e-5",
        ["net", "forward s", "by target s", "÷ forward", "by position s", "backward s", "error", "error of sums", ""],
    )
    for name, net in language_models().items():
        tokens.add(*tokens_of(name, net))
    tokens.notes.append(
        f"CPU seconds. Backward passes were timed for {FIRST_TOKENS} tokens and multiplied; “error” is the largest "
        "difference from them, relative to the largest score. “By position” is another split of the same scores."
    )
    curvatures = curvatures_on_lora()
    lora = Table(
        f"DataInf beside EK-FAC on LoRA: 74,498 parameters, {LORA_TRAIN} examples, {LORA_QUERIES} queries",
        "DataInf is no dearer than EK-FAC, in the fit, for queries, and for self-influence",
        ["curvature", "fit s", f"{LORA_QUERIES} queries s", "self-influence s", "peak MB of the process", ""],
    )
    ours, bound = curvatures["DataInf"], curvatures["EKFAC"]
    met = verdict(all(a <= b for a, b in zip(ours[:3], bound[:3], strict=True)))
    for name, cells in curvatures.items():
        lora.add(name, *cells, met if name == "DataInf" else "")
    lora.notes.append("CPU seconds. The passes capture the activations of all layers of a BERT of 6 × 384.")
    names = ["torch", "transformers", "peft", "upweight"]
    command = "OMP_NUM_THREADS=1 python -m benchmarks.tokens"
    Section("tokens", "Tokens of language models, and LoRA", command, [tokens, lora], versions(names)).keep()


if __name__ == "__main__":
    main()
