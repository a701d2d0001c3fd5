"""What is fitted: a log density on ℝᴰ, from a NumPyro model or a plain JAX function.

A target is split in two. The *static* part (the function, its Python-valued arguments,
the sites and their shapes) is hashable and equal for equal models, so it keys JAX's
compilation cache; the *data* are arrays handed to every compiled program as arguments,
so a second fit with new data of the same shape compiles nothing.

The density is prior times likelihood, and both can be weighed:

    ℓ(z) = −log prior(z) − β log lik(data | z),    prior = p₀, or q^(1−f) p₀^f

with p₀ the model's own prior, q an earlier posterior in its place, f how much of what q
has learned is forgotten, and β the power of the likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ngvi.families import Gaussian
from ngvi.names import scalar_names


class Data(NamedTuple):
    """The arrays that a compiled program is called with."""

    arrays: tuple[Array, ...]
    """Those among the arguments, in the order of the flattened arguments."""
    rows: dict[str, Int[Array, "b"]] | None = None
    """Of the subsampled plates, the indices of a batch; None for all of them."""
    prior: Gaussian | None = None
    """q, in the place of the model's own prior."""
    forgetting: Float[Array, ""] | None = None
    """f; None for 0."""
    power: Float[Array, ""] | None = None
    """β; None for 1."""


@dataclass(frozen=True, eq=False)
class ById:
    """What is equal only to itself, such as an argument that has no hash."""

    value: Any

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and other.value is self.value


@dataclass(frozen=True)
class Arguments:
    """The static part of (args, kwargs): everything but the arrays' values."""

    treedef: Any
    static: tuple[Any, ...]
    """One entry a leaf; `_Place.ARRAY` where an array goes."""

    @staticmethod
    def split(
        args: tuple, kwargs: dict[str, Any], constant: bool = False
    ) -> tuple[Arguments, Data]:
        """Separate arrays from the rest.

        Args:
            args: positional arguments.
            kwargs: keyword arguments.
            constant: keep arrays as constants of the program too, for a model that
                computes shapes or branches from their values.
        """
        # None is data that is absent, not an empty subtree.
        leaves, treedef = jax.tree.flatten((args, kwargs), is_leaf=lambda x: x is None)
        static: list[Any] = []
        arrays: list[Array] = []
        for leaf in leaves:
            if _is_data(leaf) and not constant:
                static.append(_Place.ARRAY)
                arrays.append(jnp.asarray(leaf))
                continue
            try:
                hash(leaf)
                static.append(leaf)
            except TypeError:
                static.append(ById(leaf))
        return Arguments(treedef, tuple(static)), Data(tuple(arrays))

    def join(self, data: Data) -> tuple[tuple, dict[str, Any]]:
        """(args, kwargs) with these arrays in their places."""
        arrays = iter(data.arrays)

        def value(leaf: Any) -> Any:
            if leaf is _Place.ARRAY:
                return next(arrays)
            return leaf.value if isinstance(leaf, ById) else leaf

        return jax.tree.unflatten(self.treedef, [value(leaf) for leaf in self.static])


def _is_data(leaf: Any) -> bool:
    """Whether an argument is an array of numbers, or of JAX's random keys."""
    if not isinstance(leaf, np.ndarray | np.generic | jax.Array):
        return False
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return True
    return leaf.dtype.kind in "biufc"


class _Place(Enum):
    """One of a kind, also after pickling."""

    ARRAY = auto()


