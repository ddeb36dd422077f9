"""The command line, one file per command. Strings become objects here and nowhere else; heavy imports come late."""

from upweight.cli import (
    audit,
    demo,
    evaluate,
    explain,
    flip_set,
    global_explanation,
    growing_spheres,
    local_model,
    methods,
    mislabeled,
    patch,
    perturb,
    poisoned,
    prototypes,
    slices,
    verify,
    what_if,
)
from upweight.cli.app import app, main

__all__ = [
    "app",
    "audit",
    "demo",
    "evaluate",
    "explain",
    "flip_set",
    "global_explanation",
    "growing_spheres",
    "local_model",
    "main",
    "methods",
    "mislabeled",
    "patch",
    "perturb",
    "poisoned",
    "prototypes",
    "slices",
    "verify",
    "what_if",
]
