"""The documentation is whole: pages are in the navigation, links lead somewhere, what
the text names exists, and the gallery has every example. The site itself is built by
`make docs`."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
import yaml

import ngvi

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def leaves(nav):
    """The paths in a navigation of lists and dicts."""
    if isinstance(nav, str):
        return [nav]
    below = nav.values() if isinstance(nav, dict) else nav
    return [path for part in below for path in leaves(part)]


def test_every_page_is_in_the_navigation_once():
    nav = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(nav) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


def test_every_relative_link_leads_to_a_file():
    broken = []
    for page in [ROOT / "README.md", *PAGES]:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path = target.partition("#")[0]
            if path and ":" not in path and not (page.parent / path).is_file():
                broken.append(f"{page.name}: {target}")
    assert not broken


PEERS = {"Predictive", "minimize"}
"""Bare names in the text that are NumPyro's and SciPy's."""
FILES = {"posterior.nc"}


def public():
    """What the text may name: public names of the packages, and a posterior."""
    packages = ("", ".families", ".fisher", ".linalg", ".nes", ".nets")
    found = {"ngvi": ngvi, "posterior": ngvi.Posterior}
    for name in (*packages, ".mirror", ".nets.optimizers"):
        package = importlib.import_module(f"ngvi{name}")
        found |= {key: getattr(package, key) for key in package.__all__}
    return {key: value for key, value in found.items() if key not in PEERS}


def named(node, names):
    """What an expression of dotted names stands for; None if that is not ours."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if not isinstance(node, ast.Attribute) or ast.unparse(node) in FILES:
        return None
    holder = named(node.value, names)
    if inspect.ismodule(holder) and not hasattr(holder, node.attr):
        return importlib.import_module(f"{holder.__name__}.{node.attr}")
    if inspect.ismodule(holder) or holder is ngvi.Posterior:
        return getattr(holder, node.attr)
    return None


def nodes_of_code_spans(page):
    """(Span, node) for all that is Python between backquotes, outside of blocks."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for line in re.findall(r"`([^`]+)`", text):
        for span in line.split("; "):
            try:
                tree = ast.parse(span.strip().replace("…", "..."))
            except SyntaxError:
                continue
            yield from ((span, node) for node in ast.walk(tree))


def unknown_arguments(node, function):
    """Keywords of a call that the function does not take."""
    taken = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return set()
    given = {keyword.arg for keyword in node.keywords}
    return given - {parameter.name for parameter in taken}


def test_names_and_arguments_in_the_text_exist():
    names, wrong, calls = public(), [], 0
    for page in [ROOT / "README.md", *PAGES]:
        for span, node in nodes_of_code_spans(page):
            try:
                found = named(getattr(node, "func", node), names)
            except (AttributeError, ImportError) as error:
                wrong.append(f"{page.name}: {span}: {error}")
                continue
            if isinstance(node, ast.Call) and callable(found):
                calls += 1
                if unknown := unknown_arguments(node, found):
                    wrong.append(f"{page.name}: {span}: no argument {unknown}")
    assert not wrong
    assert calls > 50


@pytest.mark.parametrize("page", ["nes", "fisher", "nets", "optimizers"])
def test_a_page_that_orders_a_package_has_all_of_it(page):
    text = (DOCS / "api" / f"{page}.md").read_text()
    package, members = re.search(
        r"::: (\S+)\n.*?members: \[(.*?)\]", text, re.S
    ).groups()
    exported = importlib.import_module(package).__all__
    assert sorted(re.findall(r"\w+", members)) == sorted(exported)


def test_the_gallery_has_every_example_and_small_pictures():
    entries = (DOCS / "gallery.md").read_text().split("\n### ")[1:]
    shown = [re.search(r"\]\(\.\./examples/(\w+)\.py\)", e).group(1) for e in entries]
    assert sorted(shown) == sorted(path.stem for path in ROOT.glob("examples/*.py"))
    for name, entry in zip(shown, entries, strict=True):
        assert "```text" in entry
        pictures = re.findall(r"^out/(\w+)\.png", entry, re.MULTILINE)
        assert pictures == re.findall(r"gallery/(\w+)\.webp", entry)
        assert set(pictures) <= {name}
    sizes = [path.stat().st_size for path in DOCS.glob("pictures/gallery/*")]
    assert max(sizes) < 60_000 and sum(sizes) < 1_000_000
