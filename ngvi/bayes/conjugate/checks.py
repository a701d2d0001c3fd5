"""What the estimators hold their settings to, and how they say they are not done."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ngvi.families import Gamma


def check_whole(estimator: Any, **least: int) -> None:
    """Hold settings to whole numbers, each to its least or more.

    Raises:
        ValueError: one is not.
    """
    for name, smallest in least.items():
        value = getattr(estimator, name)
        if not isinstance(value, Integral) or value < smallest:
            raise ValueError(
                f"{name} must be a whole number, {smallest} or more, got {value!r}"
            )


def check_one_of(estimator: Any, name: str, known: tuple[str, ...]) -> None:
    """Hold a setting to one of a few names.

    Raises:
        ValueError: it is none.
    """
    value = getattr(estimator, name)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def check_steps(estimator: Any) -> None:
    """Hold the settings of stochastic steps to where these converge.

    Raises:
        ValueError: one is elsewhere.
    """
    if estimator.batch_size is not None:
        check_whole(estimator, batch_size=1)
    if not estimator.learning_offset >= 0:
        raise ValueError(
            f"learning_offset must be 0 or more, got {estimator.learning_offset!r}"
        )
    if not 0.5 < estimator.learning_decay <= 1:
        raise ValueError(
            "learning_decay must be above 0.5 and at most 1, for stochastic steps to "
            f"converge, got {estimator.learning_decay!r}"
        )


def gamma_prior(estimator: Any, name: str) -> Gamma:
    """The Gamma distribution that a setting names by concentration and rate.

    Raises:
        ValueError: they are not two positive numbers.
    """
    given = np.asarray(getattr(estimator, name), float)
    if given.shape != (2,) or not (given > 0).all():
        raise ValueError(
            f"{name} must be the concentration and the rate of a Gamma distribution, "
            f"both positive, got {getattr(estimator, name)!r}"
        )
    return Gamma(*(jnp.asarray(v, jnp.result_type(float)) for v in given))


def warn_of_rising(max_iter: int) -> None:
    """Say that the bound still rose, to the caller of the calling `fit`."""
    warnings.warn(
        f"the bound still rose after {max_iter} iterations: raise max_iter or tol",
        ConvergenceWarning,
        stacklevel=3,
    )
