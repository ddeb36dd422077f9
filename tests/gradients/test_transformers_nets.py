"""Real models of the transformers library, randomly initialised; skipped where it is not installed."""

import numpy as np
import pytest
import torch

import upweight as uw
from support.small_nets import CLASSES
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.functional import single_gradient
from upweight.gradients.inspection import inspect
from upweight.gradients.network import Network

transformers = pytest.importorskip("transformers")
RNG = np.random.default_rng(0)
TOKENS = uw.Examples(RNG.integers(0, 50, (5, 9)), RNG.integers(0, CLASSES, 5))
IMAGES = uw.Examples(RNG.standard_normal((5, 3, 16, 16)), RNG.integers(0, CLASSES, 5))
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def next_token(net, batch):
    logits = net(input_ids=batch.x).logits[:, :-1]
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.x[:, 1:].flatten(), reduction="none")
    return each.view(len(batch.x), -1).sum(1)


def classify(net, batch):
    return torch.nn.functional.cross_entropy(net(batch.x).logits, batch.y, reduction="none")


def gpt2():
    config = transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config)


def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=50, num_key_value_heads=1, **SMALL))


def bert():
    config = transformers.BertConfig(vocab_size=50, num_labels=CLASSES, **SMALL)
    return transformers.BertForSequenceClassification(config)


def vit():
    config = transformers.ViTConfig(image_size=16, patch_size=8, num_labels=CLASSES, **SMALL)
    return transformers.ViTForImageClassification(config)


@pytest.mark.parametrize(
    ("build", "loss", "examples"),
    [(gpt2, next_token, TOKENS), (llama, next_token, TOKENS), (bert, classify, TOKENS), (vit, classify, IMAGES)],
)
def test_rows_are_those_of_autograd(build, loss, examples):
    torch.manual_seed(0)
    network = Network(build().double(), loss)
    rows = CapturedRows(network, examples, "loss")
    with network.preserved():
        each = [single_gradient(network, "loss", example, network.names) for example in examples.batches(1)]
    expected = network.join({name: torch.stack([g[name] for g in each]) for name in network.names})
    assert np.abs(rows.dense() - expected).max() < 1e-10
    assert np.abs(rows.gram() - expected @ expected.T).max() < 1e-8 * np.abs(expected @ expected.T).max()
    assert inspect(network, "loss", examples).covered > 0.98


def test_attention_weights_are_those_that_the_model_returns():
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=50, num_labels=CLASSES, attn_implementation="eager", **SMALL)
    net = transformers.BertForSequenceClassification(config).eval()
    attributions = uw.attribute_inputs(uw.TorchModel(net, classify), TOKENS, uw.AttentionWeights(layer=0))
    attentions = net(torch.as_tensor(TOKENS.x), output_attentions=True).attentions[0]
    assert np.allclose(attributions.values, attentions.mean((1, 2)).detach().numpy(), atol=1e-6)
    fused = transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=50, num_labels=CLASSES, attn_implementation="sdpa", **SMALL)
    )
    with pytest.raises(TypeError, match="attn_implementation='eager'"):
        uw.attribute_inputs(uw.TorchModel(fused, classify), TOKENS, uw.AttentionWeights())
