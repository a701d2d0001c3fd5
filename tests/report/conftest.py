"""A small archive with every group, as a fit leaves it, and a strict HTML parser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import xarray as xr

VOID = {"meta", "link", "br", "hr", "img", "input"}


@dataclass
class FakeArchive:
    groups: dict[str, xr.Dataset] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)


def dataset(**sites: np.ndarray) -> xr.Dataset:
    """Return draws of shape (S, *site) as a data set with one chain."""
    arrays = {}
    for name, values in sites.items():
        dims = [f"{name}_dim_{i}" for i in range(values.ndim - 1)]
        arrays[name] = (["chain", "draw", *dims], values[None])
    return xr.Dataset(arrays)


def build(draws: int = 200) -> FakeArchive:
    """Return a well-behaved archive; tests spoil what they are about."""
    random = np.random.default_rng(0)
    mu = random.normal(4.0, 3.0, draws)
    tau = np.exp(random.normal(0.5, 1.0, draws))
    theta = mu[:, None] + tau[:, None] * random.normal(size=(draws, 3))
    observed = np.array([28.0, 8.0, -3.0])
    iteration = np.arange(1, 13)
    history = xr.Dataset(
        {
            "elbo": ("iteration", -31.5 - np.exp(3.0 - iteration)),
            "fisher_length": ("iteration", np.exp(-1.0 * iteration)),
            "step": ("iteration", np.ones(12)),
            "draws": ("iteration", np.where(iteration < 9, 40, 80)),
            "seconds": ("iteration", 0.01 * iteration),
        },
        {"iteration": iteration},
    )
    log_q = random.normal(size=draws)
    log_weight = 0.3 * random.normal(size=draws)
    groups = {
        "posterior": dataset(mu=mu, tau=tau, theta=theta),
        "prior": dataset(mu=5.0 * random.normal(size=draws)),
        "sample_stats": dataset(
            lp=log_q + log_weight, log_q=log_q, log_weight=log_weight
        ),
        "fit_history": history,
        "posterior_predictive": dataset(y=theta + 10 * random.normal(size=(draws, 3))),
        "log_likelihood": dataset(y=-0.005 * (observed - theta) ** 2),
        "observed_data": xr.Dataset({"y": ("y_dim_0", observed)}),
    }
    record = {
        "model": "eight_schools",
        "ngvi": "0.1.0",
        "verdict": {
            "level": "means only",
            "reasons": ["k-hat is 0.83.", "The tails of tau are heavy."],
            "advice": ["Reweight the draws."],
        },
        "diagnostics": {
            "elbo": -31.5452,
            "iterations": 12,
            "gradient_evaluations": 1840,
            "value_evaluations": 2210,
            "rejected_steps": 3,
            "draws": 80,
            "seconds_compiling": 3.21,
            "seconds_running": 0.184,
            "fisher_length": 3.1e-4,
            "khat": 0.83,
            "converged": True,
            "stop_reason": "the Fisher length fell below 0.001",
            "covariance": "full",
            "dimension": 5,
            "seed": 7,
        },
        "latent_sites": ["mu", "tau"],
        "gaussian": {"names": ["mu", "tau"]},
        "summary": {
            "index": ["mu", "tau", "theta[0]"],
            "columns": ["mean", "sd", "q5", "median", "q95", "mcse"],
            "data": [
                [4.381, 3.294, -0.812, 4.333, 9.901, 0.0741],
                [4.171, 6.212, 0.361, 2.271, 14.46, 0.1412],
                [6.471, 9.612, -2.061, 5.431, 18.14, 0.2112],
            ],
        },
    }
    return FakeArchive(groups, record)


class Page(HTMLParser):
    """Parses a page, insisting that every element is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def archive() -> FakeArchive:
    return build()


@pytest.fixture
def make_dataset() -> Callable[..., xr.Dataset]:
    return dataset


@pytest.fixture
def parse() -> type[Page]:
    return Page
