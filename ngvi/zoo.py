"""The zoo: NumPyro models with real data, one file a model.

    model = ngvi.zoo.load("eight_schools")
    posterior = ngvi.fit(model.model, **model.data())

A zoo file is a Python file in the folder ``models``: its docstring's first line is its
title, ``SOURCE`` and ``LICENSE`` say where the data come from, ``model`` is the model
and ``data()`` returns its keyword arguments. A new file there is a new model.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngvi.extras import extra


class UnknownModel(KeyError):
    """No model of this name; the message names the nearest ones."""

    def __str__(self) -> str:
        # KeyError would show the message in quotes.
        return str(self.args[0])


@dataclass(frozen=True)
class ZooModel:
    """A model of the zoo with its data."""

    name: str
    title: str
    source: str
    """Where the data and the model come from."""
    license: str
    """What the data may be used for."""
    model: Callable[..., Any]
    """The NumPyro model; called as ``model(**data())``."""
    data: Callable[[], dict[str, Any]]
    """Reads the data: the model's keyword arguments."""


def folder() -> Path:
    """The folder of the zoo's files.

    Raises:
        FileNotFoundError: it is missing from this installation.
    """
    package = Path(__file__).resolve().parent
    installed, checkout = package / "models", package.parent / "models"
    if installed.is_dir():
        return installed
    # Beside an installed package a folder of this name is somebody else's.
    if checkout.is_dir() and (package.parent / "pyproject.toml").is_file():
        return checkout
    raise FileNotFoundError(f"The zoo is missing: there is no folder {installed}.")


def names() -> tuple[str, ...]:
    """The names of all models, in alphabetical order."""
    files = folder().glob("*.py")
    return tuple(sorted(f.stem for f in files if not f.stem.startswith("_")))


def path(name: str) -> Path:
    """The file of a model.

    Raises:
        UnknownModel: there is no model of this name.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else ""
        raise UnknownModel(
            f"There is no model {name!r} in the zoo. {hint or _listed(known)}"
        )
    return folder() / f"{name}.py"


def title(name: str) -> str:
    """The first line of a model's docstring, read without running the file.

    Raises:
        UnknownModel: there is no model of this name.
    """
    tree = ast.parse(path(name).read_text(encoding="utf-8"))
    return _first_line(ast.get_docstring(tree))


@functools.cache
def load(name: str) -> ZooModel:
    """Load a model; loading it again gives the same object, compiled programs included.

    Args:
        name: one of `names()`.

    Raises:
        UnknownModel: there is no model of this name.
        ImportError: the file, or later its `data()`, needs a package that is not
            installed; the message says how to get it.

    Example:
        >>> load("eight_schools").data()["y"].shape
        (8,)
    """
    file = path(name)
    module_name = f"ngvi.models.{name}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None and spec.loader is not None  # a .py file has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        _explaining_imports(spec.loader.exec_module, name)(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    # Progress lines and reports call a model by this name, and every file's is "model".
    module.model.__name__ = name
    return ZooModel(
        name=name,
        title=_first_line(module.__doc__),
        source=module.SOURCE,
        license=module.LICENSE,
        model=module.model,
        data=_explaining_imports(module.data, name),
    )


def _explaining_imports(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, saying what to install where it misses a package."""

    @functools.wraps(function)
    def explaining(*args: Any) -> Any:
        with extra("zoo", f"The zoo model {name!r}"):
            return function(*args)

    return explaining


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0]


def _listed(known: tuple[str, ...]) -> str:
    return f"It has {', '.join(known)}."
