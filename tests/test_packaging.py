"""What is declared as a dependency is what the code imports, and the reverse."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {"scikit-learn": "sklearn"}
"""Packages whose module has another name."""
OTHERWISE_NEEDED = {
    "h5netcdf": "xarray writes files by it, named in ngvi/bayes/archive.py",
    "jaxlib": "jax runs on it, and one version of it is excluded",
}
SHIPPED = ("nets", "plots", "zoo", "discrete", "parquet")
"""Extras that the library or its zoo imports; the others are for work on it."""


def declared(requirements: list[str]) -> set[str]:
    """The modules of requirements such as "h5netcdf[h5py]>=1"."""
    names = [re.match(r"[\w-]+", r).group() for r in requirements]
    return {MODULES.get(name, name) for name in names}


BASE = declared(PROJECT["dependencies"])
EXTRAS = {name: declared(PROJECT["optional-dependencies"][name]) for name in SHIPPED}


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """The others' modules that a file imports, and whether it does so when it is
    imported itself: not in a function, nor for type checkers only."""

    def visit(node: ast.AST, at_once: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module), at_once
        checked = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        later = checked or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_once and not later)

    for name, at_once in visit(ast.parse(file.read_text()), True):
        module = name.partition(".")[0]
        if module not in sys.stdlib_module_names and module != "ngvi":
            yield module, at_once


def extra_of(file: Path) -> set[str]:
    """What packages around a file ask for with `extra(name, ...)` as they begin."""
    asked: set[str] = set()
    for folder in file.parents:
        begin = folder / "__init__.py"
        if folder == ROOT or not begin.exists():
            break
        for name in re.findall(r'^with extra\("(\w+)"', begin.read_text(), re.M):
            asked |= EXTRAS[name]
    return asked


FILES = sorted((ROOT / "ngvi").rglob("*.py"))
ZOO = sorted((ROOT / "models").glob("*.py"))


def test_what_is_imported_at_once_is_declared() -> None:
    for file in FILES:
        needed = {module for module, at_once in imports(file) if at_once}
        lacking = needed - BASE - extra_of(file)
        assert not lacking, f"{file.relative_to(ROOT)} imports {lacking}"


def test_what_is_imported_later_is_in_an_extra() -> None:
    known = BASE.union(*EXTRAS.values())
    for file in [*FILES, *ZOO]:
        lacking = {module for module, _ in imports(file)} - known
        assert not lacking, f"{file.relative_to(ROOT)} imports {lacking}"


def test_what_is_declared_is_imported() -> None:
    library = {module for file in FILES for module, _ in imports(file)}
    zoo = {module for file in ZOO for module, _ in imports(file)}
    assert library >= BASE - set(OTHERWISE_NEEDED)
    assert '"h5netcdf"' in (ROOT / "ngvi/bayes/archive.py").read_text()
    for name, modules in EXTRAS.items():
        assert modules <= (zoo if name == "zoo" else library), name


def test_the_licence_and_the_types_are_shipped() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["license-files"] == [
        "LICENSE"
    ]
    assert (ROOT / "ngvi" / "py.typed").exists()


def test_one_version_everywhere() -> None:
    version = PROJECT["version"]
    assert f'__version__ = "{version}"' in (ROOT / "ngvi/__init__.py").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"to be {version}." in changes or f"## [{version}]" in changes
