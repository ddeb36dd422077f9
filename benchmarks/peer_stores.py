"""How stores of gradients are built and asked: ours, bergson's index and dattri-llm's, all of the same small GPT.

pip install --no-deps --target DIR dattri-llm==0.1.0 bergson==2.5.1 torchopt optree simple-parsing jaxtyping \\
    wadler-lindig natsort petname docstring-parser ml_dtypes

bergson also imports transformers, peft and datasets; its other requirements, torchvision among them, are not used here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.language_peers import BATCH, Named, data_sets, losses, trained_layers
from benchmarks.language_tasks import BLOCKS, VOCABULARY, FineTune
from benchmarks.nets import GPT
from benchmarks.replayed import WIDTH
from numpy.typing import NDArray
from torch import Tensor, nn

import upweight as uw

Array = NDArray[np.float64]
OURS, BERGSON, DATTRI = "upweight", "bergson", "dattri_llm"
DAMPING = 0.1  # of the mean eigenvalue of each layer: bergson's default and ours, so dattri-llm has it too


@dataclass(frozen=True)
class Way:
    """A kind of store.

    `package`: the module that must be there. `build(task, folder, again)` makes it; `again`: with the package's own
    switch for a folder that an earlier build left. `ask(task, folder)` opens it and returns scores (m, rows).
    """

    package: str
    build: Callable[[FineTune, Path, bool], None]
    ask: Callable[[FineTune, Path], Array]


def ours(encoding: uw.Encoding | None, linear: bool = False) -> Way:
    """Our store; `linear`: of the layers that the other packages keep, instead of all parameters."""

    def store(task: FineTune, folder: Path) -> uw.Store:
        return uw.Store(folder, encoding, modules=trained_layers(task.model.network.net) if linear else None)

    def build(task: FineTune, folder: Path, _: bool) -> None:
        store(task, folder).build(task.model, task.train)

    def ask(task: FineTune, folder: Path) -> Array:
        opened = store(task, folder)
        fitted = uw.Influence(modules=opened.modules).fit(task.model, task.train, store=opened)
        return np.asarray(fitted.attribute(task.queries).values)

    return Way(OURS, build, ask)


def bergson(dimensions: int, method: str, unit_norm: bool) -> Way:
    """Its index, projected at random to so many dimensions on either side of a layer; 0 for no projection.

    `method`: of its Hessian. `unit_norm`: cosines, with half of the inverse Hessian on either side.
    """

    def settings(task: FineTune, path: Path, again: bool, part: str = "train") -> Any:
        from bergson import DataConfig, IndexConfig

        where = checkpoint(task)
        data = DataConfig(dataset=str(where / part))
        return IndexConfig(str(path), overwrite=again, model=str(where), data=data, projection_dim=dimensions)

    def build(task: FineTune, folder: Path, again: bool) -> None:
        from bergson import PreprocessConfig
        from bergson.cli.commands import Build, Hessian
        from bergson.config.config import HessianConfig

        if not (folder / "hessian").exists():  # a step of its own, as in its pipelines, which go on after finished ones
            hessian = HessianConfig(method=method, ev_correction=method == "kfac")
            Hessian(hessian_cfg=hessian, index_cfg=settings(task, folder / "hessian", again)).execute()
        Build(settings(task, folder / "index", again), PreprocessConfig()).execute()

    def ask(task: FineTune, folder: Path) -> Array:
        from bergson import Attributor, PreprocessConfig, load_module_gradients
        from bergson.cli.commands import Build

        hessian = {"hessian_path": folder / "hessian", "ev_correction": method == "kfac"}
        index = Attributor(folder / "index", unit_norm=unit_norm, **hessian)
        asked = folder.parent / "queries"
        Build(settings(task, asked, True, "queries"), PreprocessConfig()).execute()
        rows = load_module_gradients(asked)
        values, order = index.search({name: torch.tensor(np.array(rows[name])) for name in rows}, None)
        return np.asarray(torch.zeros_like(values).scatter(1, order, values).double())

    return Way(BERGSON, build, ask)


def dattri(name: str) -> Way:
    """dattri-llm's store of factors of the linear layers, asked by one of its attributors."""

    def attributor(task: FineTune, folder: Path) -> tuple[Any, Any]:
        import dattri_llm

        net = task.model.network.net
        described = dattri_llm.AttributionTask(lambda net, batch: losses(net(batch["x"]), batch["y"]).sum(), net)
        sizes = {"per_device_train_batch_size": BATCH, "per_device_eval_batch_size": BATCH}
        arguments = dattri_llm.AttributionArguments(output_dir=str(folder.parent / "scores"), use_cpu=True, **sizes)
        hooks = dattri_llm.HookManagerConfig(hook_types=dict.fromkeys(trained_layers(net), "linear_io"))
        return getattr(dattri_llm, name)(arguments, task=described), hooks

    def build(task: FineTune, folder: Path, _: bool) -> None:
        method, hooks = attributor(task, folder)
        train, queries = (Named(part) for part in data_sets(task))
        method.cache(train, queries, cache_dir=str(folder), hook_config=hooks)
        shutil.rmtree(folder / "ckpt_0" / "test_grads")  # queries come later
        method.fit(str(folder / "ckpt_0" / "train_grads"), str(folder / "fisher"))

    def ask(task: FineTune, folder: Path) -> Array:
        from dattri_llm import GradientStorageManager

        method, hooks = attributor(task, folder)
        stream = method.generate_test_rep(Named(data_sets(task)[1]), hook_config=hooks)
        queries = method.collect_gradients(stream, GradientStorageManager(str(folder), residency="memory"))
        settings = {"damping": DAMPING, "relative_damping": True, "fisher_dir": str(folder / "fisher")}
        answer = method.attribute_from_cache(str(folder / "ckpt_0" / "train_grads"), queries, **settings)
        return np.asarray(answer.scores.T, dtype=np.float64)

    return Way(DATTRI, build, ask)


