"""A model as the optimisers see it: its mean loss, and what follows from it.

    L(θ) = (1/N) Σ −log p(y | f_θ(x)),   M(s) = gᵀ s + ½ sᵀ F s

The weights are one vector θ, in single precision at least; the model is given them in
the precision of the parameters that the training began with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.batches import Batch, count
from ngvi.fisher.kinds import Kind
from ngvi.fisher.layout import Layout
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.problem import Problem
from ngvi.nets.net import Net
from ngvi.nets.pieces import over_parts


@dataclass(frozen=True)
class Model:
    """f_θ(x), of a vector θ.

    Args:
        net: with the order of the vector.
        dtypes: of the parameters' leaves.
    """

    net: Net
    dtypes: tuple[Any, ...]

    @classmethod
    def of(cls, net: Net, params: Any, by_layers: bool) -> Self:
        """Of parameters; in the order of the layers, or of `ravel_pytree`."""
        if not by_layers:
            net = replace(net, layout=Layout.of(params))
        return cls(net, tuple(leaf.dtype for leaf in jax.tree.leaves(params)))

    @property
    def dtype(self) -> Any:
        """Of θ."""
        return jnp.promote_types(self.net.dtype, jnp.float32)

    def vector(self, tree: Any) -> Float[Array, "p"]:
        """θ of a pytree like the parameters."""
        leaves, treedef = jax.tree.flatten(tree)
        wide = [jnp.asarray(leaf, self.dtype) for leaf in leaves]
        return self.net.layout.vector(jax.tree.unflatten(treedef, wide))

    def params(self, w: Float[Array, "p"]) -> Any:
        """The parameters, in their own precision."""
        return self._narrowed(self.net.layout.tree(w))

    def outputs(self, w: Float[Array, "p"], x: Any) -> Any:
        """f."""
        return self.net.apply(self.params(w), x)

    def loss(
        self, w: Float[Array, "p"], likelihood: Likelihood, batch: Batch, parts: int
    ) -> Float[Array, ""]:
        """L over a batch that is taken in so many parts."""

        def mean(part: Batch) -> tuple[Float[Array, ""], tuple[()]]:
            return self._loss(self.net.layout.tree(w), likelihood, part), ()

        return over_parts(mean, batch, parts)[0]

    def gradient(
        self, w: Float[Array, "p"], likelihood: Likelihood, batch: Batch, parts: int
    ) -> tuple[Float[Array, ""], Float[Array, "p"]]:
        """L and ∇L, likewise."""

        wide = self.net.layout.tree(w)

        def mean(part: Batch) -> tuple[Any, tuple[()]]:
            # By the leaves: to slice a vector has a long derivative.
            loss, slopes = jax.value_and_grad(self._loss)(wide, likelihood, part)
            return (loss, self.net.layout.vector(slopes)), ()

        return over_parts(mean, batch, parts)[0]

    def _loss(
        self, wide: Any, likelihood: Likelihood, batch: Batch
    ) -> Float[Array, ""]:
        """L at parameters in the precision of θ."""
        outputs = self.net.apply(self._narrowed(wide), batch.x)
        each = jax.vmap(likelihood.log_prob)(outputs, batch.y)
        return -each.astype(self.dtype).mean()

    def _narrowed(self, wide: Any) -> Any:
        leaves, treedef = jax.tree.flatten(wide)
        pairs = zip(leaves, self.dtypes, strict=True)
        return jax.tree.unflatten(treedef, [leaf.astype(to) for leaf, to in pairs])

    def quadratic(
        self,
        w: Float[Array, "p"],
        likelihood: Likelihood,
        kind: Kind,
        batch: Batch,
        parts: int,
        directions: Float[Array, "k p"],
    ) -> Float[Array, "k k"]:
        """dᵢᵀ F dⱼ, exactly, by products forward alone."""

        def mean(part: Batch) -> tuple[Float[Array, "k k"], tuple[()]]:
            def along(d: Float[Array, "p"]) -> tuple[Any, Any]:
                return jax.jvp(lambda w: self.outputs(w, part.x), (w,), (d,))

            f, images = jax.vmap(along, out_axes=(None, 0))(directions)

            def inner(f: Any, example: Batch, images: Any) -> Float[Array, "k k"]:
                def one(image: Any) -> Any:
                    return kind.mv(likelihood, f, example, image)

                flat = _rows(images, self.dtype)
                return flat @ _rows(jax.vmap(one)(images), self.dtype).T

            of_axes = (0, 0, 1)
            return jax.vmap(inner, of_axes)(f, part, images).mean(0), ()

        return over_parts(mean, batch, parts)[0]

    def problem(
        self,
        w: Float[Array, "p"],
        likelihood: Likelihood,
        kind: Kind,
        batch: Batch,
        key: Key[Array, ""],
        whole: bool,
    ) -> Problem:
        """What the Fisher engine is given.

        Args:
            w: θ.
            likelihood: of the labels.
            kind: of curvature.
            batch: the examples.
            key: of labels drawn.
            whole: take all examples at once, as those over several devices have to be.
        """
        n = count(batch)
        keys = jax.random.split(key, n) if kind.needs_key else None
        data = Batch(batch.x, batch.y if kind.needs_labels else None, keys)
        size = n if whole else None
        apply, network = self.net.apply, self.net.network
        return Problem(likelihood, self.params(w), data, apply, kind, network, size)


def _rows(tree: Any, dtype: Any) -> Float[Array, "k c"]:
    leaves = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate(leaves, 1).astype(dtype)
