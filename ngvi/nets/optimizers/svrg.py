"""SVRG: gradients of batches with less variance, by an anchor.

At an anchor θ̃, renewed every so many steps, the gradient over all data μ̃ = ∇L(θ̃) is
known; a batch's gradient is corrected by what it was off there,

    ∇L_B(θ) − c (∇L_B(θ̃) − μ̃),

which is unbiased, and exact at the anchor for c = 1. A batch costs two gradients.

Source: Johnson and Zhang (2013), Accelerating stochastic gradient descent using
predictive variance reduction; Yin et al. (2025), A coefficient makes SVRG
effective, for c below 1 where θ is far from θ̃.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from ngvi.nets.optimizers.pieces import Rate, checked
from ngvi.nets.schedules import number_at


class SVRGState(NamedTuple):
    """Between two steps."""

    count: Int[Array, ""]  # type: ignore[assignment]
    anchor: Any
    """θ̃."""
    gradient: Any
    """μ̃."""


def svrg(every: Any, coefficient: Rate = 1.0) -> optax.GradientTransformationExtraArgs:
    """Correct a batch's gradient by an anchor; the first link of a chain.

    Its `update` takes the losses of the batch, and of all data, as functions of the
    parameters; the latter is called when the anchor is renewed:

        optimizer = optax.chain(svrg(every=100), optax.sgd(0.1))
        updates, state = optimizer.update(
            gradients, state, params, obj_fn=loss_of_batch, full_fn=loss_of_all
        )

    Args:
        every: steps between two anchors; a pass through the data or two. Under `vmap`
            the gradient over all data is computed in every step.
        coefficient: c, a number or a schedule.

    Raises:
        ValueError: not at least one step; in `update`, an argument that is missing.
    """
    checked("every", every, 1)

    def init(params: Any) -> SVRGState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return SVRGState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(
        gradients: Any,
        state: SVRGState,
        params: Any = None,
        *,
        obj_fn: Any = None,
        full_fn: Any = None,
        **extra: Any,
    ) -> tuple[Any, SVRGState]:
        if params is None or obj_fn is None or full_fn is None:
            raise ValueError(
                "svrg needs the parameters and two losses: optimizer.update(gradients, "
                "state, params, obj_fn=loss_of_batch, full_fn=loss_of_all)"
            )
        anchor, full = jax.lax.cond(
            state.count % every == 0,
            lambda: (params, jax.grad(full_fn)(params)),
            lambda: (state.anchor, state.gradient),
        )
        c = number_at(coefficient, state.count)
        corrected = jax.tree.map(
            lambda g, there, mean: (g - c * (there - mean)).astype(g.dtype),
            gradients,
            jax.grad(obj_fn)(anchor),
            full,
        )
        return corrected, SVRGState(state.count + 1, anchor, full)

    return optax.GradientTransformationExtraArgs(init, update)
