"""The pictures of a report: what they show, and that no number can stop them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import xarray as xr

from ngvi.report import render


def test_many_quantities_are_capped_and_small_sites_come_first(
    archive, make_dataset, parse
):
    random = np.random.default_rng(1)
    archive.groups["posterior"] = make_dataset(
        weights=random.normal(size=(200, 500)), sigma=random.normal(size=200)
    )
    archive.record["latent_sites"] = ["weights", "sigma"]
    html = render(archive)
    assert html.count('aria-label="Distribution of ') == 24
    assert 'aria-label="Distribution of sigma"' in html
    assert "24 of 501 quantities" in parse(html).text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draws", [1, 2, 30])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: np.full_like(x, np.nan),
        lambda x: np.full_like(x, np.inf),
        lambda x: np.full_like(x, -np.inf),
        lambda x: np.where(np.arange(x.size).reshape(x.shape) % 3, x, np.nan),
        np.ones_like,
        np.zeros_like,
        lambda x: 1e308 * np.sign(x),
        lambda x: 5e-324 * np.sign(x),
        lambda x: 1e9 + 1e-8 * x,
        lambda x: np.exp(np.clip(100 * x, -700, 700)),
    ],
    ids=[
        "nan",
        "inf",
        "-inf",
        "mixed",
        "ones",
        "zeros",
        "huge",
        "denormal",
        "close",
        "heavy",
    ],
)
def test_no_number_stops_the_report(archive, spoil, draws, parse):
    for name, group in archive.groups.items():
        if "draw" in group.dims:
            group = group.isel(draw=slice(draws))
        archive.groups[name] = group.map(lambda array: array.copy(data=spoil(
            array.to_numpy().astype(float))))  # fmt: skip
    first = float(archive.groups["posterior"]["mu"][0, 0])
    numbers = archive.record["diagnostics"]
    for key in ("elbo", "khat", "fisher_length", "iterations", "seconds_running"):
        numbers[key] = first
    archive.record["summary"]["data"] = [[first] * 6, [None] * 6, [float("nan")] * 6]
    parse(render(archive))


def test_kinds_of_observations(archive, make_dataset, parse):
    random = np.random.default_rng(2)
    sites = {
        "yes": random.integers(0, 2, (50, 120)),
        "counts": random.poisson(3.0, (50, 120)),
        "lengths": random.normal(size=(50, 120)),
        "bad_shape": random.normal(size=(50, 4)),
        "fifth": random.normal(size=(50, 4)),
    }
    archive.groups["posterior_predictive"] = make_dataset(**sites)
    archive.groups["observed_data"] = xr.Dataset(
        {
            name: (f"{name}_obs", values[0][: 3 if name == "bad_shape" else None])
            for name, values in sites.items()
        }
    )
    text = parse(render(archive)).text
    assert "grouped by their predicted probability" in text
    assert "How often each value occurs" in text
    assert "The distribution of the observations" in text
    assert "bad_shape is left out: the observations have shape (3,)" in text
    assert "Not shown: fifth" in text


def test_the_strongest_correlation_is_named(archive, make_dataset, parse):
    random = np.random.default_rng(3)
    x = random.normal(size=(400, 6))
    x[:, 4] = -0.95 * x[:, 1] + 0.1 * x[:, 4]
    archive.groups["posterior"] = make_dataset(x=x, copy=x[:, 0])
    archive.record["latent_sites"] = ["x"]
    text = parse(render(archive)).text
    expected = f"{np.corrcoef(x[:, 1], x[:, 4])[0, 1]:.2f}".replace(
        "-", "\N{MINUS SIGN}"
    )
    assert f"x[1] and x[4] have correlation {expected}" in text


def test_without_matplotlib_the_words_remain(archive, monkeypatch, parse):
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = parse(render(archive))
    assert "svg" not in page.tags
    assert "pip install 'ngvi[plots]'" in page.text
    assert "k-hat is 0.83." in page.text
    assert "theta[0]" in page.text
    assert "largest weight is" in page.text
