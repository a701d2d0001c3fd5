"""Coordinates without bounds for the members of a family.

A step in them cannot leave the family. Each positive parameter has its logarithm, one
above a limit a₀ has log(a − a₀), a positive-definite matrix the entries of its Cholesky
root with the diagonal's logarithms; a step d log a is the exponential map

    a⁺ = a₀ + (a − a₀) exp(step / (a − a₀))

of a positive block of λ. Families whose every λ is a member's have λ itself.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ngvi.families.base import ExponentialFamily
from ngvi.families.domains import (
    POSITIVE_DEFINITE,
    REAL,
    REAL_MATRIX,
    REAL_VECTOR,
    Domain,
)
from ngvi.families.factored import factor
from ngvi.families.parameters import domains
from ngvi.linalg.small import gram


def to_free(member: ExponentialFamily) -> Float[Array, "*b n"]:
    """The coordinates of a member, or of a batch.

    Raises:
        NotImplementedError: a parameter of the family has none.
    """
    if member.natural_everywhere:
        return member.flatten(member.natural_params)
    batch = member.batch_shape
    parts = [
        _free(getattr(member, name), domain).reshape(*batch, -1)
        for name, domain in domains(member).items()
    ]
    return jnp.concatenate(parts, -1)


def from_free(
    like: ExponentialFamily, vector: Float[Array, "*b n"]
) -> ExponentialFamily:
    """The member with these coordinates, of the family and size of another one."""
    if like.natural_everywhere:
        return like.with_natural_params(like.unflatten(vector))
    batch = len(like.batch_shape)
    values: dict[str, Any] = {}
    start = 0
    for name, domain in domains(like).items():
        shape = getattr(like, name).shape[batch:]
        size = _size(shape, domain)
        values[name] = _bound(vector[..., start : start + size], shape, domain)
        start += size
    parameters: Any = like  # a dataclass, like every family
    return dataclasses.replace(parameters, **values)


def _size(shape: tuple[int, ...], domain: Domain) -> int:
    if domain is POSITIVE_DEFINITE:
        return shape[0] * (shape[0] + 1) // 2
    return math.prod(shape)


def _free(value: Array, domain: Domain) -> Array:
    if domain.low is not None:
        return jnp.log(value - domain.low)
    if domain in (REAL, REAL_VECTOR, REAL_MATRIX):
        return value
    if domain is POSITIVE_DEFINITE:
        rows, columns = jnp.tril_indices(value.shape[-1])
        entries = factor(value).root[..., rows, columns]
        on = rows == columns
        return jnp.where(on, jnp.log(jnp.where(on, entries, 1)), entries)
    raise NotImplementedError(
        f"no coordinates without bounds for what must be {domain.description}"
    )


def _bound(part: Array, shape: tuple[int, ...], domain: Domain) -> Array:
    if domain is POSITIVE_DEFINITE:
        rows, columns = jnp.tril_indices(shape[0])
        on = rows == columns
        entries = jnp.where(on, jnp.exp(jnp.where(on, part, 0)), part)
        root = jnp.zeros((*part.shape[:-1], *shape), part.dtype)
        return gram(root.at[..., rows, columns].set(entries).mT)
    value = part.reshape(*part.shape[:-1], *shape)
    return value if domain.low is None else domain.low + jnp.exp(value)
