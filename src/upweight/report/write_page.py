"""The page of an application, chosen by the class of its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from upweight.applications.attack import Attack
from upweight.applications.audit_results import Audit
from upweight.applications.discovery import Discovery
from upweight.applications.explain import Explanation
from upweight.applications.extract_tree import ExtractedTree
from upweight.applications.fgsm import AdversarialQueries
from upweight.applications.flip_set_result import FlipSet
from upweight.applications.forgotten import Forgotten
from upweight.applications.global_explanation import GlobalExplanation
from upweight.applications.growing_spheres import NearestEnemy
from upweight.applications.local_model import LocalModel
from upweight.applications.neuron_examples import NeuronExamples
from upweight.applications.perturb import Perturbation
from upweight.applications.poisoned import Poisoned
from upweight.applications.prototypes import Prototypes
from upweight.applications.retrieve import Retrieved
from upweight.applications.reweighted import Reweighted
from upweight.applications.shared_inputs_result import SharedInputs
from upweight.applications.slices import Slices
from upweight.applications.suspects import Suspects
from upweight.applications.token_scores_result import TokenScores
from upweight.applications.what_if import WhatIf
from upweight.core.deprecation import ReplacedBy, accept_old_keywords
from upweight.report.attack_page import attack_page
from upweight.report.audit_page import audit_page
from upweight.report.discover_page import discover_page
from upweight.report.document import written
from upweight.report.fgsm_page import fgsm_page
from upweight.report.flip_set_page import flip_set_page
from upweight.report.forget_page import forget_page
from upweight.report.growing_spheres_page import growing_spheres_page
from upweight.report.inputs_page import inputs_page
from upweight.report.local_model_page import global_explanation_page, local_model_page
from upweight.report.neurons_page import neurons_page
from upweight.report.page import explanation_page
from upweight.report.perturb_page import perturb_page
from upweight.report.poisoned_page import poisoned_page
from upweight.report.prototypes_page import prototypes_page
from upweight.report.retrieved_page import retrieved_page
from upweight.report.review import review_page
from upweight.report.reweight_page import reweight_page
from upweight.report.slices_page import slices_page
from upweight.report.tokens_page import tokens_page
from upweight.report.tree_page import tree_page
from upweight.report.what_if_page import what_if_page

PAGES: dict[type, Callable[[Any, Sequence[str]], str]] = {
    Explanation: explanation_page,
    Suspects: review_page,
    Slices: slices_page,
    Audit: audit_page,
    Perturbation: perturb_page,
    Prototypes: prototypes_page,
    Poisoned: poisoned_page,
    LocalModel: local_model_page,
    GlobalExplanation: global_explanation_page,
    NearestEnemy: growing_spheres_page,
    SharedInputs: inputs_page,
    NeuronExamples: neurons_page,
    TokenScores: tokens_page,
    ExtractedTree: tree_page,
    Attack: attack_page,
    AdversarialQueries: fgsm_page,
    Discovery: discover_page,
    FlipSet: flip_set_page,
    Forgotten: forget_page,
    WhatIf: what_if_page,
    Retrieved: retrieved_page,
    Reweighted: reweight_page,
}


@accept_old_keywords({"found": ReplacedBy("result")})
def write_page(path: str | Path, result: Any, *, description: Sequence[str] = ()) -> Path:
    """Write the result of an application as one self-contained HTML page.

    Applications are `mislabeled`, `slices`, `audit` and the others that return one of the classes in `PAGES`. The page
    holds everything it shows and works from `file://`. For `mislabeled` it is the review, on which a person decides
    with the keyboard. An existing file is replaced in one step or not at all.

    Args:
        path: where to write.
        result: what one of these functions, or `explain`, returned.
        description: sentences about the model, for the head of the page.

    Raises:
        TypeError: the result of anything else; for scores, use `write_report`.
    """
    page = PAGES.get(type(result))
    if page is None:
        raise TypeError(
            "expected what an application returned, such as mislabeled, slices, audit or perturb, got "
            f"{type(result).__name__}; for scores, use write_report"
        )
    return written(Path(path), page(result, description))
