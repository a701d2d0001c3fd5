"""What is public: names that exist, in order, say what they are, and have types."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import typing

import pytest

import ngvi

PACKAGES = [
    name
    for name in (
        "ngvi",
        *(
            info.name
            for info in pkgutil.walk_packages(ngvi.__path__, "ngvi.")
            if info.ispkg and not info.name.startswith("ngvi.models")
        ),
    )
    if hasattr(importlib.import_module(name), "__all__")
]


def isort_key(name: str) -> tuple[int, str]:
    """Constants, classes, functions: as ruff sorts."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, name


def members(package: str) -> list[tuple[str, object]]:
    module = importlib.import_module(package)
    return [(name, getattr(module, name)) for name in module.__all__]


every_package = pytest.mark.parametrize("package", PACKAGES)


def test_the_public_packages() -> None:
    """A new one is named here, in docs/versioning.md and in the API's pages."""
    assert {
        "ngvi",
        "ngvi.bayes.conjugate",
        "ngvi.bayes.gaussian_process",
        "ngvi.checkpoints",
        "ngvi.executors",
        "ngvi.families",
        "ngvi.fisher",
        "ngvi.linalg",
        "ngvi.mirror",
        "ngvi.nes",
        "ngvi.nets",
        "ngvi.nets.baselines",
        "ngvi.nets.diagnostics",
        "ngvi.nets.optimizers",
        "ngvi.report",
    } <= set(PACKAGES)


@every_package
def test_names_exist_once_and_in_order(package: str) -> None:
    names = importlib.import_module(package).__all__
    assert names == sorted(set(names), key=isort_key)
    assert not [name for name in names if name.startswith("_")]
    assert len(members(package)) == len(names)


@every_package
def test_each_says_what_it_is(package: str) -> None:
    for name, member in members(package):
        text = inspect.getdoc(member)
        assert text and text != made_up(member), f"{package}.{name} has no docstring"


def made_up(member: object) -> str:
    """The docstring of a dataclass without one: its signature."""
    if not dataclasses.is_dataclass(member):
        return ""
    return f"{member.__name__}{inspect.signature(member)}".replace(" -> None", "")


@every_package
def test_each_has_types(package: str) -> None:
    for name, member in members(package):
        function = member.__init__ if inspect.isclass(member) else member
        if not inspect.isfunction(function) or getattr(member, "_is_protocol", False):
            continue
        annotations = function.__annotations__
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name not in ("self", "cls"):
                where = f"{package}.{name}({parameter.name})"
                assert parameter.name in annotations, f"{where} has no type"
        assert "return" in annotations, f"{package}.{name} has no return type"


def test_families_and_structures_are_exported() -> None:
    """Every concrete one that a file defines."""
    from ngvi.families import ExponentialFamily
    from ngvi.linalg.base import Symmetric

    for package, base in (
        ("ngvi.families", ExponentialFamily),
        ("ngvi.linalg", Symmetric),
    ):
        public = importlib.import_module(package)
        for info in pkgutil.iter_modules(public.__path__):
            module = importlib.import_module(f"{package}.{info.name}")
            for name, cls in inspect.getmembers(module, inspect.isclass):
                own = cls.__module__ == module.__name__ and issubclass(cls, base)
                if own and not inspect.isabstract(cls) and name not in INSIDE:
                    assert name in public.__all__, f"{package} does not export {name}"


INSIDE = {"Custom"}
"""What is made by a function that is public."""


def test_type_checkers_see_the_types() -> None:
    assert typing.get_type_hints(ngvi.load)["return"] is ngvi.LoadedPosterior
