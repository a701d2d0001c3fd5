"""A posterior as a NumPyro guide.

NumPyro's AutoMultivariateNormal is N(loc, L Lᵀ) on the unconstrained space, its
coordinates in an order of its own. Our Gaussian N(m, A Aᵀ) becomes one by writing m in
that order and L as the triangular factor of A: with Aᵀ = Q R, A Aᵀ = Rᵀ R, so L = Rᵀ.
The covariance itself is never formed, which would cost half the digits in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro import handlers
from numpyro.infer import init_to_value
from numpyro.infer.autoguide import AutoMultivariateNormal

from ngvi.bayes.model_trace import is_latent
from ngvi.families import Gaussian

if TYPE_CHECKING:
    from ngvi.bayes.posterior import Posterior

LARGEST_GUIDE = 5000
"""Dimensions up to which a D × D matrix is affordable."""


def as_guide(posterior: Posterior) -> tuple[AutoMultivariateNormal, dict[str, Array]]:
    """The guide that draws from a posterior's Gaussian, and its parameters.

    Args:
        posterior: of a NumPyro model; the covariance may be full or diagonal.

    Returns:
        The guide, set up on the fitted data, and {"auto_loc": …, "auto_scale_tril": …}
        for `guide.sample_posterior(key, params, sample_shape=(S,))`,
        `Predictive(guide, params=params, num_samples=S)` and the like. Discrete sites
        that were summed out are no part of the guide.

    Raises:
        TypeError: the posterior is of a plain log density.
        ValueError: there are too many dimensions for the guide's D × D parameters.

    Example:
        >>> guide, params = posterior.as_guide()                 # doctest: +SKIP
        >>> guide.sample_posterior(key, params, sample_shape=(9,))  # doctest: +SKIP
    """
    target = posterior._model()
    args, kwargs = target.arguments.join(posterior.data)
    q = posterior.gaussian
    if q.dim > LARGEST_GUIDE:
        raise ValueError(
            f"AutoMultivariateNormal holds D × D numbers: {q.dim:,d} dimensions are "
            f"too many (at most {LARGEST_GUIDE:,d}). Use posterior.sample(n)."
        )
    model = target.program
    names = {site.name for site in target.sites}
    trace = posterior.trace or {}
    summed = [n for n, site in trace.items() if is_latent(site) and n not in names]
    if summed:
        # A hidden site gets no key from outside.
        model = handlers.block(handlers.seed(model, 0), hide=summed)
    centre = jax.jit(target.constrain)(posterior.data, q.mean)
    start = {name: centre[name] for name in names}
    guide = AutoMultivariateNormal(model, init_loc_fn=init_to_value(values=start))
    with handlers.block(), handlers.seed(rng_seed=0):
        guide(*args, **kwargs)

    # The guide's layout, found by unpacking the indices 0, …, D − 1 there and here.
    index = jnp.arange(q.dim)
    theirs, ours = jax.device_get((guide._unpack_latent(index), target.unravel(index)))
    order = np.zeros(q.dim, int)
    for name in names:
        order[theirs[name].ravel()] = ours[name].ravel()

    params = {
        f"{guide.prefix}_loc": q.mean[order],
        f"{guide.prefix}_scale_tril": _scale_tril(q, order),
    }
    return guide, params


@jax.jit
def _scale_tril(q: Gaussian, order: Int[Array, "d"]) -> Float[Array, "d d"]:
    """The lower triangular L with L Lᵀ the covariance, coordinates reordered."""
    columns = q.precision.unwhiten(jnp.eye(q.dim, dtype=q.mean.dtype))  # rows A eᵢ
    triangle = jnp.linalg.qr(columns[:, order], mode="r")
    signs = jnp.where(jnp.diagonal(triangle) < 0, -1, 1).astype(q.mean.dtype)
    return (signs[:, None] * triangle).T