class Target(Protocol):
    """The static part of what is fitted; hashable."""

    @property
    def arguments(self) -> Arguments:
        """That of the function's arguments."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the D unconstrained coordinates."""
        ...

    @property
    def dim(self) -> int:
        """D."""
        ...

    @property
    def differentiable(self) -> bool:
        """Whether ℓ has a gradient in all coordinates."""
        ...

    def potential(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        """ℓ: −log p(z, data), the Jacobian of the transforms included."""
        ...

    def joint(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        """−log p₀(z) − log lik(data | z)."""
        ...

    def own_prior(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        """−log p₀(z)."""
        ...

    def likelihood(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        """−log lik(data | z); of a batch of rows, its part of it."""
        ...

    def once(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        """What of −log lik(data | z) is in no batch of rows."""
        ...

    def constrain(self, data: Data, z: Float[Array, "d"]) -> dict[str, Array]:
        """The sites on the model's own supports, deterministic ones included."""
        ...


def prior_part(target: Target, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
    """What of ℓ is there once, however the data are cut into batches."""
    once = _powered(data, target.once(data, z))
    if data.prior is None:
        return once + target.own_prior(data, z)
    learned = -data.prior.log_prob(z)
    if data.forgetting is None:
        return once + learned
    f = data.forgetting
    return once + (1 - f) * learned + f * target.own_prior(data, z)


def data_part(target: Target, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
    """What of ℓ is a sum over batches: −β log lik(batch | z)."""
    return _powered(data, target.likelihood(data, z))


def _powered(data: Data, value: Array) -> Array:
    return value if data.power is None else data.power * value


def whole(target: Target, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
    """ℓ(z)."""
    if data.prior is None and data.power is None:
        return target.joint(data, z)
    return prior_part(target, data, z) + data_part(target, data, z)


@dataclass(frozen=True)
class FunctionTarget:
    """A log density given as a JAX function of a pytree."""

    function: Callable[..., Array]
    """log_density(params, *args, **kwargs) → scalar."""
    arguments: Arguments
    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    dtype: str

    @property
    def differentiable(self) -> bool:
        return True

    @property
    def sizes(self) -> list[int]:
        """Entries of each leaf."""
        return [int(np.prod(shape)) for shape in self.shapes]

    @property
    def dim(self) -> int:
        return sum(self.sizes)

    @property
    def leaf_names(self) -> list[str]:
        """A name for each leaf: its path in the pytree."""
        tree = jax.tree.unflatten(self.treedef, range(len(self.shapes)))
        paths = jax.tree_util.tree_flatten_with_path(tree)[0]
        names = [
            ".".join(jax.tree_util.keystr((key,), simple=True) for key in path)
            for path, _ in paths
        ]
        return [name or "z" for name in names]

    @property
    def names(self) -> tuple[str, ...]:
        parts = zip(self.leaf_names, self.shapes, strict=True)
        return tuple(n for name, shape in parts for n in scalar_names(name, shape))

    def leaves(self, z: Float[Array, "d"]) -> list[Array]:
        """The leaves that z is the concatenation of."""
        ends = np.cumsum(self.sizes)[:-1]
        parts = zip(jnp.split(z, ends), self.shapes, strict=True)
        return [part.reshape(shape) for part, shape in parts]

    def params(self, z: Float[Array, "d"]) -> Any:
        """The function's first argument."""
        return jax.tree.unflatten(self.treedef, self.leaves(z))

    def potential(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        return whole(self, data, z)

    def own_prior(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        """Flat: where a density is to be split, the function is the likelihood."""
        return jnp.zeros((), z.dtype)

    def likelihood(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        return self.joint(data, z)

    def once(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        return jnp.zeros((), z.dtype)

    def joint(self, data: Data, z: Float[Array, "d"]) -> Float[Array, ""]:
        args, kwargs = self.arguments.join(data)
        return -jnp.asarray(self.function(self.params(z), *args, **kwargs))

    def constrain(self, data: Data, z: Float[Array, "d"]) -> dict[str, Array]:
        return dict(zip(self.leaf_names, self.leaves(z), strict=True))


def function_target(
    log_density: Callable[..., Array], init: Any, args: tuple, kwargs: dict[str, Any]
) -> tuple[FunctionTarget, Data, Float[Array, "d"]]:
    """The target of `ngvi.fit(log_density, *args, init=pytree)` and where it starts.

    Raises:
        ValueError: `init` holds no number, or the function does not return a scalar.
    """
    leaves, treedef = jax.tree.flatten(init)
    dtype = jnp.result_type(float)
    arrays = [jnp.asarray(leaf, dtype) for leaf in leaves]
    if not sum(a.size for a in arrays):
        raise ValueError("init holds no number: nothing to infer.")
    arguments, data = Arguments.split(args, kwargs)
    target = FunctionTarget(
        log_density, arguments, treedef, tuple(a.shape for a in arrays), dtype.name
    )
    start = jnp.concatenate([a.ravel() for a in arrays])
    shape = jax.eval_shape(target.potential, data, start).shape
    if shape != ():
        raise ValueError(
            f"The log density must return a scalar; it returned shape {shape}."
        )
    return target, data, start
