"""Where a fit of a NumPyro model starts: at the center of its prior."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import biject_to

from ngvi.bayes.model_trace import base_dist


def _center(fn: dist.Distribution) -> Array | None:
    """A central value of a prior: its mean, or its median where that is infinite or can
    lie far out (a log-normal's); None where it has no closed form."""

    def median() -> Array:
        return fn.icdf(jnp.full(fn.shape(), 0.5))

    def mean() -> Array:
        return jnp.broadcast_to(fn.mean, fn.shape())

    pushed = isinstance(base_dist(fn), dist.TransformedDistribution)
    for value in (median, mean) if pushed else (mean, median):
        try:
            center = value()
        # What NumPyro raises where a formula is missing, or a package for it.
        except (NotImplementedError, AttributeError, TypeError, ImportError):
            continue
        if _finite(center):
            return center
    return None


def _finite(x: Array) -> bool:
    """Whether all values are finite, as far as is known: inside of a `scan` they are
    not, and taken for it."""
    return isinstance(x, jax.core.Tracer) or bool(np.isfinite(np.asarray(x)).all())


def init_to_prior_center(site: dict[str, Any] | None = None) -> Any:
    """Start each site at the center of its prior: the mean, or the median.

    A flat (improper) prior has neither: its site starts near 0 on the unconstrained
    line. Unlike `numpyro.infer.init_to_uniform`, this does not depend on the units in
    which a prior is written, and it is the same for every seed.
    """
    if site is None:
        return partial(init_to_prior_center)
    if site["type"] != "sample" or site["is_observed"]:
        return None
    fn = site["fn"]
    if fn.support is not None and fn.support.is_discrete:
        return None
    transform = biject_to(fn.support)
    sample_shape = site["kwargs"].get("sample_shape", ())
    if not isinstance(fn, dist.ImproperUniform):
        center = _center(fn)
        if center is not None:
            unconstrained = transform.inv(center)
            if _finite(unconstrained):
                return jnp.broadcast_to(center, sample_shape + fn.shape())
    # Not exactly 0: densities written with |x| or max(x, 0) have no curvature there.
    free = transform.inverse_shape(sample_shape + fn.shape())
    return transform(1e-6 * (1 + jnp.arange(np.prod(free, dtype=int))).reshape(free))
