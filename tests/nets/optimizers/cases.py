"""The optimisers of the package, and problems that all of them solve.

A new optimiser is one row of `CASES`: how it is made for a problem, from a learning
rate or a schedule, and the rates it needs. A row may make a transformation of optax, or
an optimiser with `init(params, batch)` and `step(state, batch, key)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ngvi.fisher.likelihoods import as_likelihood
from ngvi.fisher.structures import LowRankStructure
from ngvi.nets.optimizers import (
    adahessian,
    diagonal,
    diagonal_fisher,
    ekfac,
    fisher_diagonal,
    gauss_newton,
    gauss_newton_bartlett,
    hessian_free,
    inverse_free_shampoo,
    kfac,
    natural_gradient,
    shampoo,
    singd,
    soap,
    sophia,
    squared_gradient,
    stochastic_natural_gradient,
)

RNG = np.random.default_rng(0)
CHUNK = 100
"""Steps of one compiled program."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A model, where it starts, its data, and the least loss there is."""

    name: str
    apply: Callable[[Any, Any], Any]
    likelihood: str
    start: Any
    batch: tuple[np.ndarray, np.ndarray]
    best: float
    tolerance: float
    chunks: int = 4
    """How often the program is run."""
    many: bool = False
    """Whether it is solved from two starts at once, under `vmap`."""

    def loss(self, params: Any) -> jax.Array:
        """The mean of −log p(y | f)."""
        x, y = self.cast(self.batch, jax.tree.leaves(params)[0].dtype)
        likelihood = as_likelihood(self.likelihood)
        return -jax.vmap(likelihood.log_prob)(self.apply(params, x), y).mean()

    def cast(self, tree: Any, dtype: Any) -> Any:
        """Floating leaves in another precision."""
        return jax.tree.map(
            lambda leaf: (
                jnp.asarray(leaf, dtype) if leaf.dtype == float else jnp.asarray(leaf)
            ),
            tree,
        )


def linear(params: Any, x: jax.Array) -> jax.Array:
    return x @ params["w"] + params["b"]


def rosenbrock(params: Any, x: jax.Array) -> jax.Array:
    """Its two residuals, over 10: ½ ‖f‖² is a two-hundredth of it."""
    a, b = params
    return jnp.stack([b - a**2, (1 - a) / 10])[None] * jnp.ones_like(x)


X = RNG.normal(size=(12, 3))
TRUTH = {"w": RNG.normal(size=(3, 2)), "b": RNG.normal(size=2)}
ZERO = jax.tree.map(np.zeros_like, TRUTH)
X_LOGISTIC = RNG.normal(size=(40, 3))
LABELS = (RNG.random((40, 2)) < 1 / (1 + np.exp(-linear(TRUTH, X_LOGISTIC)))) * 1


def _least_logistic_loss() -> float:
    """By Newton's method, a column of labels at a time."""
    x = np.column_stack([X_LOGISTIC, np.ones(len(X_LOGISTIC))])
    total = 0.0
    for y in LABELS.T:
        w = np.zeros(4)
        for _ in range(20):
            p = 1 / (1 + np.exp(-x @ w))
            w += np.linalg.solve(x.T * (p * (1 - p)) @ x, x.T @ (y - p))
        total += np.logaddexp(0, x @ w).mean() - (y * (x @ w)).mean()
    return total


NORMAL = np.log(2 * np.pi)
"""Of two residuals of zero, −log p."""
PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem(
            "parabola", linear, "gaussian", ZERO, (X, linear(TRUTH, X)), NORMAL, 1e-3
        ),
        Problem(
            "rosenbrock",
            rosenbrock,
            "gaussian",
            np.zeros(2),
            (np.ones((1, 2)), np.zeros((1, 2))),
            NORMAL,
            1e-4,
            chunks=25,
        ),
        Problem(
            "logistic",
            linear,
            "bernoulli",
            ZERO,
            (X_LOGISTIC, LABELS),
            _least_logistic_loss(),
            1e-3,
            many=True,
        ),
    )
}


@dataclass(frozen=True, eq=False)
class Case:
    """A row.

    Args:
        name: of the optimiser.
        make: of a problem and a learning rate, the optimiser.
        rate: the learning rate.
        rates: others, by the name of the problem.
    """

    name: str
    make: Callable[[Problem, Any], Any]
    rate: float = 0.1
    rates: tuple[tuple[str, float], ...] = ()

    def rate_for(self, problem: Problem) -> float:
        return dict(self.rates).get(problem.name, self.rate)


