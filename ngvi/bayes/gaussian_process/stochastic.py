"""Sparse processes by minibatches: natural steps on q(u), Adam on the rest.

Of a batch of B data out of N the sums of `cvi` are scaled by N/B, and

    λ⁺ = (1 − ρ_t) λ + ρ_t (λ_prior + (N/B) Σ sites),   ρ_t = ρ (1 + t/t₀)^−κ.

The parameters of kernel and likelihood and the inducing inputs take a step of Adam on
the batch's bound beside each.

Source: Hensman, Fusi and Lawrence (2013), Gaussian processes for big data; Salimbeni,
Eleftheriadis and Hensman (2018), Natural gradients in practice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.bayes.gaussian_process import cvi, prior
from ngvi.bayes.gaussian_process.model import Learned, Model
from ngvi.families import Gaussian

FIRST, DELAY, DECAY = 0.5, 20.0, 0.7
"""ρ, t₀ and κ."""
ADAM = 0.02
"""The length of its steps."""


@partial(jax.jit, static_argnames="adam")
def step(
    q: Gaussian,
    learned: Learned,
    moments: Any,
    model: Model,
    x: Float[Array, "b d"],
    y: Float[Array, "b"],
    scale: float,
    step_size: float,
    adam: float,
) -> tuple[Gaussian, Learned, Any, Float[Array, ""]]:
    """A natural step of q(u), one of Adam, and the batch's bound before them."""
    import optax

    now = learned.put(model)
    rows = now.rows(x)
    look = cvi.look_at(q, rows, now.likelihood, y, scale)
    moved = cvi.natural_step(look, rows, step_size, scale)
    good = jnp.isfinite(moved.precision.root).all()
    q = jax.tree.map(lambda a, b: jnp.where(good, a, b), moved, q)

    def loss(learned: Learned) -> Float[Array, ""]:
        then = learned.put(model)
        return -cvi.look_at(q, then.rows(x), then.likelihood, y, scale).elbo

    slope = jax.grad(loss)(learned)
    change, moments = optax.adam(adam).update(slope, moments)
    return q, optax.apply_updates(learned, change), moments, look.elbo


def learn(
    model: Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    inducing: bool,
    batch_size: int,
    epochs: int,
    rng: np.random.RandomState,
    optimize: bool,
) -> tuple[Model, Gaussian, list[float]]:
    """Pass over the data in batches.

    Args:
        model: a sparse one, with the values to start from.
        x, y: the data.
        inducing: whether inducing inputs are learned.
        batch_size: B.
        epochs: passes.
        rng: of their order.
        optimize: whether anything but q(u) is learned.

    Returns:
        The model, q(u), and the mean of the batches' bounds in each epoch.
    """
    import optax

    adam = ADAM if optimize else 0.0
    learned = Learned.of(model, inducing)
    q = prior.standard(len(model.inducing), jnp.result_type(float))
    moments = optax.adam(adam).init(learned)
    taken, history = 0, []
    for _ in range(epochs):
        bounds = []
        order = rng.permutation(len(x))
        # Batches of one size, for one program: what is left over waits for its turn.
        for start in range(0, len(x) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            rho = FIRST * (1 + taken / DELAY) ** -DECAY
            q, learned, moments, bound = step(
                q,
                learned,
                moments,
                model,
                x[chosen],
                y[chosen],
                len(x) / batch_size,
                rho,
                adam,
            )
            bounds.append(bound)
            taken += 1
        history.append(float(jnp.stack(bounds).mean()))
    return learned.put(model), q, history
