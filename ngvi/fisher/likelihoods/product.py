"""Several independent outputs of a model, each with a likelihood of its own.

p(y | f) = Π_i p_i(y_i | f_i),   Λ is block-diagonal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.families.parameters import family as record
from ngvi.fisher.likelihoods.base import Labels, Likelihood, Outputs


@record
class Product(Likelihood):
    """Likelihoods of the parts of a tuple, list or dict of outputs, and of labels.

    Args:
        parts: a tuple, list or dict of likelihoods; f and y are containers of the same
            kind.

    Example:
        >>> from ngvi.fisher.likelihoods import Gaussian, Poisson
        >>> heads = Product({"length": Gaussian(0.1), "count": Poisson()})
    """

    parts: Any

    def __post_init__(self) -> None:
        children = _children(self.parts)
        if not children or not all(isinstance(c, Likelihood) for c in children):
            raise ValueError(
                "Product: parts must be a tuple, list or dict of likelihoods, got "
                f"{self.parts!r}"
            )

    @property
    def natural(self) -> bool:
        return all(part.natural for part in _children(self.parts))

    def _map(self, function: Callable[..., Any], *trees: Any) -> Any:
        """function(part, its share of each tree), in the container of the parts."""
        return jax.tree.map(function, self.parts, *trees, is_leaf=_is_likelihood)

    def _sum(self, function: Callable[..., Any], *trees: Any) -> Float[Array, ""]:
        return jnp.asarray(sum(jax.tree.leaves(self._map(function, *trees))))

    def log_prob(self, f: Outputs, y: Labels) -> Float[Array, ""]:
        return self._sum(lambda part, *a: part.log_prob(*a), f, y)

    def sample(self, key: Key[Array, ""], f: Outputs) -> Labels:
        keys = iter(jax.random.split(key, len(_children(self.parts))))
        return self._map(lambda part, a: part.sample(next(keys), a), f)

    def mean(self, f: Outputs) -> Any:
        return self._map(lambda part, a: part.mean(a), f)

    def gradient(self, f: Outputs, y: Labels) -> Outputs:
        return self._map(lambda part, *a: part.gradient(*a), f, y)

    def hessian_mv(self, f: Outputs, y: Labels, v: Outputs) -> Outputs:
        return self._map(lambda part, *a: part.hessian_mv(*a), f, y, v)

    def fisher_mv(self, f: Outputs, v: Outputs) -> Outputs:
        return self._map(lambda part, *a: part.fisher_mv(*a), f, v)

    def root_columns(self, f: Outputs) -> Outputs:
        each = self._map(lambda part, a: part.root_columns(a), f)
        counts = [jax.tree.leaves(c)[0].shape[0] for c in self._shares(each)]
        starts = iter([sum(counts[:i]) for i in range(len(counts))])
        total = sum(counts)

        def placed(part: Likelihood, columns: Outputs) -> Outputs:
            start = next(starts)

            def padded(leaf: Array) -> Array:
                rest = total - start - leaf.shape[0]
                return jnp.pad(leaf, [(start, rest), *[(0, 0)] * (leaf.ndim - 1)])

            return jax.tree.map(padded, columns)

        return self._map(placed, each)

    def kl(self, f: Outputs, g: Outputs) -> Float[Array, ""]:
        return self._sum(lambda part, *a: part.kl(*a), f, g)

    def check_outputs(self, outputs: Outputs) -> None:
        self._check_containers("outputs", outputs)
        self._map(lambda part, a: part.check_outputs(a), outputs)

    def check_labels(self, outputs: Outputs, y: Labels) -> None:
        self._check_containers("labels", y)
        self._map(lambda part, *a: part.check_labels(*a), outputs, y)

    def _check_containers(self, what: str, tree: Any) -> None:
        try:
            self._shares(tree)
        except (ValueError, TypeError):
            raise ValueError(
                f"{self._name}: the {what} must be a container like the parts, "
                f"{self._map(lambda part: part._name)}, got a {type(tree).__name__}"
            ) from None

    def _shares(self, tree: Any) -> list[Any]:
        """The share of each part, in order."""
        shares: list[Any] = []
        self._map(lambda _, share: shares.append(share), tree)
        return shares


def _is_likelihood(node: Any) -> bool:
    return isinstance(node, Likelihood)


def _children(parts: Any) -> list[Any]:
    return jax.tree.leaves(parts, is_leaf=_is_likelihood)