CASES = {
    case.name: case
    for case in (
        Case(
            "diagonal",
            lambda p, rate: diagonal(
                rate,
                fisher_diagonal(p.apply, p.likelihood),
                b2=0.9,
                eps=1e-3,
                power=1.0,
            ),
            rates=(("rosenbrock", 1.0),),
        ),
        Case(
            "adahessian",
            lambda p, rate: adahessian(rate, b2=0.9),
            rates=(("rosenbrock", 1.0),),
        ),
        Case(
            "sophia",
            lambda p, rate: sophia(
                rate, gauss_newton_bartlett(p.apply, p.likelihood), gamma=1.0, every=2
            ),
            rates=(("rosenbrock", 0.5),),
        ),
        Case("shampoo", lambda p, rate: shampoo(rate, min_ndim=1)),
        Case("soap", lambda p, rate: soap(rate, min_ndim=1)),
        Case(
            "inverse_free_shampoo",
            lambda p, rate: inverse_free_shampoo(rate, damping=0.3),
            rates=(("logistic", 0.3),),
        ),
        Case(
            "natural_gradient", lambda p, rate: natural_gradient(p.apply, p.likelihood)
        ),
        Case(
            "low_rank",
            lambda p, rate: natural_gradient(
                p.apply, p.likelihood, structure=LowRankStructure(2)
            ),
        ),
        Case("kfac", lambda p, rate: kfac(p.apply, p.likelihood)),
        Case("ekfac", lambda p, rate: ekfac(p.apply, p.likelihood)),
        Case("gauss_newton", lambda p, rate: gauss_newton(p.apply, p.likelihood)),
        Case("singd", lambda p, rate: singd(p.apply, p.likelihood, rate)),
        Case("hessian_free", lambda p, rate: hessian_free(p.apply, p.likelihood)),
        Case(
            "stochastic_natural_gradient",
            lambda p, rate: stochastic_natural_gradient(p.apply, p.likelihood, rate),
        ),
        Case(
            "diagonal_fisher",
            lambda p, rate: diagonal_fisher(p.apply, p.likelihood, rate, momentum=0.9),
        ),
        Case(
            "squared_gradient",
            lambda p, rate: squared_gradient(p.apply, p.likelihood, rate),
        ),
    )
}


@dataclass(frozen=True)
class Run:
    """An optimiser at work on a problem; what is carried is (params, state)."""

    begin: Callable[[Any], Any]
    step: Callable[[Any, jax.Array], Any]
    params: Callable[[Any], Any] = lambda carry: carry[0]


def run_of(optimizer: Any, problem: Problem) -> Run:
    """Of a transformation, with every extra argument there is, or of an optimiser."""
    if not isinstance(optimizer, optax.GradientTransformation):
        return Run(
            lambda params: optimizer.init(params, problem.batch),
            lambda state, key: optimizer.step(state, problem.batch, key)[0],
            lambda state: state.params,
        )
    used = optax.with_extra_args_support(optimizer)

    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        dtype = jax.tree.leaves(params)[0].dtype
        updates, state = used.update(
            jax.grad(problem.loss)(params),
            state,
            params,
            obj_fn=problem.loss,
            batch=problem.cast(problem.batch, dtype),
        )
        return optax.apply_updates(params, updates), state

    return Run(lambda params: (params, used.init(params)), step)


class Solved(NamedTuple):
    """A row at work on a problem."""

    advance: Callable[[Any, Any], Any]
    """What is carried, and a key, to what is carried a chunk later; jitted."""
    run: Run
    kept: list[Any]
    """What is carried at first and after each chunk."""
    traces: list[None]
    """One for each time that `advance` was traced."""


@lru_cache
def solved(name: str, problem_name: str) -> Solved:
    """Of a row and a problem, the learning rate falling, in single precision."""
    case, problem = CASES[name], PROBLEMS[problem_name]
    rate = optax.cosine_decay_schedule(case.rate_for(problem), CHUNK * problem.chunks)
    run = run_of(case.make(problem, rate), problem)
    traces: list[None] = []

    def advance(carry: Any, key: jax.Array) -> Any:
        traces.append(None)
        keys = jax.random.split(key, CHUNK)
        return jax.lax.scan(lambda c, k: (run.step(c, k), None), carry, keys)[0]

    start, begin = problem.cast(problem.start, jnp.float32), run.begin
    if problem.many:
        start = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1]), start)
        begin, advance = jax.vmap(begin), jax.vmap(advance, (0, None))
    jitted = jax.jit(advance)
    kept = [begin(start)]
    for i in range(problem.chunks):
        kept.append(jitted(kept[-1], jax.random.key(i)))
    return Solved(jitted, run, kept, traces)
