"""Functions, classes and modules, taken apart into what can be compared: their code and all that it refers to."""

from __future__ import annotations

import dis
import functools
import importlib
import importlib.util
import inspect
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
PARTIAL = functools.partialmethod


class Named(Generic[P, R]):
    """A function that is identified by a name instead of by its code."""

    def __init__(self, name: str, function: Callable[P, R]) -> None:
        self.name, self.function = name, function
        self.__name__ = name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"named({self.name!r}, {self.function!r})"


def named(name: str, function: Callable[P, R]) -> Named[P, R]:
    """The same function, identified by this name in saved files: another function needs another name.

    For functions whose code cannot be compared (compiled code, an open connection), and for functions whose code
    changes while their results do not.

    >>> named("confidence", lambda outputs, labels: outputs[:, 0]).__name__
    'confidence'
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"expected a name, got {name!r}; write named('confidence', f)")
    if not callable(function):
        raise TypeError(f"expected a function to name, got {type(function).__name__}")
    return Named(name, function)


def function_parts(function: FunctionType) -> tuple[Any, ...]:
    """A function's name; for a user's function also code, defaults, enclosing variables and the globals it names.

    For a library, the name is enough, except for lambdas and nested functions.
    """
    enclosed = [_content(cell) for cell in function.__closure__ or ()]
    identity = "function", _module_name(function), function.__qualname__
    state = function.__defaults__, function.__kwdefaults__, enclosed, vars(function)
    if is_library(function):
        return (*identity, *state, _code(function.__code__)) if "<" in function.__qualname__ else identity
    return (*identity, *state, _code(function.__code__), dict(_globals(function)), dict(_imports(function)))


def class_parts(kind: type) -> tuple[Any, ...]:
    """A class's name; for a user's class also its bases and its members."""
    identity = "class", _module_name(kind), kind.__qualname__
    if is_library(kind):
        return identity
    members = {name: _member(value) for name, value in vars(kind).items() if _is_code_or_setting(name, value)}
    return (*identity, kind.__bases__, members)


def module_parts(module: ModuleType) -> tuple[Any, ...]:
    """A module's name; for a user's module also its source and the current values of its numbers and texts."""
    name, file = _module_name(module), getattr(module, "__file__", None)
    if is_library(module) or file is None:
        return "module", name
    constants = {key: value for key, value in vars(module).items() if not key.startswith("__") and _is_constant(value)}
    return "module", name, Path(file).read_bytes(), constants


def is_library(value: Any) -> bool:
    """Whether a module, or the module of a function or class, comes with Python or was installed.

    Library code is identified by name only: its version belongs to the environment. A function or class that its module
    does not contain counts as the user's.
    """
    if isinstance(value, ModuleType):
        return _is_installed(value.__name__)
    module = sys.modules.get(str(value.__module__))
    owner: Any = module
    for part in value.__qualname__.partition(".<locals>")[0].split("."):
        owner = getattr(owner, part, None)
    if module is None or (owner is None and isinstance(value, FunctionType) and "<" not in value.__qualname__):
        return isinstance(value, FunctionType) and _is_in_installed(value.__code__.co_filename)
    return _is_installed(module.__name__)


def _globals(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """(name, value) of the globals that the code names; for a module, of the attributes that the code uses."""
    variables = function.__globals__
    for code in _codes(function.__code__):
        instructions = _instructions(code)
        for index, (instruction, name) in enumerate(instructions):
            if instruction not in ("LOAD_GLOBAL", "LOAD_NAME") or name not in variables:
                continue
            path, value = name, variables[name]
            for following, attribute in instructions[index + 1 :]:
                if not isinstance(value, ModuleType) or following not in ("LOAD_ATTR", "LOAD_METHOD"):
                    break
                if not hasattr(value, attribute):
                    break
                path, value = f"{path}.{attribute}", getattr(value, attribute)
            yield path, value


def _imports(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """(name, module) of the user's modules that the code imports."""
    package = function.__globals__.get("__package__") or ""
    for code in _codes(function.__code__):
        arguments: list[Any] = [None, None]  # of the instructions so far; an import is preceded by level and names
        for instruction, argument in _instructions(code):
            if instruction == "IMPORT_NAME":
                level = arguments[-2] if isinstance(arguments[-2], int) else 0
                name = importlib.util.resolve_name("." * level + argument, package if level else None)
                if not _is_installed(name):
                    yield name, importlib.import_module(name)
            arguments.append(argument)


@functools.lru_cache(maxsize=4096)
def _instructions(code: CodeType) -> tuple[tuple[str, Any], ...]:
    """(name, argument) of the instructions. Code never changes, and to take it apart is most of a digest's time."""
    return tuple((instruction.opname, instruction.argval) for instruction in dis.get_instructions(code))


def _is_constant(value: Any) -> bool:
    """Whether a global of a module is a number, a text, None, or a container of these."""
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_constant, value))
    if isinstance(value, dict):
        return all(_is_constant(part) for pair in value.items() for part in pair)
    return value is None or type(value) in (bool, int, float, complex, str, bytes)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code and the code of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _code(code: CodeType) -> tuple[Any, ...]:
    """The parts of code that decide what it does, without file name and line numbers."""
    constants = [_code(value) if isinstance(value, CodeType) else value for value in code.co_consts]
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    exceptions = getattr(code, "co_exceptiontable", b"")  # since Python 3.11
    return code.co_code, constants, code.co_names, code.co_freevars, code.co_cellvars, arguments, counts, exceptions


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return "an empty cell"


def _member(value: Any) -> Any:
    """The functions inside a member of a class: of a property, a class method and so on."""
    if isinstance(value, staticmethod | classmethod):
        return type(value).__name__, value.__func__
    if isinstance(value, property):
        return "property", value.fget, value.fset, value.fdel
    if isinstance(value, functools.cached_property):
        return "cached_property", value.func
    if isinstance(value, PARTIAL):
        return "partialmethod", value.func, value.args, value.keywords
    return value


def _is_code_or_setting(name: str, value: Any) -> bool:
    """Whether the author of a class wrote this member: slots, and what Python or a decorator adds, are not compared."""
    if inspect.isdatadescriptor(value) and not isinstance(value, property):
        return False
    hidden = (name.startswith("__") and name.endswith("__")) or name == "_abc_impl"
    return not hidden or callable(value) or isinstance(value, staticmethod | classmethod | property | PARTIAL)


def _module_name(value: Any) -> str:
    """The name of the module; `__mp_main__`, the script in a worker process, is `__main__`."""
    name = value.__name__ if isinstance(value, ModuleType) else str(value.__module__)
    return "__main__" if name == "__mp_main__" else name


@functools.cache
def _installed() -> tuple[Path, ...]:
    """Folders of the standard library and of installed packages."""
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(Path(folder).resolve() for folder in {*folders, site.getusersitepackages()})


@functools.cache
def _is_installed(module: str) -> bool:
    """Whether the module of this name is built in or lies in a folder of installed packages."""
    top = module.partition(".")[0]
    if top in ("upweight", "builtins"):
        return True
    file = getattr(sys.modules.get(module), "__file__", None) or getattr(sys.modules.get(top), "__file__", None)
    return top in sys.stdlib_module_names if file is None else _is_in_installed(file)


@functools.cache
def _is_in_installed(file: str) -> bool:
    path = Path(file).resolve()
    return "site-packages" in path.parts or any(folder in path.parents for folder in _installed())
