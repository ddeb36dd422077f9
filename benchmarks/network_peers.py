"""Network peers: scores of whole networks by other libraries; runs in their environment, without upweight.

Each contender takes a `Task` and returns scores (queries, train) whose positive end helps. Settings are the libraries'
own where they work; where a default is worse than no curvature at all, the library's own alternative is run (said in
the name).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.nets import Task
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

BATCH = 256
Contender = Callable[[Task], Any]


def captum_tracin(task: Task) -> Tensor:
    """One checkpoint, all layers; the fast path that needs a summed loss."""
    from captum.influence import TracInCP

    return captum(TracInCP, task, sample_wise_grads_per_batch=True, loss_fn=_SummedLoss(task))


def captum_fast(task: Task) -> Tensor:
    """One checkpoint, the last layer alone."""
    from captum.influence import TracInCPFast

    last = [module for module in task.net.modules() if isinstance(module, nn.Linear)][-1]
    return captum(TracInCPFast, task, final_fc_layer=last, loss_fn=nn.CrossEntropyLoss(reduction="sum"))


def captum(kind: Any, task: Task, **settings: Any) -> Any:
    """Scores by one of captum's classes, from a checkpoint on disk."""
    checkpoint = tempfile.NamedTemporaryFile(suffix=".pt", delete=False).name  # noqa: SIM115 - read again by name
    torch.save(task.net.state_dict(), checkpoint)

    def load(net: Any, path: str) -> float:
        net.load_state_dict(torch.load(path))
        return 1.0  # the learning rate of the checkpoint

    where = {"checkpoints": [checkpoint]} if "TracIn" in kind.__name__ else {"checkpoint": checkpoint}
    data = {"model": task.net, "train_dataset": TensorDataset(task.x, task.y), "batch_size": BATCH}
    tracer = kind(**data | where | settings, checkpoints_load_func=load)
    return tracer.influence((task.xq, task.yq))


class _SummedLoss(nn.Module):
    """What captum recognises as a sum over the batch."""

    reduction = "sum"

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.task.kind.losses(outputs, y).sum()


def kronfluence(strategy: str, draws: int = 1, **score: Any) -> Contender:
    """Factors and scores of one strategy, batches of 256 queries and examples (32 for sequences).

    `draws` labels are sampled for every example.
    """

    def run(task: Task) -> Tensor:
        import copy

        from kronfluence.analyzer import Analyzer, prepare_model
        from kronfluence.arguments import FactorArguments, ScoreArguments
        from kronfluence.task import Task as Described

        class Says(Described):
            def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
                outputs, y = model(batch[0]), batch[1]
                if sample:
                    with torch.no_grad():
                        chances = torch.softmax(outputs.detach().flatten(0, -2), dim=-1)
                        y = torch.multinomial(chances, 1).view(y.shape)
                return task.kind.losses(outputs, y).sum()

            def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
                return self.compute_train_loss(batch, model)

        torch.manual_seed(0)
        size = 32 if task.kind.name == "gpt" else BATCH
        described = Says()
        net = prepare_model(copy.deepcopy(task.net), described)
        train, queries = TensorDataset(task.x, task.y), TensorDataset(task.xq, task.yq)
        with tempfile.TemporaryDirectory() as folder:
            analyzer = Analyzer("run", net, described, cpu=True, disable_tqdm=True, output_dir=folder)
            factors = FactorArguments(strategy=strategy)
            repeated = ConcatDataset([train] * draws)
            analyzer.fit_all_factors("factors", repeated, size, factor_args=factors, overwrite_output_dir=True)
            analyzer.compute_pairwise_scores(
                "scores", "factors", queries, train, size, size, score_args=ScoreArguments(**score)
            )
            return analyzer.load_pairwise_scores("scores")["all_modules"]

    return run


