"""From distributions of NumPyro to families; each family knows its own counterpart."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ngvi.families.base import ExponentialFamily
from ngvi.families.product import Product


def from_numpyro(distribution: Any) -> ExponentialFamily:
    """The member of a family equal to a distribution of `numpyro.distributions`.

    `expand` gives a batch of members; `to_event` gives the product of the batch's
    members (`Product`) as one joint distribution.

    Raises:
        TypeError: no family here is the distribution's.

    Example:
        >>> import numpyro.distributions as dist
        >>> float(from_numpyro(dist.Gamma(3.0, 2.0)).mean)
        1.5
    """
    import numpyro.distributions as dist

    if isinstance(distribution, dist.Independent):
        factor = from_numpyro(distribution.base_dist)
        # The parts of a product's parts are parts of one product.
        factors = factor.factors if isinstance(factor, Product) else factor
        return Product(factors, batch_ndim=len(distribution.batch_shape))
    if isinstance(distribution, dist.ExpandedDistribution):
        return _expand(from_numpyro(distribution.base_dist), distribution.batch_shape)
    name = type(distribution).__name__
    counterparts = {
        n: c for c in _subclasses(ExponentialFamily) for n in c.numpyro_names
    }
    if name in counterparts:
        return counterparts[name].from_numpyro(distribution)
    known = ", ".join(sorted(counterparts))
    raise TypeError(f"no family here is numpyro's {name}; known are {known}")


def common_number(values: Any, what: str) -> float:
    """The one number that all entries of an array are.

    Raises:
        ValueError: they differ.
    """
    distinct = np.unique(np.asarray(values))
    if distinct.size != 1:
        raise ValueError(
            f"{what} is one number for a whole batch, got {distinct.size} different"
        )
    return float(distinct[0])


def _subclasses(cls: Any) -> list[Any]:
    below = cls.__subclasses__()
    return [*below, *(deeper for c in below for deeper in _subclasses(c))]


def _expand(member: ExponentialFamily, shape: tuple[int, ...]) -> ExponentialFamily:
    """A batch of the same member."""
    batch = len(member.batch_shape)

    def expanded(node: Any) -> Any:
        if isinstance(node, Product):
            factors = jax.tree.map(expanded, node.factors, is_leaf=_is_product)
            return Product(factors, node.batch_ndim + len(shape) - batch)
        return jnp.broadcast_to(node, (*shape, *node.shape[batch:]))

    return jax.tree.map(expanded, member, is_leaf=_is_product)


def _is_product(node: Any) -> bool:
    return isinstance(node, Product)
