"""The angle between a von Mises–Fisher vector and its mean direction.

On the sphere of d dimensions the angle θ has the density

    p(θ) ∝ exp(κ cos θ) sin^{d−2} θ,   0 ≤ θ ≤ π.

Draws: in closed form for d = 3, else by Wood's rejection from a transformed symmetric
beta distribution, which accepts two of three proposals or more. All is computed from
1 − cos θ, so that no digits are lost at κ = 10⁶ in float32. A draw moves with κ as its
quantile does,

    dθ/dκ = −∫_0^θ (cos s − A) p(s)/p(θ) ds = ∫_θ^π (cos s − A) p(s)/p(θ) ds ≤ 0,

A = E[cos θ]; each side of arccos A has an integral without change of sign, done by
Gauss and Legendre's rule over the part that counts.

Source: Wood (1994), Simulation of the von Mises Fisher distribution; Ulrich (1984),
Computer generation of distributions on the m-sphere, for symmetric beta draws.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ngvi.families.reparameterization import moving_with
from ngvi.families.special import one_minus_bessel_ratio

Values = Float[Array, "*s"]


def sample_polar_angle(
    key: Key[Array, ""], concentration: Values, dim: int, shape: tuple[int, ...]
) -> Values:
    """Draws of θ, differentiable in κ.

    Args:
        key: a random key.
        concentration: κ ≥ 0, an array that broadcasts to `shape`.
        dim: d ≥ 2.
        shape: of the draws.
    """
    kappa = jnp.broadcast_to(concentration, shape)
    fixed = jax.lax.stop_gradient(kappa)
    draw = _three_dimensional if dim == 3 else _by_rejection
    versine = jnp.clip(draw(key, fixed, dim), 0, 2)
    theta = 2 * jnp.arcsin(jnp.sqrt(versine / 2))
    return moving_with(theta, (kappa,), (lambda t, k: _velocity(t, k, dim),))


def _three_dimensional(key: Key[Array, ""], kappa: Values, dim: int) -> Values:
    """1 − cos θ by inversion: a truncated exponential."""
    u = jax.random.uniform(key, kappa.shape, kappa.dtype)
    positive = jnp.maximum(kappa, jnp.finfo(kappa.dtype).eps)
    return -jnp.log1p(u * jnp.expm1(-2 * positive)) / positive


def _by_rejection(key: Key[Array, ""], kappa: Values, dim: int) -> Values:
    """1 − cos θ by Wood's algorithm, all draws at once until each is accepted."""
    freedom = dim - 1
    b = freedom / (2 * kappa + jnp.sqrt(4 * kappa**2 + freedom**2))
    gap = 2 * b / (1 + b)  # 1 − x₀ in Wood's notation

    def propose(key: Key[Array, ""]) -> tuple[Values, Array]:
        u = jax.random.uniform(key, (3, *kappa.shape), kappa.dtype)
        # Ulrich's symmetric beta number; for d = 2 the radius is 1.
        spread: float | Values = 1.0
        if dim > 2:
            spread = jnp.sqrt(-jnp.expm1(jnp.log1p(-u[0]) * (2 / (dim - 2))))
        z = (1 + spread * jnp.cos(2 * math.pi * u[1])) / 2
        versine = 2 * b * z / (1 - (1 - b) * z)
        ratio = (gap + (1 - gap) * versine) / (gap * (2 - gap))
        score = kappa * (gap - versine) + freedom * jnp.log(ratio)
        # NaN is accepted, so that the loop ends.
        return versine, ~(score < jnp.log1p(-u[2]))

    def again(state: tuple[Array, Values, Array]) -> tuple[Array, Values, Array]:
        key, versine, done = state
        key, now = jax.random.split(key)
        proposal, accepted = propose(now)
        return key, jnp.where(done, versine, proposal), done | accepted

    start = key, jnp.full_like(kappa, jnp.nan), jnp.zeros(kappa.shape, bool)
    return jax.lax.while_loop(lambda s: ~s[2].all(), again, start)[1]


def _velocity(theta: Values, kappa: Values, dim: int) -> Values:
    """dθ/dκ at a fixed quantile."""
    points, reach = (16, 7.0) if jnp.finfo(theta.dtype).bits <= 32 else (40, 9.0)
    deficit = one_minus_bessel_ratio(dim / 2 - 1, kappa)
    theta = jnp.maximum(theta, jnp.finfo(theta.dtype).tiny ** 0.25)
    sine, cosine = jnp.sin(theta), jnp.cos(theta)
    inner = 2 * jnp.sin(theta / 2) ** 2 < deficit
    # The rest of the integrand is below e^{−reach²/2}, or e^{−reach²} by its slope.
    curvature = kappa * jnp.maximum(cosine, 0) + (dim - 2) / sine**2
    slope = jnp.abs((dim - 2) * cosine / sine - kappa * sine)
    tiny = jnp.finfo(theta.dtype).tiny
    width = jnp.minimum(reach / jnp.sqrt(curvature + tiny), reach**2 / (slope + tiny))
    length = jnp.where(
        inner,
        -jnp.minimum(theta, reach / jnp.sqrt(curvature + tiny)),
        jnp.minimum(math.pi - theta, width),
    )
    nodes, weights = np.polynomial.legendre.leggauss(points)
    total = jnp.zeros_like(theta)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        step = node * length
        s = theta + step
        log_density = -2 * kappa * jnp.sin(theta + step / 2) * jnp.sin(step / 2)
        density = jnp.exp(log_density) * (jnp.sin(s) / sine) ** (dim - 2)
        total += weight * (deficit - 2 * jnp.sin(s / 2) ** 2) * density
    return length * total
