"""The geometry that the Fisher matrix gives a model: divergence, kernel, flow.

    KL(p_θ ‖ p_{θ+s}) = ½ sᵀ F s + O(‖s‖³),   k(x, x′) = ∇log p(x)ᵀ F⁻¹ ∇log p(x′),
    θ̇ = −F(θ)⁻¹ ∇L(θ):   the steepest descent of L, in the metric of the divergence;

none of them depends on how the model is parameterised.

Source: Amari (1998), Natural gradient works efficiently in learning; Jaakkola and
Haussler (1998), Exploiting generative models in discriminative classifiers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.experimental.ode import odeint
from jaxtyping import Array, Float

from ngvi.families import ExponentialFamily
from ngvi.fisher.damped import Damped
from ngvi.fisher.likelihoods import Likelihood, as_likelihood
from ngvi.fisher.problem import Apply

Family = TypeVar("Family", bound=ExponentialFamily)


def mean_kl(
    apply: Apply, params: Any, other: Any, x: Any, *, likelihood: Any
) -> Float[Array, ""]:
    """The mean over the examples of KL(p(· | f_θ(x)) ‖ p(· | f_θ′(x))), in nats.

    Args:
        apply: as in `fisher`.
        params: θ.
        other: θ′.
        x: the examples.
        likelihood: as in `fisher`.
    """
    return _mean_kl(apply, as_likelihood(likelihood), params, other, x)


@partial(jax.jit, static_argnums=0)
def _mean_kl(
    apply: Apply, likelihood: Likelihood, params: Any, other: Any, x: Any
) -> Float[Array, ""]:
    return jax.vmap(likelihood.kl)(apply(params, x), apply(other, x)).mean()


def fisher_kernel(
    apply: Apply,
    params: Any,
    data: Any,
    others: Any,
    fisher: Damped,
    *,
    likelihood: Any,
) -> Float[Array, "n m"]:
    """k(x, x′) = s(x)ᵀ (F + λ)⁻¹ s(x′), s = ∂ log p(y | f(x))/∂θ.

    Args:
        apply: as in `fisher`.
        params: θ.
        data: n examples (x, y).
        others: m examples (x′, y′).
        fisher: the damped curvature, as `fisher(...).damp(λ)` gives it.
        likelihood: as in `fisher`.
    """
    used = as_likelihood(likelihood)
    frames = [
        fisher.whiten_gradient(scores(apply, used, params, *examples))
        for examples in (data, others)
    ]
    return frames[0] @ frames[1].T


@partial(jax.jit, static_argnums=0)
def scores(
    apply: Apply, likelihood: Likelihood, params: Any, x: Any, y: Any
) -> Float[Array, "n p"]:
    """∂ log p(yₙ | f(xₙ))/∂θ in rows, parameters in the order of `ravel_pytree`."""

    def log_prob(params: Any, x: Any, y: Any) -> Float[Array, ""]:
        outputs = apply(params, jax.tree.map(lambda leaf: leaf[None], x))
        return likelihood.log_prob(jax.tree.map(lambda leaf: leaf[0], outputs), y)

    gradients = jax.vmap(jax.grad(log_prob), (None, 0, 0))(params, x, y)
    leaves = jax.tree.leaves(gradients)
    return jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], 1)


def natural_gradient_flow(
    q: Family,
    loss: Callable[[Family], Float[Array, ""]],
    times: Float[Array, "t"],
    tolerance: float = 1e-8,
) -> Family:
    """λ̇ = −F(λ)⁻¹ ∇_λ L: the path of a family's member, from q at the first time.

    The same path whatever coordinates it is computed in; these are the natural ones.

    Args:
        q: where it begins.
        loss: L, of a member.
        times: ascending.
        tolerance: of the integration, relative and absolute.

    Returns:
        The members at those times, as one batch.
    """

    def velocity(flat: Float[Array, "n"], _: Float[Array, ""]) -> Float[Array, "n"]:
        def at(flat: Float[Array, "n"]) -> Family:
            return q.with_natural_params(q.unflatten(flat))

        slope = jax.grad(lambda flat: loss(at(flat)))(flat)
        return -at(flat).fisher.solve(slope)

    start = q.flatten(q.natural_params)
    path = odeint(velocity, start, jnp.asarray(times), rtol=tolerance, atol=tolerance)
    return q.with_natural_params(q.unflatten(path))
