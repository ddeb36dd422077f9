"""One list of public names: it resolves, it is typed, and it is lazy; what functions return has a public name."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
import zipfile
from pathlib import Path

import pytest

import upweight as uw

PACKAGE = Path(uw.__file__).parent
METHODS = [str(PACKAGE / "methods")]
TORCH = {
    "TorchModel",
    "LightningTrajectory",
    "ParameterGroup",
    "Training",
    "Trajectory",
    "UpdateRule",
    "indexed",
    "training_of",
    "FrozenFeatures",
    "Store",
    "StorePlan",
    "hf",
}  # the room `training` and two families need the extra


TRANSFORMERS = {"TrajectoryCallback"}


def value(name):
    if name in TRANSFORMERS:
        pytest.importorskip("transformers")
    if name in TORCH:
        pytest.importorskip("torch")
    return getattr(uw, name)


@pytest.mark.parametrize("name", uw.__all__)
def test_a_public_name_resolves_to_what_is_called_so(name):
    public_value = value(name)
    assert name in dir(uw)
    if name == "hf":  # a namespace
        assert inspect.ismodule(public_value)
        assert public_value.__all__ and all(hasattr(public_value, member) for member in public_value.__all__)
        return
    assert public_value.__module__ == uw._MODULES[name] if inspect.isclass(public_value) else callable(public_value)
    if inspect.isclass(public_value) or inspect.isfunction(public_value):
        assert public_value.__name__ == name


def test_the_names_at_run_time_are_those_that_type_checkers_read():
    def names(file):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                yield from names(PACKAGE.parent / (node.module.replace(".", "/") + ".py"))
            elif isinstance(node, ast.ImportFrom):
                (alias,) = node.names
                assert alias.asname == alias.name, f"{alias.name}: type checkers take it for public if it is said twice"
                yield alias.name

    listed = list(names(PACKAGE / "__init__.pyi"))
    assert sorted(listed) == sorted(set(listed)) == sorted(uw.__all__)
    assert (PACKAGE / "py.typed").exists()


def test_every_method_of_the_room_is_listed_and_public():
    modules = [importlib.import_module(f"upweight.methods.{info.name}") for info in pkgutil.iter_modules(METHODS)]
    written = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, uw.Attributor) and not inspect.isabstract(value)
    }
    assert written == set(uw.methods().values()) == {getattr(uw, recipe.__name__) for recipe in written}


def test_the_room_of_methods_can_be_called_and_entered():
    assert uw.methods()["influence"] is uw.Influence
    import upweight.methods.influence

    assert upweight.methods.influence.Influence is uw.Influence and upweight.methods is uw.methods


def run(code, *path):
    settings = {"capture_output": True, "text": True, "check": True}
    return subprocess.run([sys.executable, "-c", code, *map(str, path)], **settings).stdout  # noqa: PLW1510 - above


def test_names_come_out_of_a_zip_archive_too(tmp_path):
    archive = tmp_path / "upweight.zip"
    with zipfile.ZipFile(archive, "w") as members:
        for file in PACKAGE.rglob("*.py*"):
            if file.suffix in (".py", ".pyi"):
                members.write(file, Path("upweight") / file.relative_to(PACKAGE))
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import upweight
assert upweight.__file__.startswith(sys.argv[1]), upweight.__file__
assert upweight.Influence.__name__ == "Influence" and "influence" in upweight.methods()
print(*upweight.__all__)
"""
    assert run(code, archive).split() == uw.__all__


def test_a_name_whose_library_is_missing_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None\n"  # as where torch is not installed
        "import upweight as uw\n"
        "uw.Examples([[1.0]])\n"
        "uw.TorchModel"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "uw.TorchModel needs torch, which is not installed; run pip install 'upweight[torch]'" in ran.stderr


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import upweight; print(*(set(sys.modules) - before))"
    heavy = {"numpy", "scipy", "sklearn", "torch", "inspect", "ast", "importlib.metadata", "dataclasses"}
    assert not heavy & set(run(code).split())


def classes(hint):
    """All classes of this package inside a type."""
    for part in typing.get_args(hint):
        yield from (c for argument in (part if isinstance(part, list) else [part]) for c in classes(argument))
    for kind in (hint, typing.get_origin(hint)):
        if inspect.isclass(kind) and kind.__module__.startswith("upweight."):
            yield kind


def returned(owner):
    """What a public function returns, and what the fields and properties of a public result class hold."""
    public_names = {name: getattr(uw, name) for name in uw.__all__ if name not in TORCH}
    if inspect.isfunction(owner):
        yield typing.get_type_hints(owner, localns=public_names)["return"]
    elif dataclasses.is_dataclass(owner):
        yield from typing.get_type_hints(owner, localns=public_names).values()
        for member in vars(owner).values():
            if isinstance(member, property):
                yield typing.get_type_hints(member.fget, localns=public_names)["return"]


ROOMS = ("upweight.core.", "upweight.evaluate.", "upweight.applications.", "upweight.report.")
OFFERED = [name for name in uw.__all__ if uw._MODULES[name].startswith(ROOMS)]


@pytest.mark.parametrize("name", OFFERED)
def test_what_a_user_holds_has_a_public_name(name):
    pytest.importorskip("torch")  # annotations name its classes
    returned_classes = {kind.__name__ for hint in returned(getattr(uw, name)) for kind in classes(hint)}
    assert returned_classes <= set(uw.__all__)
