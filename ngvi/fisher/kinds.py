"""Kinds of curvature: what stands between the Jacobians of the outputs.

    F = (1/N) Σ Jᵀ C J,   J = ∂f/∂θ,   C = Σ_r s_r c_r c_rᵀ at each example

| kind         | C                                                                     |
|--------------|-----------------------------------------------------------------------|
| true         | Λ = E[∇log p(y | f) ∇log p(y | f)ᵀ] over y ~ p(y | f), closed form    |
| sampled      | the same with the mean over labels drawn from p(y | f)                |
| empirical    | the same with the label of the data: not the Fisher matrix            |
| gauss-newton | −∂² log p(y | f)/∂f²; = Λ where f are natural parameters              |

and `hessian`, the second derivatives of the loss itself, with those of f in it: the
Gauss-Newton matrix and Σ (∂(−log p)/∂f) ∂²f/∂θ², of any sign.

Source: Martens (2020), New insights and perspectives on the natural gradient method,
sections 5, 8 and 11; Kunstner, Balles and Hennig (2019), Limitations of the empirical
Fisher approximation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from ngvi.fisher.batches import Batch
from ngvi.fisher.likelihoods import Likelihood
from ngvi.pytrees import inner


class Columns(NamedTuple):
    """C = Σ_r s_r c_r c_rᵀ of one example."""

    values: Any
    """c_r in row r: the outputs' pytree with a leading axis."""
    signs: Float[Array, "r"] | None = None
    """s_r; all 1 if None."""


class Kind(ABC):
    """What C is; hashable, so that `jit` knows it."""

    needs_labels: ClassVar[bool] = False
    needs_key: ClassVar[bool] = False

    @abstractmethod
    def columns(self, likelihood: Likelihood, f: Any, example: Batch) -> Columns:
        """A root of C at the outputs of one example."""

    def definite(self, likelihood: Likelihood) -> bool:
        """Whether C ⪰ 0 at any outputs and labels."""
        return True

    def mv(self, likelihood: Likelihood, f: Any, example: Batch, v: Any) -> Any:
        """C v, likewise."""
        columns, signs = self.columns(likelihood, f, example)
        along = jax.vmap(lambda c: inner(c, v))(columns)
        if signs is not None:
            along = along * signs
        return jax.tree.map(lambda c: jnp.tensordot(along, c, 1), columns)


@dataclass(frozen=True)
class TrueFisher(Kind):
    """Λ in closed form."""

    def columns(self, likelihood: Likelihood, f: Any, example: Batch) -> Columns:
        return Columns(likelihood.root_columns(f))

    def mv(self, likelihood: Likelihood, f: Any, example: Batch, v: Any) -> Any:
        return likelihood.fisher_mv(f, v)


@dataclass(frozen=True)
class SampledFisher(Kind):
    """The mean over labels drawn from the model; unbiased for Λ."""

    samples: int = 1
    needs_key: ClassVar[bool] = True

    def columns(self, likelihood: Likelihood, f: Any, example: Batch) -> Columns:
        assert example.keys is not None

        def score(one: Key[Array, ""]) -> Any:
            return likelihood.gradient(f, likelihood.sample(one, f))

        scores = jax.vmap(score)(jax.random.split(example.keys, self.samples))
        return Columns(jax.tree.map(lambda s: s / self.samples**0.5, scores))


@dataclass(frozen=True)
class EmpiricalFisher(Kind):
    """The outer product of the score at the data's label."""

    needs_labels: ClassVar[bool] = True

    def columns(self, likelihood: Likelihood, f: Any, example: Batch) -> Columns:
        score = likelihood.gradient(f, example.y)
        return Columns(jax.tree.map(lambda g: g[None], score))


@dataclass(frozen=True)
class GaussNewton(Kind):
    """The observed curvature of −log p in the outputs, of any sign."""

    needs_labels: ClassVar[bool] = True

    def definite(self, likelihood: Likelihood) -> bool:
        return likelihood.natural

    def columns(self, likelihood: Likelihood, f: Any, example: Batch) -> Columns:
        if likelihood.natural:
            return Columns(likelihood.root_columns(f))
        flat, unravel = ravel_pytree(f)

        def row(e: Float[Array, "c"]) -> Float[Array, "c"]:
            return ravel_pytree(likelihood.hessian_mv(f, example.y, unravel(e)))[0]

        matrix = jax.vmap(row)(jnp.eye(flat.size, dtype=flat.dtype))
        values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
        columns = jnp.sqrt(jnp.abs(values))[:, None] * vectors.T
        return Columns(jax.vmap(unravel)(columns), jnp.sign(values))

    def mv(self, likelihood: Likelihood, f: Any, example: Batch, v: Any) -> Any:
        if likelihood.natural:
            return likelihood.fisher_mv(f, v)
        return likelihood.hessian_mv(f, example.y, v)


@dataclass(frozen=True)
class Hessian(Kind):
    """∂²/∂θ² of −log p: no Jᵀ C J."""

    needs_labels: ClassVar[bool] = True

    def definite(self, likelihood: Likelihood) -> bool:
        return False

    def columns(self, likelihood: Likelihood, f: Any, example: Batch) -> Columns:
        raise NotImplementedError("a Hessian is known by its products alone")


KINDS: dict[str, type[Kind]] = {
    "true": TrueFisher,
    "sampled": SampledFisher,
    "empirical": EmpiricalFisher,
    "gauss-newton": GaussNewton,
    "hessian": Hessian,
}