def pydvl(name: str, **settings: Any) -> Contender:
    """One of pyDVL's influence models on the mean loss; every loss is one number for the batch."""

    def run(task: Task) -> Tensor:
        from pydvl.influence import torch as rooms

        def loss(outputs: Tensor, y: Tensor) -> Tensor:
            return task.kind.losses(outputs, y).mean()

        loader = DataLoader(TensorDataset(task.x, task.y), batch_size=len(task.x))
        influence = getattr(rooms, name)
        if influence is rooms.EkfacInfluence:
            fitted = influence(task.net, hessian_regularization=task.kind.l2 or 1e-2, **settings).fit(loader)
        else:
            fitted = influence(task.net, loss, regularization=task.kind.l2 or 1e-2, **settings).fit(loader)
        return fitted.influences(task.xq, task.yq, task.x, task.y)

    return run


def pydvl_nystrom(task: Task) -> Tensor:
    """Rank 50 (or what the parameters allow)."""
    return pydvl("NystroemSketchInfluence", rank=50)(task)


def _described(task: Task, output: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """dattri's account of a task whose scalar is the mean of `output(said, y)` over the examples."""
    from dattri.task import AttributionTask

    def scalar(parameters: Any, data: Any) -> Tensor:
        x, y = (part.reshape(-1, *like.shape[1:]) for part, like in zip(data, (task.x, task.y), strict=True))
        return output(functional_call(task.net, parameters, (x,)), y).mean()

    return scalar, AttributionTask(loss_func=scalar, model=task.net, checkpoints=task.net.state_dict())


def _loaders(task: Task, size: int) -> tuple[Any, Any]:
    train, queries = TensorDataset(task.x, task.y), TensorDataset(task.xq, task.yq)
    return DataLoader(train, batch_size=size), DataLoader(queries, batch_size=size)


def dattri_tracin(task: Task) -> Tensor:
    """One checkpoint, no projection."""
    from dattri.algorithm.tracin import TracInAttributor

    attributor = TracInAttributor(_described(task, task.kind.losses)[1], torch.ones(1), normalized_grad=False)
    attributor.projector_kwargs = None  # the constructor's own default projects to 512
    with torch.no_grad():
        return attributor.attribute(*_loaders(task, 500)).T


def dattri_explicit(task: Task) -> Tensor:
    """One full batch: several would sum the inverses of their Hessians."""
    from dattri.algorithm.influence_function import IFAttributorExplicit

    attributor = IFAttributorExplicit(_described(task, task.kind.losses)[1], regularization=task.kind.l2)
    train, queries = _loaders(task, len(task.x))
    attributor.cache(train)
    with torch.no_grad():
        return attributor.attribute(train, queries).T


def dattri_trak(task: Task) -> Tensor:
    """One checkpoint, 512 projected directions."""
    from dattri.algorithm.trak import TRAKAttributor

    chance = _described(task, lambda outputs, y: torch.exp(-task.kind.losses(outputs, y)))[0]
    settings = {"proj_dim": 512}
    attributor = TRAKAttributor(_described(task, _margins(task))[1], chance, projector_kwargs=settings)
    train, queries = _loaders(task, BATCH)
    with torch.no_grad():
        attributor.cache(train)
        return attributor.attribute(queries).T


def _margins(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
    """log p − log(1 − p) of every example."""

    def margins(outputs: Tensor, y: Tensor) -> Tensor:
        logp = -task.kind.losses(outputs, y)
        return logp - torch.log(-torch.expm1(logp).clamp(max=-1e-7))

    return margins


def trak(dimensions: int | None, lambda_reg: float = 0.0) -> Contender:
    """One checkpoint through TRAK's own projector for processors, or without projection."""

    def run(task: Task) -> Any:
        from trak import TRAKer
        from trak.modelout_functions import AbstractModelOutput
        from trak.projectors import BasicProjector, NoOpProjector, ProjectionType

        class Output(AbstractModelOutput):
            def __init__(self) -> None:
                pass

            def get_output(self, net: Any, weights: Any, buffers: Any, x: Tensor, y: Tensor) -> Tensor:
                return _margins(task)(functional_call(net, (weights, buffers), (x[None],)), y[None]).sum()

            def get_out_to_loss_grad(self, net: Any, weights: Any, buffers: Any, batch: Any) -> Tensor:
                outputs = functional_call(net, (weights, buffers), (batch[0],))
                return (1 - torch.exp(-task.kind.losses(outputs, batch[1]))).detach()[:, None]

        size = sum(p.numel() for p in task.net.parameters())
        projected_size, kind = dimensions or size, ProjectionType.rademacher
        projector = BasicProjector if dimensions else NoOpProjector
        random = projector(
            grad_dim=size, proj_dim=projected_size, seed=0, proj_type=kind, device="cpu", dtype=torch.float32
        )
        state = task.net.state_dict()
        with tempfile.TemporaryDirectory() as folder:
            settings = {
                "projector": random,
                "proj_dim": projected_size,
                "use_half_precision": False,
                "lambda_reg": lambda_reg,
            }
            tracer = TRAKer(task.net, Output(), len(task.x), folder, device="cpu", logging_level=40, **settings)
            tracer.load_checkpoint(state, model_id=0)
            for x, y in _loaders(task, 100)[0]:
                tracer.featurize(batch=(x, y), num_samples=len(x))
            tracer.finalize_features()
            tracer.start_scoring_checkpoint("run", state, model_id=0, num_targets=len(task.xq))
            for x, y in _loaders(task, 100)[1]:
                tracer.score(batch=(x, y), num_samples=len(x))
            return tracer.finalize_scores("run").T.copy()

    return run


CONTENDERS: dict[str, Contender] = {
    "captum TracInCP": captum_tracin,
    "captum TracInCPFast (last layer)": captum_fast,
    "kronfluence identity": kronfluence("identity"),
    "kronfluence KFAC": kronfluence("kfac"),
    "kronfluence KFAC, damping None": kronfluence("kfac", damping_factor=None),
    "kronfluence EK-FAC": kronfluence("ekfac"),
    "kronfluence EK-FAC, damping None": kronfluence("ekfac", damping_factor=None),
    "pyDVL Direct": pydvl("DirectInfluence"),
    "pyDVL Nyström": pydvl_nystrom,
    "pyDVL EK-FAC": pydvl("EkfacInfluence", update_diagonal=True),
    "dattri TracIn": dattri_tracin,
    "dattri Explicit": dattri_explicit,
    "dattri TRAK (512)": dattri_trak,
    "traker (512)": trak(512),
    "traker (256)": trak(256),
}
SHORT_LIST = (
    *("captum TracInCPFast (last layer)", "kronfluence identity", "kronfluence KFAC, damping None"),
    "kronfluence EK-FAC, damping None",
)
MOST = (
    *SHORT_LIST,
    *("captum TracInCP", "pyDVL Nyström", "pyDVL EK-FAC", "dattri TracIn", "dattri TRAK (512)", "traker (512)"),
)
# What runs on which task; the rest did not end, or did not start, within the limit when it was tried.
RUNS = {
    "softmax": [name for name in CONTENDERS if name != "traker (256)"],
    "mnist": [name for name in CONTENDERS if name != "traker (256)"],
    "mlp": [
        *("captum TracInCP", "captum TracInCPFast (last layer)", "kronfluence identity", "kronfluence KFAC"),
        *("kronfluence KFAC, damping None", "kronfluence EK-FAC, damping None", "pyDVL Nyström"),
    ],
    "cnn": [
        *("captum TracInCP", "captum TracInCPFast (last layer)", "kronfluence identity", "kronfluence EK-FAC"),
        *("kronfluence EK-FAC, damping None", "dattri TracIn", "dattri TRAK (512)", "traker (512)"),
    ],
    **{task: list(SHORT_LIST) for task in ("spoken", "adult")},
    "lstm": list(MOST),
    **{task: list(MOST) for task in ("narrow", "resnet", "depthwise")},
    "lora": [],
    "gpt": ["kronfluence identity", "kronfluence EK-FAC, damping None", "traker (256)"],
}
