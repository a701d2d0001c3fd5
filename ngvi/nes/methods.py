"""The strategies by name, and which of them is for which problem."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ngvi.nes.strategies import (
    Strategy,
    cma,
    cr_fm_nes,
    isotropic_nes,
    pgpe,
    snes,
    spiked_cma,
    xnes,
)

# A full covariance costs D³ operations a generation, and about 10 D² evaluations to
# learn; beyond this neither pays within the default budget.
LARGEST_FULL = 200

# Of the budget, at most this share for finding out whether the objective is a sum over
# coordinates; beyond so many of those its bookkeeping is too slow.
_SHARE_OF_AXES = 1 / 20
_LARGEST_AXES = 1_000
# A quadratic model has D²/2 coefficients, and D⁶/8 operations find them.
_LARGEST_MODEL = 30

METHODS: dict[str, Callable[[int, int | None], Strategy]] = {
    "cma": cma,
    "sep-cma": partial(cma, separable=True),
    "spiked-cma": spiked_cma,
    "lra-cma": partial(cma, adaptive=True),
    "cr-fm-nes": cr_fm_nes,
    "xnes": xnes,
    "xnes-as": partial(xnes, adaptive=True),
    "snes": snes,
    "snes-as": partial(snes, adaptive=True),
    "isotropic": isotropic_nes,
    "pgpe": pgpe,
}


def choose_method(method: str, dim: int) -> str:
    """What "auto" means for D dimensions.

    Raises:
        ValueError: an unknown name.
    """
    if method == "auto":
        return "cma" if dim <= LARGEST_FULL else "sep-cma"
    if method not in METHODS:
        known = ", ".join(map(repr, ["auto", *METHODS]))
        raise ValueError(f"method must be one of {known}, not {method!r}")
    return method


def make_strategy(method: str, dim: int, popsize: int | None = None) -> Strategy:
    """The strategy of a name.

    Raises:
        ValueError: an unknown name, or a population of fewer than two.
    """
    return METHODS[choose_method(method, dim)](dim, popsize)


def tries_axes(method: str, dim: int, budget: int) -> bool:
    """Whether a search is to begin along the axes, see `ngvi.nes.axes`."""
    affordable = dim + 2 <= _SHARE_OF_AXES * budget
    return method == "auto" and 2 <= dim <= _LARGEST_AXES and affordable


def uses_surrogate(method: str, dim: int) -> bool:
    """Whether a quadratic model is worth its time, see `ngvi.nes.surrogate`."""
    return method == "auto" and 2 <= dim <= _LARGEST_MODEL