PRODUCTS = uw.LoGra(directions=96, precision="int3")
WAYS = {
    "upweight, default": ours(None),
    "upweight, LoGra 96, int3": ours(PRODUCTS),
    "upweight, int8": ours(uw.Coordinates(precision="int8")),
    "upweight, int4": ours(uw.Coordinates()),
    "upweight, default, linear layers": ours(None, linear=True),
    "upweight, LoGra 96, int3, linear layers": ours(PRODUCTS, linear=True),
    "upweight, int8, linear layers": ours(uw.Coordinates(precision="int8"), linear=True),
    "upweight, int4, linear layers": ours(uw.Coordinates(), linear=True),
    "bergson, not projected": bergson(0, "kfac", unit_norm=False),
    "bergson, projected to 16": bergson(16, "autocorrelation", unit_norm=True),
    "dattri-llm, factors": dattri("EKFACAttributor"),
}
KILLED = (
    "upweight, default",
    "upweight, LoGra 96, int3",
    "upweight, int8",
    "upweight, int4",
    "bergson, not projected",
    "bergson, projected to 16",
    "dattri-llm, factors",
)


def checkpoint(task: FineTune) -> Path:
    """The trained net and its texts as bergson reads them: a causal language model, a tokenizer and two data sets."""
    where = task.path("checkpoint").with_suffix("")
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    described, wrapped = causal_model()  # known to transformers from here on
    if not where.exists():
        model = wrapped(described())
        model.net.load_state_dict(task.model.network.net.state_dict())
        model.save_pretrained(where)
        words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(where)
        for name, part in (("train", task.train), ("queries", task.queries)):
            ids = np.concatenate([part.x, part.y[:, -1:]], axis=1)
            Dataset.from_dict({"input_ids": ids.tolist()}).save_to_disk(where / name)
    return where


def causal_model() -> tuple[Any, Any]:
    """The classes of the small GPT's settings and of itself, as transformers knows them."""
    from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutput

    class Described(PretrainedConfig):
        model_type = "small_gpt"

    class Wrapped(PreTrainedModel):
        config_class = Described

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.net = GPT(WIDTH, BLOCKS, VOCABULARY)
            self.post_init()

        def forward(self, input_ids: Tensor, **_: Any) -> Any:
            return CausalLMOutput(logits=self.net(input_ids))

        def get_input_embeddings(self) -> nn.Module:
            return self.net.tokens

    AutoConfig.register("small_gpt", Described, exist_ok=True)
    AutoModelForCausalLM.register(Described, Wrapped, exist_ok=True)
    return Described, Wrapped
