"""An optimiser with its model: what a training loop calls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.batches import Batch
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.problem import Apply
from ngvi.nets.algorithm import checked_net
from ngvi.nets.optimizers.model import Model
from ngvi.nets.optimizers.preconditioner import factorised, problem_of
from ngvi.nets.optimizers.settings import Settings
from ngvi.nets.optimizers.state import Anchor, Info, State
from ngvi.nets.optimizers.step import step


@dataclass(frozen=True)
class CurvatureOptimizer:
    """A rule, applied to a model. Made by the functions of `ngvi.nets.optimizers`.

        state = optimizer.init(params, (x, y))
        for batch in batches:
            state, info = optimizer.step(state, batch, key)
        state.params

    A step is compiled once for its rule and shapes; it is pure, and goes through `scan`
    and `vmap`. A state is a plain pytree of arrays, to be saved by its leaves.

    Args:
        apply: (params, x) ↦ outputs, as in `ngvi.fisher.fisher`.
        likelihood: as there: the loss is the mean of −log p(y | f).
        rule: how it moves.
        mask: which leaves decay, as for optax: a pytree of booleans like the parameters
            or like their upper part, or a function from parameters to one.
        trainable: likewise which leaves move at all.
    """

    apply: Apply
    likelihood: Any
    rule: Settings
    mask: Any = None
    trainable: Any = None

    def init(self, params: Any, batch: tuple[Any, Any]) -> State:
        """Before the first step.

        Args:
            params: where it starts, a pytree of floating arrays.
            batch: examples (x, y) as `step` takes them; only their shapes matter, and
                that they are what they must be: all data may be given to be checked.

        Raises:
            ValueError: parameters that are not floating or not used, numbers that are
                not finite, labels outside of the likelihood's support, outputs that do
                not fit it, a curvature that has no meaning for them, masks that are not
                like the parameters.
        """
        params, (x, y) = jax.tree.map(jnp.asarray, (params, batch))
        net, likelihood = checked_net(self.apply, self.likelihood, params, x, y)
        model = Model.of(net, params, self.rule.measure.by_layers)
        return _begin(
            self.rule,
            model,
            model.vector(params),
            likelihood,
            Batch(x, y),
            _as_vector("mask", self.mask, params, model),
            _as_vector("trainable", self.trainable, params, model),
        )

    def step(
        self, state: State, batch: tuple[Any, Any], key: Key[Array, ""]
    ) -> tuple[State, Info]:
        """One step.

        Args:
            state: before it.
            batch: (x, y).
            key: of all that is drawn.
        """
        x, y = batch
        return step(self.rule, state, x, y, key)

    def anchored(self, state: State, data: tuple[Any, Any], parts: int = 1) -> State:
        """With the gradient of all data at these weights, for variance reduction.

        From then on a step takes ∇L_B(θ) − ∇L_B(θ̃) + ∇L(θ̃) for its gradient, θ̃ the
        weights now: unbiased, and without noise where θ is near. Renew it every epoch
        or so.

        Args:
            state: at θ̃.
            data: all examples (x, y).
            parts: take them in so many equal parts, one after the other.

        Source: Johnson and Zhang (2013), Accelerating stochastic gradient descent using
        predictive variance reduction.
        """
        x, y = data
        return anchored(state, x, y, parts)


@partial(jax.jit, static_argnums=3)
def anchored(state: State, x: Any, y: Any, parts: int) -> State:
    """See `CurvatureOptimizer.anchored`."""
    _, gradient = state.model.gradient(
        state.weights, state.likelihood, Batch(x, y), parts
    )
    return replace(state, anchor=Anchor(state.weights, gradient))


@partial(jax.jit, static_argnums=(0, 1))
def _begin(
    rule: Settings,
    model: Model,
    weights: Float[Array, "p"],
    likelihood: Likelihood,
    batch: Batch,
    decayed: Float[Array, "p"] | None,
    trainable: Float[Array, "p"] | None,
) -> State:
    zeros = jnp.zeros_like(weights)
    damping = 0.0 if callable(rule.damping) else rule.damping
    state = State(
        weights=weights,
        velocity=zeros,
        average=zeros if rule.gradient_decay else None,
        site=None,
        damped=None,
        damping=jnp.asarray(damping, weights.dtype),
        steps=jnp.zeros((), int),
        warm=zeros if rule.matrix_free else None,
        anchor=None,
        decayed=decayed,
        trainable=trainable,
        likelihood=likelihood,
        model=model,
    )
    key = jax.random.key(0)
    problem = problem_of(rule, state, batch, key)
    rule.measure.check(problem, len(weights))
    if rule.matrix_free:
        return state
    state = replace(state, site=rule.measure.begin(problem, zeros, key))
    if rule.measure.inverse_free:
        return state
    plain = replace(rule, staggered=False, mesh=None)
    shapes = jax.eval_shape(lambda: factorised(plain, state))
    damped = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return replace(state, damped=damped)


def _as_vector(
    name: str, mask: Any, params: Any, model: Model
) -> Float[Array, "p"] | None:
    """1 where a mask says so, else 0."""
    if mask is None:
        return None
    if callable(mask):
        mask = mask(params)
    try:
        whole = jax.tree.map(
            lambda yes, part: jax.tree.map(
                lambda leaf: jnp.full(leaf.shape, bool(yes)), part
            ),
            mask,
            params,
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} must be a pytree of booleans like the parameters, or like their "
            f"upper part: {error}"
        ) from None
    return model.vector(whole)
