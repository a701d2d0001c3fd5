"""Search over several spaces at once: q(x, y, …) = q₁(x) q₂(y) …

The Fisher matrix of a product is block diagonal, so its natural gradient is each
factor's: every part is a search of its own, told the same values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
from jaxtyping import Array, Float, Key

from ngvi.families import Gaussian, Product
from ngvi.nes import discrete, search
from ngvi.nes.discrete import Discrete
from ngvi.nes.strategies import Strategy

State = tuple[search.State | discrete.State, ...]
"""Of each part."""


@dataclass(frozen=True)
class Mixed:
    """The parts' strategies, all of one popsize; hashable.

    Example:
        >>> from ngvi.nes.strategies import cma
        >>> strategy = Mixed((cma(3, popsize=12), discrete.natural(5, popsize=12)))
        >>> strategy.popsize
        12
    """

    parts: tuple[Strategy | Discrete, ...]

    def __post_init__(self) -> None:
        sizes = {part.popsize for part in self.parts}
        if len(sizes) != 1:
            raise ValueError(
                f"the parts of a mixed search need one popsize, got {sorted(sizes)}"
            )

    @property
    def popsize(self) -> int:
        """How many draws a generation has."""
        return self.parts[0].popsize


def init(strategy: Mixed, q: Product) -> State:
    """The state before the first generation.

    Args:
        strategy: see `Mixed`.
        q: where the search starts; its `factors` are a tuple, a `Gaussian` for each
            `Strategy`, of its structure, and discrete variables for each `Discrete`.

    Raises:
        TypeError: a factor that its part cannot move.
    """
    states: list[search.State | discrete.State] = []
    for part, factor in zip(strategy.parts, q.factors, strict=True):
        if isinstance(part, Discrete):
            states.append(discrete.init(part, factor))
        elif not isinstance(factor, Gaussian):
            raise TypeError(f"expected a Gaussian, got {type(factor).__name__}")
        elif not isinstance(factor.precision, part.structure):
            raise TypeError(
                f"this strategy moves a {part.structure.__name__} precision, got a "
                f"{type(factor.precision).__name__} one"
            )
        else:
            start = search.init(part, factor.mean, 1.0)
            states.append(replace(start, q=factor))
    return tuple(states)


def ask(strategy: Mixed, state: State, key: Key[Array, ""]) -> tuple[Any, ...]:
    """A generation of draws of each part; `place` turns them into points."""
    keys = jax.random.split(key, len(strategy.parts))
    return tuple(
        _of(part).ask(part, one, k)
        for part, one, k in zip(strategy.parts, state, keys, strict=True)
    )


def place(state: State, draws: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where the draws lie, part by part: an event of the product."""
    return tuple(
        one.q.place(d) if isinstance(one, search.State) else d
        for one, d in zip(state, draws, strict=True)
    )


def tell(
    strategy: Mixed, state: State, draws: tuple[Any, ...], values: Float[Array, "n"]
) -> State:
    """The state after a generation.

    Args:
        strategy: see `Mixed`.
        state: that the draws were asked of.
        draws: as `ask` returned them.
        values: the objective at their points, to be minimised; NaN ranks last.
    """
    return tuple(
        _of(part).tell(part, one, d, values)
        for part, one, d in zip(strategy.parts, state, draws, strict=True)
    )


def _of(part: Strategy | Discrete) -> Any:
    """The module whose functions move such a part."""
    return discrete if isinstance(part, Discrete) else search
