"""Estimates of a curvature's diagonal, each a transformation from the gradients to it.

| estimate                | of the             | by                        | asks for |
|-------------------------|--------------------|---------------------------|----------|
| `squared_mean_gradient` | empirical Fisher   | ĝ ∘ ĝ of the batch's mean |          |
| `fisher_diagonal`       | any of `fisher`    | the Fisher engine         | `batch`  |
| `gauss_newton_bartlett` | Fisher             | B ĝ ∘ ĝ at labels drawn   | `batch`  |
| `hutchinson`            | Hessian            | z ∘ H z of random signs z | `obj_fn` |

What an estimate asks for is an extra argument of the optimiser's `update`: `batch`, the
pair (x, y), or `obj_fn`, the loss of the batch as a function of the parameters, the
name optax has for it. They also fit `optax.contrib.sophia(hessian_diagonal_fn=...)`.

Of a batch of one ĝ ∘ ĝ is the diagonal of the empirical Fisher matrix; of larger ones
it is smaller, up to B times: Adam and RMSProp take it all the same.

Sources: Bekas, Kokiopoulou and Saad (2007), An estimator for the diagonal of a matrix;
Liu, Li, Hall, Liang and Ma (2024), Sophia: a scalable stochastic second-order optimizer
for language model pre-training, section 2.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from ngvi.fisher import fisher
from ngvi.fisher.batches import count
from ngvi.fisher.engine import KindName
from ngvi.fisher.likelihoods import as_likelihood
from ngvi.fisher.problem import Apply
from ngvi.nets.optimizers.pieces import checked

Estimate = optax.GradientTransformationExtraArgs
"""Of gradients to the diagonal, a pytree like the parameters."""


def squared_mean_gradient() -> Estimate:
    """ĝ ∘ ĝ."""

    def diagonal(gradients: Any, key: None, params: Any) -> Any:
        return jax.tree.map(jnp.square, gradients)

    return _estimate(diagonal)


def hutchinson(samples: int = 1, seed: int = 0) -> Estimate:
    """z ∘ H z, of the loss `obj_fn`; z of independent signs.

    Its mean is the diagonal of H, its variance the sum of squares beside it.

    Args:
        samples: z to average over.
        seed: of the signs.

    Raises:
        ValueError: no samples.
    """
    checked("samples", samples, 1)

    def diagonal(
        gradients: Any, key: Key[Array, ""], params: Any, *, obj_fn: Any
    ) -> Any:
        gradient = jax.grad(obj_fn)

        def one(key: Key[Array, ""]) -> Any:
            z = optax.tree.random_like(key, params, jax.random.rademacher)
            _, product = jax.jvp(gradient, (params,), (z,))
            return jax.tree.map(jnp.multiply, z, product)

        each = jax.lax.map(one, jax.random.split(key, samples))
        return jax.tree.map(lambda leaf: leaf.mean(0), each)

    return _estimate(diagonal, seed, "obj_fn")


def fisher_diagonal(
    apply: Apply,
    likelihood: Any,
    *,
    kind: KindName = "true",
    samples: int = 1,
    seed: int = 0,
) -> Estimate:
    """The diagonal of `ngvi.fisher.fisher` on a `batch`.

    Args:
        apply, likelihood, kind, samples: as there.
        seed: of the labels that kind="sampled" draws.
    """
    likelihood = as_likelihood(likelihood)

    def diagonal(
        gradients: Any, key: Key[Array, ""], params: Any, *, batch: Any
    ) -> Any:
        curvature = fisher(
            apply,
            params,
            batch,
            likelihood=likelihood,
            kind=kind,
            structure="diagonal",
            samples=samples,
            key=key,
        )
        return curvature.layout.tree(curvature.matrix.diagonal())

    return _estimate(diagonal, seed, "batch")


def gauss_newton_bartlett(apply: Apply, likelihood: Any, *, seed: int = 0) -> Estimate:
    """B ĝ ∘ ĝ, with labels drawn from the model for the B examples of a `batch`.

    It is unbiased, for each example's gradient at a drawn label has mean zero.

    Args:
        apply, likelihood: as in `ngvi.fisher.fisher`.
        seed: of the labels.
    """
    likelihood = as_likelihood(likelihood)

    def diagonal(
        gradients: Any, key: Key[Array, ""], params: Any, *, batch: Any
    ) -> Any:
        x, _ = batch
        size = count(x)
        outputs = apply(params, x)
        y = jax.vmap(likelihood.sample)(jax.random.split(key, size), outputs)

        def loss(params: Any) -> Array:
            return -jax.vmap(likelihood.log_prob)(apply(params, x), y).mean()

        return jax.tree.map(lambda g: size * g**2, jax.grad(loss)(params))

    return _estimate(diagonal, seed, "batch")


def averaged_windows(estimate: Estimate) -> Estimate:
    """An estimate averaged over the windows of convolutions.

    The axes of a kernel but the last two, inputs and outputs, are those of its window,
    over which curvature varies little and its estimate much.

    Source: Yao, Gholami, Shen, Mustafa, Keutzer and Mahoney (2021), AdaHessian: an
    adaptive second order optimizer for machine learning.
    """

    def average(leaf: Array) -> Array:
        window = tuple(range(leaf.ndim - 2))
        return jnp.broadcast_to(leaf.mean(window, keepdims=True), leaf.shape)

    return mapped(estimate, average)


def mapped(estimate: Estimate, function: Callable[[Array], Array]) -> Estimate:
    """A function of an estimate, leaf by leaf."""
    inner = optax.with_extra_args_support(estimate)

    def update(
        gradients: Any, state: Any, params: Any = None, **extra: Any
    ) -> tuple[Any, Any]:
        diagonal, state = inner.update(gradients, state, params, **extra)
        return jax.tree.map(function, diagonal), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _estimate(
    diagonal: Callable[..., Any], seed: int | None = None, needed: str | None = None
) -> Estimate:
    """One that draws with a new key each time, and what it needs in extra arguments."""

    def init(params: Any) -> Any:
        if seed is None:
            return optax.EmptyState()
        # Plain numbers, which any checkpoint can hold.
        return jax.random.key_data(jax.random.key(seed))

    def update(
        gradients: Any, state: Any, params: Any = None, **extra: Any
    ) -> tuple[Any, Any]:
        if needed is None:
            return diagonal(gradients, None, params), state
        if params is None or extra.get(needed) is None:
            raise ValueError(
                f"this estimate of the curvature needs the parameters and {needed}: "
                f"optimizer.update(gradients, state, params, {needed}=...)"
            )
        key, now = jax.random.split(jax.random.wrap_key_data(state))
        found = diagonal(gradients, now, params, **{needed: extra[needed]})
        return found, jax.random.key_data(key)

    return optax.GradientTransformationExtraArgs(init, update)
