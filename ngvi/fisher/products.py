"""Products with a curvature, without the curvature.

    F v = (1/N) Σ Jᵀ (C (J v)):

the model linearised, forward, the output curvature, and backward. A `Linearized` model
is kept with what its derivatives need, so that a product in a loop of conjugate
gradients costs no more than a gradient.

Source: Schraudolph (2002), Fast curvature matrix-vector products for second-order
gradient descent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ngvi.fisher.batches import Batch, sum_over
from ngvi.fisher.kinds import Hessian, Kind
from ngvi.fisher.layout import Layout
from ngvi.fisher.likelihoods import Likelihood
from ngvi.fisher.problem import Problem
from ngvi.pytrees import pytree

Tree = Any
"""A vector of parameters: a pytree like them."""

Product = Callable[[Tree], Tree]


@pytree
class Linearized:
    """v ↦ (1/N) Σ Jᵀ C J v of a model that has been linearised."""

    forward: Product
    """v ↦ J v."""
    likelihood: Likelihood
    outputs: Any
    data: Batch
    kind: Kind = field(metadata={"static": True})
    number: int = field(metadata={"static": True})

    def __call__(self, v: Tree) -> Tree:
        def one(f: Any, example: Batch, along: Any) -> Any:
            image = self.kind.mv(self.likelihood, f, example, along)
            # Here, because outputs are fewer than parameters.
            return jax.tree.map(lambda leaf: leaf / self.number, image)

        outer = jax.vmap(one)(self.outputs, self.data, self.forward(v))
        return jax.linear_transpose(self.forward, v)(outer)[0]


def linearized(problem: Problem, data: Batch) -> Product:
    """v ↦ (1/N) Σ Jᵀ C J v, over some of the N examples; a pytree."""
    number = problem.count

    def outputs(params: Any) -> Any:
        return problem.apply(params, data.x)

    if isinstance(problem.kind, Hessian):

        def loss(params: Any) -> Float[Array, ""]:
            log_prob = jax.vmap(problem.likelihood.log_prob)
            return -log_prob(outputs(params), data.y).sum() / number

        return jax.linearize(jax.grad(loss), problem.params)[1]
    f, forward = jax.linearize(outputs, problem.params)
    no_inputs = data._replace(x=None)
    return Linearized(forward, problem.likelihood, f, no_inputs, problem.kind, number)


@pytree
class InBatches:
    """v ↦ F v, with the activations of one batch at a time in memory: the model is
    linearised anew for each product."""

    problem: Problem

    def __call__(self, v: Tree) -> Tree:
        problem = self.problem
        return sum_over(
            lambda part: linearized(problem, part)(v), problem.data, problem.batch_size
        )


@pytree
class Noise:
    """key ↦ (1/√N) Σ Jᵀ C^½ ε, a draw from N(0, F) where C ⪰ 0."""

    problem: Problem

    def __call__(self, key: Key[Array, ""]) -> Tree:
        problem, n = self.problem, self.problem.count
        keyed = problem.data, jax.random.split(key, n)
        total = sum_over(self._total, keyed, problem.batch_size)
        return jax.tree.map(lambda leaf: leaf / jnp.sqrt(n).astype(leaf.dtype), total)

    def _total(self, keyed: tuple[Batch, Array]) -> Tree:
        data, keys = keyed
        apply, params = self.problem.apply, self.problem.params
        f, pull_back = jax.vjp(lambda p: apply(p, data.x), params)
        return pull_back(jax.vmap(self._outputs)(f, data, keys))[0]

    def _outputs(self, f: Any, example: Batch, key: Key[Array, ""]) -> Any:
        """C^½ ε of one example."""
        kind, likelihood = self.problem.kind, self.problem.likelihood
        columns, _ = kind.columns(likelihood, f, example)
        first = jax.tree.leaves(columns)[0]
        eps = jax.random.normal(key, first.shape[:1], first.dtype)
        return jax.tree.map(lambda c: jnp.tensordot(eps, c, 1), columns)


@pytree
class Flat:
    """The same on flat vectors, in the order of a layout: what `ngvi.linalg` takes.

    Args:
        function: of a pytree like the parameters or of a key, to such a pytree.
        layout: how parameters become a vector.
    """

    function: Callable[[Any], Tree]
    layout: Layout = field(metadata={"static": True})

    def __call__(self, v: Float[Array, "p"] | Key[Array, ""]) -> Float[Array, "p"]:
        is_key = jnp.issubdtype(v.dtype, jax.dtypes.prng_key)
        argument = v if is_key else self.layout.tree(v)
        return self.layout.vector(self.function(argument))


@pytree
class InParts:
    """A product on vectors in the parts of a layout, which are joined nowhere.

    Args:
        function: of a pytree like the parameters, to such a pytree.
        layout: how parameters become the parts of a vector.
    """

    function: Product
    layout: Layout = field(metadata={"static": True})

    def __call__(self, parts: list[Array]) -> list[Array]:
        return self.layout.parts(self.function(self.layout.tree_of(parts)))
