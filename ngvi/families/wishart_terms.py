"""What the families built on the Wishart distribution have in common.

X ~ Wishart(ν, V) in p dimensions, with a = ν/2, the mean E = νV and c = (p + 1)/2:

    log p(X) = −a D(X, E) − c log det X − R_p(a)
    entropy = c log det E + (a − c) G_p(a) + R_p(a)
    KL(a, E ‖ a′, E′) = a′ D(E, E′) + R_p(a′) − R_p(a) − (a′ − a) R_p′(a)

where D is Stein's loss (`factored.stein_loss`), G_p(a) = p log a − ψ_p(a) the gap, and
R_p(a) = log Γ_p(a) − p a (log a − 1), convex, ≈ −¼ p (p + 1) log a. No term is larger
than the result by more than its own logarithm, however large ν is.
"""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ngvi.families.domains import Domain, above
from ngvi.families.factored import Factored, stein_loss
from ngvi.families.gamma import place_log_gamma
from ngvi.families.special.calculus import with_partials
from ngvi.families.special.differences import stirling_bregman
from ngvi.families.special.gamma import stirling_remainder
from ngvi.families.special.multivariate import wishart_gap, wishart_gap_slope
from ngvi.families.special.ratios import log1p_minus, logarithm_excess
from ngvi.families.special.tables import LOG_2PI

Values = Float[Array, "*b"]


@with_partials(lambda _, a, p: -wishart_gap(a, p), fixed=1)
def log_gamma_remainder(a: Values, p: int) -> Values:
    """R_p(a) = log Γ_p(a) − p a (log a − 1), for a > (p − 1)/2."""
    constant = p / 2 * LOG_2PI + p * (p - 1) / 4 * math.log(math.pi)
    total = jnp.full_like(a, constant)
    for half in (j / 2 for j in range(p)):
        x = a - half
        # Stirling's formula at x, where a log x = a (log a + log(1 − half/a)).
        mean = a * log1p_minus(-half / a) - (half + 0.5) * jnp.log(x)
        total = total + (mean + stirling_remainder(x))
    return total


@with_partials(
    lambda _, a, b, p: (b - a) * wishart_gap_slope(a, p),
    lambda _, a, b, p: wishart_gap(a, p) - wishart_gap(b, p),
    fixed=1,
)
def bregman_remainder(a: Values, b: Values, p: int) -> Values:
    """R_p(b) − R_p(a) − (b − a) R_p′(a) ≥ 0, ≈ p (p + 1)/8 (b/a − 1)² for large a, b.

    Of each log Γ(a − j/2) = log Γ(x) − log(x − 1), x = a − j/2 + 1, Stirling's formula
    is the sum of x log x − x, whose difference from the a log a − a of R_p has a closed
    form; of −½ log x; and of partial fractions, see `special.differences`.
    """
    total = jnp.zeros_like(a)
    for j in range(p):
        total = total + _bregman_term(a, b, j / 2)
    return total


def _bregman_term(a: Values, b: Values, half: float) -> Values:
    """What log Γ(a − half) contributes."""
    d, before, after = b - a, a - half, b - half
    x, y, c = before + 1, after + 1, half - 1
    u, v = 1 / x, 1 / y
    # (y log(y/x) − d) − (b log(b/a) − d), with a = x + c and b = y + c.
    z = c * d / (x * b)
    mean = c * logarithm_excess(d / a, b / a)
    shift = z * c * d / a - y * logarithm_excess(z, y * a / (x * b)) + mean
    first = logarithm_excess(d / before, after / before)
    second = logarithm_excess(d * u, y * u) / 2
    return shift + (first + second + stirling_bregman(d, u, v))


def log_density(a: Values, loss: Values, log_det: Values, p: int) -> Float[Array, "*b"]:
    """log p(X), given D(X, E) and log det X.

    Of an inverse Wishart matrix X too, with D(X⁻¹, E): its Jacobian det X^(−p−1) turns
    −c log det X⁻¹ into −c log det X.
    """
    return -a * loss - (p + 1) / 2 * log_det - log_gamma_remainder(a, p)


