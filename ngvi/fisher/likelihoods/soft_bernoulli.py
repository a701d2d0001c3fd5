"""Labels that are probabilities: the cross-entropy of a Bernoulli distribution.

    log p(y | f) = y f − softplus(f),   0 ≤ y ≤ 1,   Λ = p (1 − p),  p = σ(f):

the mean of the Bernoulli log probability over labels that are 1 with probability y,
such as the grey levels of an image. Its curvature is that of the Bernoulli likelihood.

Source: Hinton and Salakhutdinov (2006), Reducing the dimensionality of data with neural
networks.
"""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Array, Key

from ngvi.families.domains import Domain
from ngvi.families.parameters import family as record
from ngvi.families.special.logistic import softplus
from ngvi.fisher.likelihoods.counts import Bernoulli
from ngvi.fisher.likelihoods.elementwise import Elementwise, Triangle, Values

_PROBABILITY = Domain(
    "probabilities, from 0 to 1", 0, lambda y, xp: (y >= 0) & (y <= 1)
)


@record
class SoftBernoulli(Elementwise):
    """y ∈ [0, 1], probabilities of a 1, with logits f.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(SoftBernoulli().log_prob(jnp.array(0.0), jnp.array(0.3))), 4)
        -0.6931
    """

    natural: ClassVar[bool] = True
    location: ClassVar[str] = "logit mean"
    support: ClassVar[Domain] = _PROBABILITY

    def log_prob_each(self, y: Values, *f: Values) -> Values:
        return y * f[0] - softplus(f[0])

    def sample_each(self, key: Key[Array, ""], *f: Values) -> Array:
        return Bernoulli().sample_each(key, *f)

    def mean_each(self, *f: Values) -> Values:
        return Bernoulli().mean_each(*f)

    def information(self, *f: Values) -> Triangle:
        return Bernoulli().information(*f)

    def kl_each(self, f: tuple[Values, ...], g: tuple[Values, ...]) -> Values:
        return Bernoulli().kl_each(f, g)
