"""The order in which the numbers of a pytree stand in one vector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from numbers import Real
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def numbers_like_x0(name: str, value: Any, dim: int) -> np.ndarray:
    """One number, or one for each of x0's, or a pytree like x0, as 1 or D numbers.

    Raises:
        ValueError: another count.
    """
    leaves = [np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(value)]
    numbers = np.concatenate(leaves) if leaves else np.zeros(1)
    if numbers.size not in (1, dim):
        raise ValueError(
            f"{name} must be one number or {dim}, as x0 has, got {numbers.size}"
        )
    return numbers


@dataclass(frozen=True)
class Layout:
    """How x0 is built of arrays; hashable, so that `jit` knows it."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, x0: Any) -> tuple[Self, Float[Array, "d"]]:
        """The layout of x0, and x0 as a vector.

        A list or tuple of plain numbers is a vector, as in SciPy.

        Raises:
            TypeError: something in x0 is no real number.
            ValueError: x0 is empty, or not finite.
        """
        if isinstance(x0, list | tuple) and x0 and all(isinstance(v, Real) for v in x0):
            x0 = np.asarray(x0, float)
        leaves, structure = jax.tree.flatten(x0)
        try:
            arrays = [jnp.asarray(leaf) for leaf in leaves]
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"x0 must be a real array or a pytree of them: {error}"
            ) from error
        if any(jnp.issubdtype(a.dtype, jnp.complexfloating) for a in arrays):
            raise TypeError("x0 must be real, got complex numbers")
        if not sum(a.size for a in arrays):
            raise ValueError("x0 is empty: there is nothing to search")
        dtype = jnp.result_type(*arrays)
        if not jnp.issubdtype(dtype, jnp.floating):
            dtype = jnp.result_type(float)
        vector = jnp.concatenate([a.ravel().astype(dtype) for a in arrays])
        if not bool(jnp.isfinite(vector).all()):
            bad = np.flatnonzero(~np.isfinite(vector))[:5].tolist()
            raise ValueError(f"x0 must be finite; it is not at the positions {bad}")
        return cls(structure, tuple(a.shape for a in arrays)), vector

    @property
    def dim(self) -> int:
        """D."""
        return sum(math.prod(shape) for shape in self.shapes)

    @cached_property
    def _is_vector(self) -> bool:
        """Whether x0 is one already."""
        return (
            jax.tree_util.treedef_is_leaf(self.structure) and len(self.shapes[0]) == 1
        )

    def unflatten(self, vector: Any) -> Any:
        """The pytree of a vector (..., D); its arrays keep the leading axes."""
        if self._is_vector:
            return vector
        sizes = [math.prod(shape) for shape in self.shapes]
        ends = accumulate(sizes, initial=0)
        leaves = [
            vector[..., a:b].reshape((*vector.shape[:-1], *shape))
            for (a, b), shape in zip(pairwise(ends), self.shapes, strict=True)
        ]
        return jax.tree.unflatten(self.structure, leaves)