def entropy(
    a: Values, log_det_mean: Values, p: int, inverse: bool = False
) -> Float[Array, "*b"]:
    """The entropy of X, given log det E, or of its inverse."""
    c = -(p + 1) / 2 if inverse else (p + 1) / 2
    gap = (a - c) * wishart_gap(a, p)
    return c * log_det_mean + gap + log_gamma_remainder(a, p)


def kl(df: Values, other_df: Values, x: Factored, y: Factored) -> Float[Array, "*b"]:
    """KL(df, V ‖ other_df, V′).

    Args:
        df: ν, shape (*b,).
        other_df: ν′, shape (*b,).
        x: V, or V′⁻¹ where the inverses are given.
        y: V′, or V⁻¹.
    """
    loss = stein_loss(x, y, (df - other_df) / other_df)
    a, b = df / 2, other_df / 2
    return b * loss + bregman_remainder(a, b, x.matrix.shape[-1])


def bartlett(
    key: Key[Array, ""], df: Values, p: int, shape: tuple[int, ...]
) -> Float[Array, "*s p p"]:
    """Lower triangular B with B Bᵀ ~ Wishart(df, I), shape (*shape, *b, p, p).

    Source: Bartlett (1933), On the theory of statistical regression.
    """
    shape, dtype = (*shape, *df.shape), df.dtype
    of_diagonal, of_rest = jax.random.split(key)
    half_df = (df[..., None] - np.arange(p, dtype=dtype)) / 2
    log_chi_square = math.log(2) + jax.random.loggamma(
        of_diagonal, half_df, (*shape, p), dtype
    )
    # A tiny number of degrees of freedom underflows: keep the square above zero.
    lowest = math.log(jnp.finfo(dtype).tiny) + 1
    chi = jnp.exp(jnp.maximum(log_chi_square, lowest) / 2)
    rest = jax.random.normal(of_rest, (*shape, p, p), dtype)
    return _bartlett(chi, rest)


def _bartlett(
    chi: Float[Array, "*s p"], rest: Float[Array, "*s p p"]
) -> Float[Array, "*s p p"]:
    diagonal = jnp.eye(chi.shape[-1], dtype=bool)
    return jnp.where(diagonal, chi[..., None], jnp.tril(rest, -1))


def bartlett_size(p: int) -> int:
    """How many standard normals `place_bartlett` takes."""
    return 2 * p + p * (p - 1) // 2


def place_bartlett(
    eps: Float[Array, "*s n"], df: Values, p: int
) -> Float[Array, "*s p p"]:
    """`bartlett` at base draws: two for each chi-square, one for each of the rest."""
    of_chi, of_rest = eps[..., : 2 * p], eps[..., 2 * p :]
    half_df = (df[..., None] - np.arange(p, dtype=df.dtype)) / 2
    log_gamma = place_log_gamma(of_chi.reshape(*eps.shape[:-1], p, 2), half_df)
    chi = jnp.exp((math.log(2) + log_gamma) / 2)
    rows, columns = np.tril_indices(p, -1)
    rest = jnp.zeros((*chi.shape, p), df.dtype).at[..., rows, columns].set(of_rest)
    return _bartlett(chi, rest)


def enough_df(p: int) -> Domain:
    """Where ν lies: the density can be normalised."""
    return replace(above(p - 1), description=f"above p - 1 = {p - 1}")


def inverse_wishart_mean(
    df: Values, scale: Float[Array, "*b p p"]
) -> Float[Array, "*b p p"]:
    """E[X] of InverseWishart(df, scale); where it diverges, infinite on the diagonal
    and undefined off it."""
    p = scale.shape[-1]
    excess = (df - p - 1)[..., None, None]
    diverges = jnp.where(jnp.eye(p, dtype=bool), jnp.inf, jnp.nan)
    return jnp.where(excess > 0, scale / excess, diverges)
