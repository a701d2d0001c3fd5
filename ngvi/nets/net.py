"""A net as the algorithms see it: outputs as a function of one vector of weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ngvi.fisher.batches import Batch
from ngvi.fisher.kinds import Kind
from ngvi.fisher.layers import Network, discover
from ngvi.fisher.layers.find import UNUSED
from ngvi.fisher.layout import Layout
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.problem import Apply, Problem


@dataclass(frozen=True)
class Net:
    """f(w, x) with the weights w in the order of a layout, layer by layer.

    Args:
        apply: (params, x) ↦ outputs, the examples along the first axis.
        network: the layers found in it.
        layout: how its parameters become w.
        dtype: of w.
    """

    apply: Apply
    network: Network
    layout: Layout
    dtype: Any

    @classmethod
    def of(cls, apply: Apply, params: Any, x: Any) -> Self:
        """A net, from its parameters and examples, or from their shapes.

        Raises:
            ValueError: parameters that are no floating numbers, or that the outputs do
                not depend on.
        """
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            where = jax.tree_util.keystr(path)
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise ValueError(
                    f"params{where} must be floating numbers to have a posterior, got "
                    f"{jnp.result_type(leaf)}: keep it in apply, or in x"
                )
        network = discover(apply, params, x)
        for leaf, reason in zip(network.rest, network.reasons, strict=True):
            if reason == UNUSED:
                raise ValueError(
                    f"the outputs do not depend on the parameter {network.names[leaf]}:"
                    " its posterior is its prior; leave it out of params"
                )
        dtype = jnp.result_type(*jax.tree.leaves(params))
        return cls(apply, network, Layout.of(params, network), dtype)

    @property
    def dim(self) -> int:
        """P, the number of weights."""
        return self.layout.dim

    @property
    def zeros(self) -> Float[Array, "p"]:
        """Weights of zero, in the parameters' precision."""
        return jnp.zeros(self.dim, self.dtype)

    def __call__(self, w: Float[Array, "p"], x: Any) -> Any:
        return self.apply(self.layout.tree(w), x)

    def loss(
        self, w: Float[Array, "p"], likelihood: Likelihood, x: Any, y: Any
    ) -> tuple[Float[Array, ""], Any]:
        """The mean of −log p(y | f), and f."""
        outputs = self(w, x)
        return -jax.vmap(likelihood.log_prob)(outputs, y).mean(), outputs

    def gradient(
        self, w: Float[Array, "p"], likelihood: Likelihood, x: Any, y: Any
    ) -> tuple[Float[Array, "p"], Any]:
        """That of the loss, and f."""
        return jax.grad(self.loss, has_aux=True)(w, likelihood, x, y)

    def problem(
        self, w: Float[Array, "p"], likelihood: Likelihood, kind: Kind, batch: Batch
    ) -> Problem:
        """What the Fisher engine takes, all of the batch at once."""
        params = self.layout.tree(w)
        return Problem(likelihood, params, batch, self.apply, kind, self.network, None)

    def check_examples_apart(self, params: Any, x: Any) -> None:
        """Refuse a model whose output for an example depends on the others.

        Raises:
            ValueError: as batch normalisation does in training.
        """
        few = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:3], x)
        one = jax.tree.map(lambda leaf: leaf[:1], few)
        together, alone = map(jax.tree.leaves, _on_both(self.apply, params, few, one))
        for whole, one in zip(together, alone, strict=True):
            if not np.allclose(whole[:1], one, rtol=1e-2, atol=1e-4, equal_nan=True):
                raise ValueError(
                    "the output for an example changes with the others in its batch, "
                    "as with batch normalisation in training: no likelihood of single "
                    "examples exists. Take running averages (evaluation mode), or "
                    "another normalisation, such as LayerNorm"
                )


@partial(jax.jit, static_argnums=0)
def _on_both(apply: Apply, params: Any, x: Any, y: Any) -> tuple[Any, Any]:
    return apply(params, x), apply(params, y)
