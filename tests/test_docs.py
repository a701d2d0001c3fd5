"""The documentation is whole: pages are in the navigation, links lead somewhere, and
the gallery has every example. The site itself is built by `make docs`."""

import re
from pathlib import Path

import yaml

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
