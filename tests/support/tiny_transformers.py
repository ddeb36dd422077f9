"""Tiny transformers made from a configuration, a tokenizer of words, and tokenised data sets."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = [f"w{i}" for i in range(40)]
SPECIAL = ["[PAD]", "[UNK]", "[MASK]", "[EOS]"]
VOCABULARY = len(SPECIAL) + len(WORDS)


def word_tokenizer(**settings: Any) -> Any:
    """One token for each of the words w0 … w39."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(zip(("pad_token", "unk_token", "mask_token", "eos_token"), SPECIAL, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, **{**names, **settings})


def texts(count: int, seed: int = 0, longest: int = 9) -> list[str]:
    """Texts of three to `longest` words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=size)) for size in rng.integers(3, longest + 1, size=count)]


def text_dataset(count: int, seed: int = 0, classes: int = 2) -> datasets.Dataset:
    """Tokenised texts with a label each and an id."""
    rng = np.random.default_rng(seed)
    rows = {
        "key": [f"row{i}" for i in range(count)],
        "text": texts(count, seed),
        "label": rng.integers(0, classes, size=count).tolist(),
    }
    tokenizer = word_tokenizer()
    return datasets.Dataset.from_dict({**rows, **tokenizer(rows["text"], return_token_type_ids=False)})


def tiny(kind: str, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """A net of this kind: "bert", "bert tokens", "gpt2", "llama", "t5"."""
    size: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 3}
    square: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    if kind.startswith("bert"):
        config = transformers.BertConfig(**size, **square, max_position_embeddings=16, **settings)
        sort = "TokenClassification" if kind == "bert tokens" else "SequenceClassification"
        net = getattr(transformers, f"BertFor{sort}")(config)
    elif kind == "gpt2":
        net = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(**size, n_embd=16, n_layer=2, n_head=2, n_positions=16, **settings)
        )
    elif kind == "llama":
        heads: dict[str, Any] = {"num_key_value_heads": 1, "max_position_embeddings": 16, "tie_word_embeddings": False}
        net = transformers.LlamaForCausalLM(transformers.LlamaConfig(**size, **square, **heads, **settings))
    else:
        size |= {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
        net = transformers.T5ForConditionalGeneration(transformers.T5Config(**size, **settings))
    with torch.no_grad():  # larger than initial values, so that losses differ
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    return net.eval().to(dtype)


def with_adapters(net: Any, **settings: Any) -> Any:
    """The net with trained-looking LoRA adapters on its attention, its base frozen."""
    import peft

    targets = {"BertForSequenceClassification": ["query", "value"], "GPT2LMHeadModel": ["c_attn"]}
    chosen = targets.get(type(net).__name__, ["q_proj", "v_proj"])
    settings = {"fan_in_fan_out": chosen == ["c_attn"], "init_lora_weights": False, **settings}
    torch.manual_seed(1)
    return peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=chosen, **settings)).eval()
