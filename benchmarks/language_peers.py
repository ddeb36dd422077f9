"""Other packages on the fine-tunes of language models: the same checkpoint, the same texts.

pip install --no-deps --target DIR kronfluence==1.0.1 einops einconv opt_einsum dattri-llm==0.1.0 \\
    bergson==2.5.1 torchopt optree simple-parsing jaxtyping wadler-lindig natsort petname docstring-parser ml_dtypes

bergson's scores at a trained net are those of causal language models with its own loss; its MAGIC takes any net and
loss. Its other requirements, torchvision among them, are not used here.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from benchmarks.language_tasks import BERGSON, DATTRI, DATTRI_DOT, KRONFLUENCE, FineTune
from benchmarks.replayed_peer import magic
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

Array = NDArray[np.float64]
BATCH = 32


def kronfluence(task: FineTune) -> Array:
    """EK-FAC of the linear layers that are trained; damping None is a tenth of the mean eigenvalue."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    names = trained_layers(task.model.network.net)

    class Described(Task):
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            outputs, y = model(batch[0]), batch[1]
            if sample:
                y = torch.multinomial(torch.softmax(outputs.detach().flatten(0, -2), dim=-1), 1).view(y.shape)
            return losses(outputs, y).sum()

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return names

    torch.manual_seed(0)
    described = Described()
    net = prepare_model(copy.deepcopy(task.model.network.net).eval(), described)
    train, queries = data_sets(task)
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("run", net, described, cpu=True, disable_tqdm=True, output_dir=folder)
        analyzer.fit_all_factors("factors", train, BATCH, factor_args=FactorArguments(strategy="ekfac"))
        arguments = ScoreArguments(damping_factor=None)
        analyzer.compute_pairwise_scores("scores", "factors", queries, train, BATCH, BATCH, score_args=arguments)
        return np.asarray(analyzer.load_pairwise_scores("scores")["all_modules"], dtype=np.float64)


def dattri(name: str, **settings: Any) -> Callable[[FineTune], Array]:
    """Scores by one of dattri-llm's attributors, from the layers that are trained."""

    def scores(task: FineTune) -> Array:
        import dattri_llm

        net = copy.deepcopy(task.model.network.net).eval()
        hooks = dattri_llm.HookManagerConfig(hook_types=dict.fromkeys(trained_layers(net), "linear_io"))
        described = dattri_llm.AttributionTask(lambda net, batch: losses(net(batch["x"]), batch["y"]).sum(), net)
        with tempfile.TemporaryDirectory() as folder:
            sizes = {"per_device_train_batch_size": BATCH, "per_device_eval_batch_size": BATCH}
            arguments = dattri_llm.AttributionArguments(output_dir=folder, use_cpu=True, **sizes)
            attributor = getattr(dattri_llm, name)(arguments, task=described)
            train, queries = (Named(part) for part in data_sets(task))
            found = attributor.attribute(train, queries, hook_config=hooks, **settings)
        assert found.scores.shape == (len(train), len(queries)), "two texts are equal, which its hashes take as one"
        return np.asarray(found.scores.T, dtype=np.float64)

    return scores


PEERS: dict[str, Callable[[FineTune], Array]] = {
    BERGSON: magic,
    KRONFLUENCE: kronfluence,
    DATTRI: dattri("EKFACAttributor", damping=0.1, relative_damping=True),
    DATTRI_DOT: dattri("TracInAttributor"),
}


class Named(Dataset[dict[str, Tensor]]):
    """Examples as dicts."""

    def __init__(self, data: TensorDataset) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return dict(zip(("x", "y"), self._data[i], strict=True))


def data_sets(task: FineTune) -> tuple[TensorDataset, TensorDataset]:
    train, queries = (
        TensorDataset(torch.as_tensor(part.x), torch.as_tensor(part.y)) for part in (task.train, task.queries)
    )
    return train, queries


def losses(outputs: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of every text, averaged over its tokens if it has one of each."""
    return F.cross_entropy(outputs.flatten(0, -2), y.flatten(), reduction="none").view(len(y), -1).mean(1)


def trained_layers(net: nn.Module) -> list[str]:
    """Linear layers with a weight that is trained."""
    return [name for name, m in net.named_modules() if isinstance(m, nn.Linear) and m.weight.requires_grad]
