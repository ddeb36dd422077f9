"""Nets, losses and data without gradients of single examples are refused with a reason."""

import numpy as np
import pytest
import torch
from torch import nn

import upweight as uw
from support.small_nets import CLASSES, Case, cross_entropy, mlp
from upweight.gradients.batches import collate
from upweight.gradients.captured_rows import CapturedRows
from upweight.gradients.network import Network

EXAMPLES = Case("mlp", mlp, (5,)).examples()


def rows(loss, net=None, examples=EXAMPLES):
    return CapturedRows(Network((net or mlp()).double(), loss), examples, "loss")


@pytest.mark.parametrize(
    ("loss", "error", "words"),
    [
        (lambda net, b: cross_entropy(net, b).mean(), ValueError, "reduction='none'"),
        (lambda net, b: cross_entropy(net, b)[:, None], ValueError, r"one number per example \(3,\)"),
        (lambda net, b: net(b.x), ValueError, r"shape \(3, 3\)"),
        (lambda net, b: cross_entropy(net, b).sum().item(), TypeError, "tensor of shape"),
        (lambda net, b: cross_entropy(net, b).long(), ValueError, "real numbers"),
        (lambda net, b: cross_entropy(net, b) * float("nan"), ValueError, "loss of example 0 is nan"),
        (lambda net, b: cross_entropy(net, b).detach(), ValueError, "no_grad"),
        (lambda net, b: torch.zeros(len(b.y)), ValueError, "do not depend"),
        (lambda net, b: (cross_entropy(net, b) * 0).sqrt(), ValueError, "NaN or infinite"),
        (lambda net, b: cross_entropy(net, b) / len(b.y), ValueError, "other examples of its batch"),
        (lambda net, b: cross_entropy(net, b) - net(b.x).mean(), ValueError, "other examples of its batch"),
        (lambda net, b: cross_entropy(nn.Sequential(net, nn.Dropout(0.5).train()), b), ValueError, "random in eval"),
    ],
    ids=["scalar", "column", "outputs", "float", "integers", "nan", "detached", "constant", "infinite gradient",
         "divided", "interacting", "random"],
)  # fmt: skip
def test_a_loss_that_is_not_one_number_of_each_example_is_refused(loss, error, words):
    with pytest.raises(error, match=words):
        rows(loss).dense()


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_integer_images_are_refused_with_the_places_to_convert_them(kind):
    images = uw.Examples(np.zeros((4, 5), dtype=kind), np.zeros(4, dtype=int))
    with pytest.raises(ValueError, match=r"got x torch\.u?int\d+ \(3, 5\).*convert x to floats.*collate=f"):
        rows(cross_entropy, examples=images).dense()


def test_a_criterion_instead_of_a_loss_of_net_and_batch_is_refused():
    with pytest.raises(TypeError, match=r"expected loss\(net, batch\) -> \(n,\), got CrossEntropyLoss\(\)"):
        rows(nn.CrossEntropyLoss(reduction="none"))


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.int16])
def test_integer_labels_become_int64(kind):
    assert collate(uw.Examples(EXAMPLES.x, np.asarray(EXAMPLES.y).astype(kind))).y.dtype == torch.int64


def test_batch_norm_without_running_statistics_is_refused():
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, CLASSES))
    with pytest.raises(ValueError, match="'1' is a batch norm without running statistics"):
        Network(net, cross_entropy)


def test_parameters_without_gradients_are_refused():
    with pytest.raises(ValueError, match="none requires gradients"):
        Network(mlp().requires_grad_(False), cross_entropy)
    net = mlp()
    net.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="'phase' is complex"):
        Network(net, cross_entropy)
    with pytest.raises(ValueError, match="max_norm"):
        Network(nn.Sequential(nn.Embedding(4, 3, max_norm=1.0)), cross_entropy)
    with pytest.raises(ValueError, match="lazy"):
        Network(nn.Sequential(nn.LazyLinear(3)), cross_entropy)
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, got function"):
        Network(lambda x: x, cross_entropy)


def test_frozen_and_integer_parameters_are_left_out_with_a_note():
    net = mlp()
    net[0].weight.requires_grad_(False)
    net.counts = nn.Parameter(torch.zeros(4, dtype=torch.int64), requires_grad=False)
    network = Network(net.eval(), cross_entropy)
    assert network.names == ("0.bias", "3.weight", "3.bias")
    assert "2 frozen parameters (39 of 70 numbers, e.g. counts)" in network.notes[0]
    assert CapturedRows(network, EXAMPLES, "loss").dense().shape == (7, 31)


def test_texts_and_word_labels_are_refused():
    texts = uw.Examples(["a", "b"], [0, 1])
    with pytest.raises(TypeError, match="collate"):
        rows(cross_entropy, examples=texts).dense()
    words = uw.Examples(np.eye(2), ["yes", "no"])
    with pytest.raises(TypeError, match="labels"):
        rows(cross_entropy, examples=words).dense()


def test_a_batch_norm_in_the_loss_is_refused_and_leaves_no_hooks():
    net = mlp().double()
    with pytest.raises(ValueError, match="examples interact"):
        rows(lambda net, b: torch.nn.functional.batch_norm(net(b.x), None, None, training=True).pow(3).sum(1), net)\
            .dense()  # fmt: skip
    assert all(len(m._forward_hooks) == 0 for m in net.modules())


def test_vectors_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"shape \(k, 66\)"):
        rows(cross_entropy).project(np.zeros((5, 2)))


def test_sharded_parameters_are_refused(tmp_path):
    distributed = pytest.importorskip("torch.distributed")
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("needs gloo")
    from torch.distributed import fsdp
    from torch.distributed.device_mesh import init_device_mesh

    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("needs torch 2.6")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net = nn.Linear(5, CLASSES)
        fsdp.fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(ValueError, match="'weight' is sharded over processes"):
            Network(net, cross_entropy)
    finally:
        distributed.destroy_process_group()


def test_parameters_without_values_are_refused():
    with pytest.raises(ValueError, match="'weight' is on the meta device"):
        Network(nn.Linear(5, CLASSES, device="meta"), cross_entropy)


@pytest.mark.parametrize("method", [uw.Influence(), uw.GradDot()], ids=["influence", "gradients"])
@pytest.mark.parametrize("label", [CLASSES, -1])
def test_labels_beyond_the_outputs_are_refused_in_a_sentence(label, method):
    train = EXAMPLES.replaced(y=np.array([label, *EXAMPLES.y[1:]]))
    with pytest.raises(ValueError, match=r"number classes from 0"):
        method.fit(uw.TorchModel(mlp().double(), cross_entropy), train).attribute(train)
