"""Search over discrete spaces: the same update, in mean parameters.

    μ⁺ = μ + η Σ uᵢ (T(xᵢ) − μ),   xᵢ ~ q,

with weights uᵢ by rank, is the natural gradient of the expected utility for any family:
of Bernoulli and categorical variables T are indicators and μ probabilities, of integers
(Poisson, geometric) T is the number itself. Members:

| strategy    | draws | weights, best first | η      | margin |
|-------------|-------|---------------------|--------|--------|
| PBIL        | n     | 1, 0, …, 0          | 0.1    | 0.001  |
| compact GA  | 2     | 1, −1               | 1/K    | 1/V    |
| UMDA        | n     | 1/⌊n/2⌋, …, 0, …    | 1      | 1/V    |
| natural     | n     | as xNES             | adapts | 1/V    |

by default, with V counted as 4 at least. A probability of 0 or 1 could never change
again, so every class of K keeps at least margin/(K − 1), and the mean of integers at
least the margin.

The natural strategy fixes the length of its steps in the Fisher metric, so that it
knows no units, and lengthens them while they agree more than noise would.

Source: Baluja (1994), Population-based incremental learning; Harik, Lobo and Goldberg
(1999), The compact genetic algorithm; Akimoto, Shirakawa, Yoshinari, Uchida, Saito and
Nishida (2019), Adaptive stochastic natural gradient method.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families import (
    Bernoulli,
    Categorical,
    ExponentialFamily,
    Geometric,
    Poisson,
    Product,
)
from ngvi.families.base import Params
from ngvi.mirror.step import mean_step
from ngvi.nes.checks import check_popsize
from ngvi.nes.shaping import by_rank, nes_weights
from ngvi.nes.strategies import checked_popsize
from ngvi.pytrees import pytree

_NOISE = 1.5
"""α: how much longer than of pure noise a path must be for steps to lengthen."""


@dataclass(frozen=True)
class Discrete:
    """How a search distribution over discrete variables moves; hashable."""

    weights: tuple[float, ...]
    """By rank, best first."""
    rate: float
    """η; of an adaptive strategy the first step's length in the Fisher metric."""
    margin: float
    """What every variable keeps for the classes that are out of favour."""
    adaptive: bool = False
    """Whether steps have a length in the Fisher metric, and it adapts."""

    @property
    def popsize(self) -> int:
        """How many draws a generation has."""
        return len(self.weights)


@pytree
class State:
    """What the next generation needs."""

    q: ExponentialFamily
    length: Float[Array, ""]
    """δ, of the steps of an adaptive strategy."""
    path: Params
    """s, the steps' directions added up, in whitened coordinates."""
    mass: Float[Array, ""]
    """γ, what ‖s‖² would be of independent directions."""


def natural(
    variables: int, popsize: int | None = None, margin: float | None = None
) -> Discrete:
    """The natural gradient with a step length that adapts.

    Args:
        variables: V, how many variables there are.
        popsize: how many draws a generation has.
        margin: 1/max(V, 4) by default, which tries one other class a draw on
            average. Beside continuous variables, whose steps are as small as those
            trials are large, 0.3/V is better.
    """
    count = checked_popsize(variables, popsize)
    weights = nes_weights(count)
    margin = _margin(variables) if margin is None else margin
    return Discrete(tuple(weights.tolist()), 1.0, margin, adaptive=True)


def pbil(popsize: int, rate: float = 0.1, margin: float = 1e-3) -> Discrete:
    """Population-based incremental learning: towards the best of n."""
    count = check_popsize(popsize)
    return Discrete((1.0,) + (0.0,) * (count - 1), rate, margin)


def compact_ga(variables: int, population: float | None = None) -> Discrete:
    """The compact genetic algorithm: each step moves 1/K from the worse of two draws to
    the better.

    Args:
        variables: V.
        population: K, of the genetic algorithm it stands for; √V log V by default.
    """
    usual = math.sqrt(variables) * math.log(max(variables, 3))
    population = usual if population is None else population
    return Discrete((1.0, -1.0), 1 / population, _margin(variables))


def umda(variables: int, popsize: int) -> Discrete:
    """The univariate marginal distribution algorithm: refit to the better half."""
    count = check_popsize(popsize)
    half = count // 2
    weights = (1 / half,) * half + (0.0,) * (count - half)
    return Discrete(weights, 1.0, _margin(variables))


