"""What a user gave is checked: everything at first, and again what can have changed."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.fisher import fisher
from ngvi.fisher.likelihoods import Categorical

PARAMS, X = {"w": jnp.ones((2, 3))}, jnp.eye(4, 2)


def apply(params: Any, x: jax.Array) -> jax.Array:
    return x @ params["w"]


def of_labels(y: Any, likelihood: Any = "categorical") -> None:
    options = {"likelihood": likelihood, "structure": "diagonal"}
    fisher(apply, PARAMS, (X, y), kind="empirical", **options)


def test_an_array_of_labels_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    check = Categorical.check_labels
    monkeypatch.setattr(
        Categorical,
        "check_labels",
        lambda self, outputs, y: looks.append(1) or check(self, outputs, y),
    )
    y = jnp.array([0, 2, 1, 1])
    of_labels(y)
    of_labels(y)
    assert len(looks) == 1
    of_labels(y + 0)
    of_labels(y, Categorical())
    assert len(looks) == 3


def test_labels_are_held_to_each_likelihood() -> None:
    y = jnp.array([0, 2, 1, 1])
    of_labels(y)
    for _ in range(2):
        with pytest.raises(ValueError, match="labels have shape"):
            of_labels(y, "gaussian")
    with pytest.raises(ValueError, match="0 to 2, got 3 at index 1"):
        of_labels(y.at[1].set(3))


def test_labels_that_are_changed_in_place_are_looked_at_again() -> None:
    y = np.array([0, 2, 1, 1])
    of_labels(y)
    y[3] = 7
    with pytest.raises(ValueError, match="0 to 2, got 7 at index 3"):
        of_labels(y)
