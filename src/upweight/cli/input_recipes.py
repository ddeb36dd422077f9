"""How parts of inputs are attributed, by names on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from upweight.core.input_recipes import InputRecipe

RECIPES = {
    "erasure": "Erasure",
    "saliency": "Saliency",
    "gradient-times-input": "GradientTimesInput",
    "integrated-gradients": "IntegratedGradients",
    "deeplift": "DeepLIFT",
    "occlusion": "Occlusion",
    "attention": "AttentionWeights",
}


def input_recipe(name: str, option: str) -> InputRecipe:
    """The recipe of this name. Raises a usage error for another."""
    from upweight.core import input_recipes

    if name not in RECIPES:
        raise typer.BadParameter(f"expected {', '.join(RECIPES)}, got {name}", param_hint=option)
    recipe: InputRecipe = getattr(input_recipes, RECIPES[name])()
    return recipe
