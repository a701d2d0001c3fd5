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
