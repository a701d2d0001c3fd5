"""The one call: any kind of curvature, in any structure, of any model JAX can trace."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal

import jax
from jaxtyping import Array, Key

from ngvi.fisher.curvature import Curvature
from ngvi.fisher.kinds import KINDS, Kind, SampledFisher
from ngvi.fisher.layers import discover
from ngvi.fisher.layout import Layout
from ngvi.fisher.prepare import as_key, prepare
from ngvi.fisher.problem import Apply, Problem
from ngvi.fisher.products import InBatches
from ngvi.fisher.structures import (
    STRUCTURES,
    BlockStructure,
    KroneckerEigenStructure,
    KroneckerStructure,
    LowRankStructure,
    Structure,
    rescaled,
)
from ngvi.linalg import KroneckerEigen, Semidefinite, SemidefiniteBlocks

KindName = Literal["true", "sampled", "empirical", "gauss-newton", "hessian"]
StructureName = Literal[
    "dense",
    "diagonal",
    "block-diagonal",
    "kronecker",
    "kronecker-eigen",
    "low-rank",
    "matrix-free",
]


def fisher(
    apply: Apply,
    params: Any,
    data: Any,
    *,
    likelihood: Any,
    kind: KindName = "true",
    structure: StructureName | Structure = "dense",
    batch_size: int | None = None,
    key: Key[Array, ""] | int = 0,
    samples: int = 1,
    blocks: Literal["layer", "leaf"] = "layer",
    sharing: Literal["expand", "reduce"] = "expand",
    rank: int = 16,
    basis: Curvature | None = None,
) -> Curvature:
    """The curvature of −log p(y | f(x)) in a model's parameters, mean over examples.

        F = (1/N) Σ Jᵀ C J,   J = ∂f/∂θ

    with C as in `ngvi.fisher.kinds`. The work is compiled once for a model, its
    likelihood and shapes: new parameters and data of the same shapes compile nothing,
    as long as `apply` is the same function object.

    | kind           | needs        | structures                                       |
    |----------------|--------------|--------------------------------------------------|
    | "true"         | no labels    | all                                              |
    | "sampled"      | a key        | all                                              |
    | "empirical"    | labels       | all                                              |
    | "gauss-newton" | labels       | all; the Kronecker ones if outputs are natural   |
    |                |              | parameters                                       |
    | "hessian"      | labels       | all but the Kronecker ones                       |

    | structure         | memory                | exact                           |
    |-------------------|-----------------------|---------------------------------|
    | "dense"           | P²                    | yes                             |
    | "diagonal"        | P                     | its entries                     |
    | "block-diagonal"  | Σ P_layer²            | its entries                     |
    | "kronecker"       | Σ d_in² + d_out²      | no: K-FAC                       |
    | "kronecker-eigen" | the same + P          | its trace: EK-FAC               |
    | "low-rank"        | rank · P              | leading eigenvectors, diagonal  |
    | "matrix-free"     | P and the activations | its products                    |

    Args:
        apply: (params, x) ↦ outputs, examples along the first axis of every leaf of x
            and of the outputs. Layers are found in what it computes, see `explain`.
        params: a pytree of floating arrays.
        data: (x, y), N examples; x alone where no labels are needed (a tuple of two is
            taken for x and y).
        likelihood: what the outputs say of the labels: a name such as "categorical", a
            `ngvi.fisher.likelihoods.Likelihood`, a family of `ngvi.families`, or a
            function from outputs to a NumPyro distribution.
        kind: which curvature.
        structure: what of it to keep; or a `ngvi.fisher.structures.Structure`, such as
            `LowRankStructure(16, method="lanczos")`.
        batch_size: how many examples to have in memory at a time. By default as many as
            are quick, and all of them for structures by products and for data over
            several devices.
        key: of labels drawn, and of a random low-rank basis; a seed or a key.
        samples: labels drawn for each example, with kind="sampled".
        blocks: a block for every layer or for every leaf, with "block-diagonal".
        sharing: how Kronecker factors treat weights used at several positions.
        rank: of "low-rank".
        basis: an earlier "kronecker-eigen" curvature whose eigenvectors to use again:
            no decomposition is computed, and the two may be averaged.

    Returns:
        A `Curvature`: `F @ v`, `F.solve(v, damping)`, `F.logdet(damping)`,
        `F.draw(key)`, `F.diagonal()`, `F.dense()`, …

    Raises:
        ValueError: no examples, a pair of kind and structure without meaning, labels
            missing or outside of the likelihood's support, outputs whose width does not
            fit it, or a parameter that the outputs do not depend on.

    Example:
        >>> import jax.numpy as jnp
        >>> from ngvi.fisher import fisher
        >>> def apply(params, x):
        ...     return x @ params["w"] + params["b"]
        >>> params = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}
        >>> x, y = jnp.eye(2), jnp.array([0, 2])
        >>> F = fisher(apply, params, (x, y), likelihood="categorical")
        >>> F.dense().shape, (F @ params)["w"].shape
        ((9, 9), (2, 3))

    Source: Martens (2020), New insights and perspectives on the natural gradient
    method.
    """
    kind_used = _kind(kind, samples)
    structure_used = _structure(structure, blocks, sharing, rank)
    problem = prepare(apply, params, data, likelihood, kind_used, key, batch_size)
    network = problem.network if structure_used.by_layers else None
    layout = Layout.of(problem.params, network)
    structure_used.check(problem, layout.dim)
    if basis is None:
        used = as_key(key) if structure_used.needs_key else None
        matrix = _compute(structure_used, problem, used)
    else:
        _check_basis(basis, layout, structure_used)
        matrix = _rescaled(problem, basis.matrix)
    return Curvature(matrix, layout, network)


@partial(jax.jit, static_argnums=0)
def _compute(
    structure: Structure, problem: Problem, key: Key[Array, ""] | None
) -> Semidefinite:
    return structure.compute(problem, key)


@jax.jit
def _rescaled(problem: Problem, basis: SemidefiniteBlocks) -> SemidefiniteBlocks:
    return rescaled(problem, basis)


def fisher_vector_product(
    apply: Apply,
    params: Any,
    data: Any,
    v: Any,
    *,
    likelihood: Any,
    kind: KindName = "true",
    batch_size: int | None = None,
    key: Key[Array, ""] | int = 0,
    samples: int = 1,
) -> Any:
    """F v at once, when it is the only product with this F: see `fisher`.

    Args:
        v: a pytree like the parameters.
        apply, params, data, likelihood, kind, batch_size, key, samples: as there.
    """
    kind_used = _kind(kind, samples)
    problem = prepare(apply, params, data, likelihood, kind_used, key, batch_size)
    return _product(problem, v)


@jax.jit
def _product(problem: Problem, v: Any) -> Any:
    return InBatches(problem)(v)


def explain(apply: Apply, params: Any, x: Any) -> str:
    """A table of the layers found in a model, and what is in none of them.

    Args:
        apply: as in `fisher`.
        params: the parameters, or their shapes.
        x: a batch of inputs, or their shapes.
    """
    return discover(apply, params, x).explain()


# -- what was asked for ----------------------------------------------------------------


@lru_cache
def _kind(name: str, samples: int) -> Kind:
    if name not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {name!r}")
    if name == "sampled":
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        return SampledFisher(samples)
    return KINDS[name]()


@lru_cache
def _structure(
    name: str | Structure,
    blocks: Literal["layer", "leaf"],
    sharing: Literal["expand", "reduce"],
    rank: int,
) -> Structure:
    if isinstance(name, Structure):
        return name
    makers: dict[str, Callable[[], Structure]] = {
        **STRUCTURES,
        "block-diagonal": lambda: BlockStructure(blocks),
        "kronecker": lambda: KroneckerStructure(sharing),
        "kronecker-eigen": lambda: KroneckerEigenStructure(sharing),
        "low-rank": lambda: LowRankStructure(rank),
    }
    if name not in makers:
        raise ValueError(f"structure must be one of {', '.join(makers)}, got {name!r}")
    if blocks not in ("layer", "leaf"):
        raise ValueError(f"blocks must be 'layer' or 'leaf', got {blocks!r}")
    if sharing not in ("expand", "reduce"):
        raise ValueError(f"sharing must be 'expand' or 'reduce', got {sharing!r}")
    return makers[name]()


def _check_basis(basis: Curvature, layout: Layout, structure: Structure) -> None:
    if not isinstance(structure, KroneckerEigenStructure):
        raise ValueError("a basis is for structure='kronecker-eigen'")
    structures = [type(block) for block in getattr(basis.matrix, "blocks", ())]
    if basis.layout != layout or KroneckerEigen not in structures:
        raise ValueError(
            "basis must be a 'kronecker-eigen' curvature of the same parameters"
        )
