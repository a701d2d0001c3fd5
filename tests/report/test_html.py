"""The report: whole, self-contained, escaped, and never stopped by bad numbers."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

import ngvi.report
from ngvi.report import render, write

PAGE = Path(ngvi.report.__file__).parent
SECTIONS = {
    "fit_history": "Convergence",
    "posterior": "Marginals",
    "posterior_predictive": "Posterior predictive check",
    "observed_data": "Posterior predictive check",
    "sample_stats": "Importance weights",
}


def test_page_is_well_formed_and_stands_alone(archive, parse):
    html = render(archive)
    page = parse(html)
    assert html.startswith("<!DOCTYPE html>")
    assert page.tags.count("svg") >= 10
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|@import|\bsrc=", html)
    for key, value in page.attributes:
        if key in {"href", "xlink:href"}:
            assert value.startswith("#"), value
    for target in re.findall(r"url\(([^)]*)\)", html):
        assert target.startswith("#"), target


def test_pictures_refer_to_identifiers_that_exist_once(archive, parse):
    html = render(archive)
    page = parse(html)
    assert len(page.ids) == len(set(page.ids))
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', html))
    assert used
    assert {a or b for a, b in used} <= set(page.ids)


def test_pictures_follow_the_colour_scheme(archive):
    html = render(archive)
    svgs = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.S))
    # All colours are variables of the page: a fixed one suits only one of the modes.
    assert re.findall(r"#[0-9a-f]{6}\b", svgs) == []
    for variable in set(re.findall(r"var\((--[a-z-]+)\)", html)) - {"--tone", "--tint"}:
        assert html.count(f" {variable}: ") == 2, f"{variable} needs light and dark"
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize(
    ("level", "tone"),
    [("trustworthy", "good"), ("means only", "fair"), ("do not trust", "bad")],
)
def test_verdict_with_every_reason_and_advice(archive, level, tone, parse):
    archive.record["verdict"] = {
        "level": level,
        "reasons": ["k-hat is 0.83 > 0.7 & rising.", "<script>alert(1)</script>"],
        "advice": ["Try a <b>smaller</b> model."],
    }
    html = render(archive)
    page = parse(html)
    assert f'class="verdict {tone}"' in html
    assert level.capitalize() in page.text
    assert "k-hat is 0.83 > 0.7 & rising." in page.text
    assert "Try a <b>smaller</b> model." in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "script" not in page.tags and "b" not in page.tags


def test_key_numbers(archive, parse):
    text = parse(render(archive)).text
    for expected in (
        "eight_schools",
        "\N{MINUS SIGN}31.545",
        "0.83",
        "1,840",
        "3 steps rejected",
        "3.21 s",
        "0.18 s",
        "Stopped: the Fisher length fell below 0.001.",
        "full covariance",
        "seed 7",
    ):
        assert expected in text, expected


def test_table_shows_the_summary(archive, parse):
    text = parse(render(archive)).text.replace("\N{FIGURE SPACE}", "")
    assert "theta[0] 6.47 9.61 -2.06 5.43 18.14 0.21" in text
    assert "mcse" in text


def test_long_table_is_capped_and_says_so(archive, parse):
    row = archive.record["summary"]["data"][0]
    archive.record["summary"]["index"] = [f"x[{i}]" for i in range(1234)]
    archive.record["summary"]["data"] = [row] * 1234
    page = parse(render(archive))
    assert page.tags.count("tr") == 201
    assert "first 200 of 1,234 rows" in page.text


def test_markup_in_names_is_escaped(archive, make_dataset, parse):
    evil = '<b>$x$ & "y"\'</b>'
    renamed = {"mu": evil}
    archive.groups["posterior"] = archive.groups["posterior"].rename(renamed)
    archive.groups["prior"] = archive.groups["prior"].rename(renamed)
    for group in ("posterior_predictive", "observed_data", "log_likelihood"):
        archive.groups[group] = archive.groups[group].rename(y=evil)
    archive.record["latent_sites"] = [evil, "tau"]
    archive.record["summary"]["index"][0] = evil
    archive.record["summary"]["columns"][0] = "<i>mean</i>"
    archive.record["model"] = "</title><script>x</script>"
    archive.record["diagnostics"]["stop_reason"] = "<u>why</u>"
    archive.record["diagnostics"]["covariance"] = "<s>full</s>"
    archive.record["diagnostics"]["elbo"] = "<em>1</em>"
    page = parse(render(archive))
    assert not {"b", "i", "u", "s", "em", "script"} & set(page.tags)
    assert evil in page.text
    assert "<em>1</em>" in page.text


@pytest.mark.parametrize("group", SECTIONS)
def test_a_missing_group_leaves_its_section_out_and_says_so(archive, group, parse):
    whole = parse(render(archive)).text
    assert "Left out" not in whole
    del archive.groups[group]
    text = parse(render(archive)).text
    assert re.search(SECTIONS[group] + " Left out: [^.]+\\.", text)


def test_an_empty_archive_still_gives_a_page(archive, parse):
    archive.groups, archive.record = {}, {}
    text = parse(render(archive)).text
    assert "Unnamed model" in text
    assert text.count("Left out") == 6


def test_groups_without_draws_count_as_missing(archive, parse):
    archive.groups["posterior"] = archive.groups["posterior"].isel(draw=slice(0))
    assert "no posterior draws" in parse(render(archive)).text


def test_same_archive_same_page_and_archive_untouched(archive):
    before = copy.deepcopy(archive)
    assert render(archive) == render(archive)
    assert archive.record == before.record
    for name, group in archive.groups.items():
        xr.testing.assert_identical(group, before.groups[name])


def test_drawing_leaves_no_trace_in_matplotlib(archive):
    import matplotlib as mpl

    with mpl.rc_context({"text.usetex": True, "text.color": "magenta"}):
        before = dict(mpl.rcParams)
        html = render(archive)
        assert dict(mpl.rcParams) == before
    assert html == render(archive)


def test_write_makes_the_folder_and_returns_the_path(archive, tmp_path):
    path = write(archive, str(tmp_path / "new" / "report.html"))
    assert path == tmp_path / "new" / "report.html"
    assert path.read_text(encoding="utf-8") == render(archive)


def test_importing_the_package_loads_nothing_heavy():
    # The parent package is replaced by an empty one, since it has imports of its own.
    code = f"""
import sys, types
parent = types.ModuleType("ngvi")
parent.__path__ = [{str(PAGE.parent)!r}]
sys.modules["ngvi"] = parent
import ngvi.report
heavy = {{"matplotlib", "pandas", "xarray", "arviz", "scipy", "jax", "tqdm"}}
print(sorted(heavy & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