def _margin(variables: int) -> float:
    return 1 / max(variables, 4)


def init(strategy: Discrete, q: ExponentialFamily) -> State:
    """The state before the first generation.

    Args:
        strategy: see `Discrete`.
        q: where the search starts: a batch of `Bernoulli`, `Categorical`, `Poisson` or
            `Geometric` variables, or a `Product` of such.
    """
    _inside(q, strategy.margin, q.mean_params)
    path = jax.tree.map(jnp.zeros_like, _whiten(q, q.mean_params))
    length = jnp.asarray(strategy.rate, q.dtype)
    return State(q, length, path, jnp.zeros_like(length))


def ask(strategy: Discrete, state: State, key: Key[Array, ""]) -> Any:
    """A generation of points, with a leading axis of `popsize`."""
    return state.q.sample(key, (strategy.popsize,))


def tell(strategy: Discrete, state: State, x: Any, values: Float[Array, "n"]) -> State:
    """The state after a generation.

    Args:
        strategy: see `Discrete`.
        state: that the points were asked of.
        x: the points.
        values: the objective at the points, to be minimised; NaN ranks last.
    """
    q = state.q
    u = by_rank(values, jnp.asarray(strategy.weights, q.dtype))
    descent = jax.tree.map(
        lambda t, m: -jnp.tensordot(u, t - m, 1),
        q.sufficient_statistics(x),
        q.mean_params,
    )
    inside = partial(_inside, q, strategy.margin)
    if not strategy.adaptive:
        return replace(state, q=mean_step(q, descent, strategy.rate, inside))
    step = _whiten(q, descent)
    norm = jnp.sqrt(_square(step)) + jnp.finfo(q.dtype).tiny ** 0.5
    moved = mean_step(q, descent, state.length / norm, inside)

    size = sum(leaf.size for leaf in jax.tree.leaves(step))
    memory = jnp.minimum(state.length / math.sqrt(size), 1)
    weight = jnp.sqrt(memory * (2 - memory))
    path = jax.tree.map(
        lambda p, s: (1 - memory) * p + weight * s / norm, state.path, step
    )
    mass = (1 - memory) ** 2 * state.mass + weight**2
    growth = memory * (_square(path) / _NOISE - mass)
    return State(moved, state.length * jnp.exp(growth), path, mass)


def _square(tree: Params) -> Float[Array, ""]:
    return sum((leaf**2).sum() for leaf in jax.tree.leaves(tree))


def _each_factor(function: Callable[..., Any], q: ExponentialFamily, tree: Any) -> Any:
    """The function of every factor and its part of the tree."""
    factors = q.factors if isinstance(q, Product) else q
    return jax.tree.map(
        function, factors, tree, is_leaf=lambda f: isinstance(f, ExponentialFamily)
    )


def _whiten(q: ExponentialFamily, params: Params) -> Params:
    """Vectors whose lengths are those of the Fisher metric, of small changes of μ."""
    return _each_factor(lambda f, p: f.fisher.whiten_gradient(f.flatten(p)), q, params)


def _inside(q: ExponentialFamily, margin: float, params: Params) -> Params:
    """Mean parameters at least the margin off the border, see the module."""
    return _each_factor(partial(_factor_inside, margin), q, params)


def _factor_inside(margin: float, q: ExponentialFamily, params: Array) -> Array:
    if isinstance(q, Bernoulli):
        return jnp.clip(params, margin, 1 - margin)
    if isinstance(q, Categorical):
        return _inside_simplex(params, margin / params.shape[-1])
    if isinstance(q, Poisson | Geometric):
        return jnp.maximum(params, margin)
    raise TypeError(
        "a discrete search is over Bernoulli, Categorical, Poisson and Geometric "
        f"variables and products of them, got {type(q).__name__}"
    )


def _inside_simplex(
    free: Float[Array, "*b k-1"], least: float
) -> Float[Array, "*b k-1"]:
    """All K probabilities at least so much; what is above it pays for what was not."""
    p = jnp.concatenate([free, 1 - free.sum(-1, keepdims=True)], -1)
    above = jnp.maximum(p - least, 0)
    room = 1 - least * p.shape[-1]
    return (least + room * above / above.sum(-1, keepdims=True))[..., :-1]
