"""Gaussian likelihoods.

    Gaussian, fixed sd σ           f = m             Λ = 1/σ²
    Gaussian, sd an output         f = (m, log σ)    Λ = diag(1/σ², 2)
    Gaussian, fixed precision P    f = m             Λ = P

With the log sd as an output the Hessian of −log p is [1/σ², 2z/σ; 2z/σ, 2z²], with
z = (y − m)/σ: indefinite for a label near the mean, while Λ is not.

Source: Seber and Wild (1989), Nonlinear regression, section 2.2.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families.domains import POSITIVE_DEFINITE, REAL, Domain
from ngvi.families.parameters import checked
from ngvi.families.parameters import family as record
from ngvi.families.special import expm1_minus
from ngvi.fisher.likelihoods.base import (
    Likelihood,
    block_columns,
    check_floating,
    check_support,
    like,
)
from ngvi.fisher.likelihoods.elementwise import Elementwise, Triangle, Values
from ngvi.linalg import Dense, PositiveDefinite

HALF_LOG_2PI = math.log(2 * math.pi) / 2


@record
class Gaussian(Elementwise):
    """y ~ N(f, scale²), independent entries.

    Args:
        scale: the sd σ > 0, one number or one for each output.

    Example:
        >>> import jax.numpy as jnp
        >>> float(Gaussian(0.5).fisher_mv(jnp.array(3.0), jnp.array(1.0)))
        4.0
    """

    scale: Any = 1.0

    natural: ClassVar[bool] = True
    location: ClassVar[str] = "mean"
    support: ClassVar[Domain] = REAL

    def unit_deviance(self, y: Values, *f: Values) -> Values:
        return ((y - f[0]) / like(self.scale, f[0])) ** 2

    def log_prob_each(self, y: Values, *f: Values) -> Values:
        log_scale = jnp.log(like(self.scale, f[0]))
        return -self.unit_deviance(y, *f) / 2 - log_scale - HALF_LOG_2PI

    def sample_each(self, key: Key[Array, ""], *f: Values) -> Values:
        (mean,) = f
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return mean + like(self.scale, mean) * noise

    def mean_each(self, *f: Values) -> Values:
        return f[0]

    def information(self, *f: Values) -> Triangle:
        precision = like(self.scale, f[0]) ** -2
        return ((jnp.broadcast_to(precision, f[0].shape),),)

    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        return ((f[0] - g[0]) / like(self.scale, f[0])) ** 2 / 2


@record
class HeteroscedasticGaussian(Elementwise):
    """y ~ N(m, σ²) with outputs (m, log σ); a learned noise is a shared log σ.

    Example:
        >>> import jax.numpy as jnp
        >>> f = (jnp.array(3.0), jnp.log(jnp.array(0.5)))
        >>> [float(v) for v in HeteroscedasticGaussian().fisher_mv(f, (1.0, 1.0))]
        [4.0, 2.0]
    """

    outputs: ClassVar[tuple[str, ...]] = ("mean", "log sd")
    support: ClassVar[Domain] = REAL

    def log_prob_each(self, y: Values, *f: Values) -> Values:
        mean, log_sd = f
        return -(((y - mean) * jnp.exp(-log_sd)) ** 2) / 2 - log_sd - HALF_LOG_2PI

    def sample_each(self, key: Key[Array, ""], *f: Values) -> Values:
        mean, log_sd = f
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return mean + jnp.exp(log_sd) * noise

    def mean_each(self, *f: Values) -> Values:
        return f[0]

    def information(self, *f: Values) -> Triangle:
        precision = jnp.exp(-2 * f[1])
        return (
            (precision,),
            (jnp.zeros_like(precision), jnp.full_like(precision, 2)),
        )

    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        change = expm1_minus(2 * (f[1] - g[1]))
        return (change + ((f[0] - g[0]) * jnp.exp(-g[1])) ** 2) / 2


@record
class MultivariateGaussian(Likelihood):
    """y ~ N(f, P⁻¹) over the last axis of f; vectors on other axes are independent.

    Args:
        precision: P, any structure of `ngvi.linalg`; see `from_covariance`.
    """

    precision: PositiveDefinite

    natural: ClassVar[bool] = True

    @classmethod
    def from_covariance(cls, covariance: Float[Array, "d d"]) -> Self:
        """With a dense covariance matrix.

        Raises:
            ValueError: it is not symmetric positive definite.
        """
        name = "MultivariateGaussian: covariance"
        covariance = checked(covariance, POSITIVE_DEFINITE, name)
        return cls(Dense.from_moments(covariance))

    def log_prob(self, f: Float[Array, "*e d"], y: Array) -> Float[Array, ""]:
        distance = (self.precision.whiten(like(y, f) - f) ** 2).sum()
        vectors = math.prod(f.shape[:-1])
        constant = vectors * self.precision.logdet() / 2 - f.size * HALF_LOG_2PI
        return constant.astype(f.dtype) - distance / 2

    def sample(self, key: Key[Array, ""], f: Float[Array, "*e d"]) -> Array:
        return f + self.precision.unwhiten(jax.random.normal(key, f.shape, f.dtype))

    def mean(self, f: Float[Array, "*e d"]) -> Array:
        return f

    def fisher_mv(self, f: Float[Array, "*e d"], v: Array) -> Array:
        return self.precision.mv(v)

    def root_columns(self, f: Float[Array, "*e d"]) -> Array:
        # Row i of Bᵀ applied to the basis is row i of B.
        root = self.precision.whiten(jnp.eye(f.shape[-1], dtype=f.dtype))
        columns = jnp.broadcast_to(root.T, (*f.shape, f.shape[-1]))
        return block_columns(columns, f.shape[:-1])

    def kl(self, f: Float[Array, "*e d"], g: Array) -> Float[Array, ""]:
        return (self.precision.whiten(f - g) ** 2).sum() / 2

    def check_outputs(self, outputs: Any) -> None:
        check_floating(self._name, "the output", outputs)
        width = outputs.shape[-1] if len(outputs.shape) > 1 else 0
        if width != self.precision.dim:
            raise ValueError(
                f"{self._name}: the precision is of {self.precision.dim} outputs, "
                f"got outputs of shape {tuple(outputs.shape)}"
            )

    def check_labels(self, outputs: Any, y: Array) -> None:
        check_support(self._name, REAL, y, tuple(outputs.shape))
