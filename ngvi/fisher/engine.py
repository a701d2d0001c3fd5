"""The one call: any kind of curvature, in any structure, of any model JAX can trace."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from ngvi.families.parameters import is_concrete
from ngvi.fisher.batches import Batch, count
from ngvi.fisher.curvature import Curvature
from ngvi.fisher.kinds import KINDS, Kind, SampledFisher
from ngvi.fisher.layers import Network, discover
from ngvi.fisher.layers.find import UNUSED
from ngvi.fisher.layout import Layout
from ngvi.fisher.likelihoods import as_likelihood
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
from ngvi.linalg import KroneckerEigen

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
    problem, params, batch = _prepare(apply, params, data, likelihood, kind_used, key)
    network = problem.network if structure_used.by_layers else None
    layout = Layout.of(params, network)
    structure_used.check(problem, layout.dim)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if batch_size is None and _is_spread(batch):
        batch_size = count(batch)
    if basis is None:
        used = _as_key(key) if structure_used.needs_key else None
        matrix = _compute(structure_used, problem, params, batch, batch_size, used)
    else:
        _check_basis(basis, layout, structure_used)
        matrix = _rescaled(problem, params, batch, batch_size, basis.matrix)
    return Curvature(matrix, layout, network)


@partial(jax.jit, static_argnums=(0, 4))
def _compute(
    structure: Structure,
    problem: Problem,
    params: Any,
    batch: Batch,
    batch_size: int | None,
    key: Key[Array, ""] | None,
) -> Any:
    return structure.compute(problem, params, batch, batch_size, key)


@partial(jax.jit, static_argnums=3)
def _rescaled(
    problem: Problem, params: Any, batch: Batch, batch_size: int | None, basis: Any
) -> Any:
    return rescaled(problem, params, batch, basis, batch_size)


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
    problem, params, batch = _prepare(
        apply, params, data, likelihood, _kind(kind, samples), key
    )
    return _product(problem, params, batch, batch_size, v)


@partial(jax.jit, static_argnums=3)
def _product(
    problem: Problem, params: Any, batch: Batch, batch_size: int | None, v: Any
) -> Any:
    return InBatches(problem, params, batch, batch_size)(v)


def explain(apply: Apply, params: Any, x: Any) -> str:
    """A table of the layers found in a model, and what is in none of them.

    Args:
        apply: as in `fisher`.
        params: the parameters, or their shapes.
        x: a batch of inputs, or their shapes.
    """
    return discover(apply, params, x).explain()


# -- what was asked for ----------------------------------------------------------------


def _kind(name: str, samples: int) -> Kind:
    if name not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {name!r}")
    if name == "sampled":
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        return SampledFisher(samples)
    return KINDS[name]()


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


def _as_key(key: Key[Array, ""] | int) -> Key[Array, ""]:
    return jax.random.key(key) if isinstance(key, int) else key


def _prepare(
    apply: Apply, params: Any, data: Any, likelihood: Any, kind: Kind, key: Any
) -> tuple[Problem, Any, Batch]:
    """Everything checked, once, at the surface."""
    params = _arrays(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} must be floating numbers, got "
                f"{leaf.dtype}: keep it in apply, or in x"
            )
    x, y = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    x, y = _arrays(x), _arrays(y)
    n = _number(x)
    if kind.needs_labels and y is None:
        raise ValueError(
            f"{type(kind).__name__} needs labels: data must be (x, y), got x alone"
        )
    used = as_likelihood(likelihood)
    network, outputs = _traced_once(apply, _signature(params), _signature(x))
    used.check_outputs(outputs)
    if y is not None and not _traced(y):
        used.check_labels(outputs, y)
    _check_used(network)
    keys = jax.random.split(_as_key(key), n) if kind.needs_key else None
    batch = Batch(x, y if kind.needs_labels else None, keys)
    return Problem(used, apply, kind, network), params, batch


def _is_spread(batch: Batch) -> bool:
    """Whether the examples lie on several devices: cut apart, they would be moved."""
    leaves = [leaf for leaf in jax.tree.leaves(batch) if is_concrete(leaf)]
    return any(len(leaf.sharding.device_set) > 1 for leaf in leaves)


def _arrays(tree: Any) -> Any:
    """The tree with arrays for leaves; `asarray` takes its time even of an array."""

    def array(leaf: Any) -> Array:
        return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)

    return jax.tree.map(array, tree)


def _number(x: Any) -> int:
    leaves = jax.tree_util.tree_leaves_with_path(x)
    if not leaves:
        raise ValueError("x has no arrays: nothing says how many examples there are")
    for path, leaf in leaves:
        if jnp.ndim(leaf) == 0 or len(leaf) != len(leaves[0][1]):
            raise ValueError(
                "the first axis of every leaf of x numbers the examples: x"
                f"{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}, the first "
                f"leaf {jnp.shape(leaves[0][1])}"
            )
    n = count(x)
    if n == 0:
        raise ValueError("there are no examples (N = 0)")
    return n


def _check_outputs(outputs: Any, n: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(outputs):
        if leaf.shape[:1] != (n,):
            raise ValueError(
                f"the outputs of apply need the {n} examples along their first axis, "
                f"got shape {leaf.shape} at outputs{jax.tree_util.keystr(path)}"
            )


def _check_used(network: Network) -> None:
    unused = [
        network.names[leaf]
        for leaf, reason in zip(network.rest, network.reasons, strict=True)
        if reason == UNUSED
    ]
    if unused:
        raise ValueError(
            f"the outputs do not depend on the parameters {', '.join(unused)}: their "
            "curvature is zero; leave them out of params"
        )


def _traced(tree: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


Signature = tuple[Any, tuple[tuple[tuple[int, ...], Any], ...]]


def _signature(tree: Any) -> Signature:
    leaves, treedef = jax.tree.flatten(tree)
    return treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


@lru_cache(maxsize=128)
def _traced_once(apply: Apply, params: Signature, x: Signature) -> tuple[Network, Any]:
    """The layers, and the shapes of the outputs, with the examples first."""
    of_params, of_x = (
        jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
        for treedef, leaves in (params, x)
    )
    outputs = jax.eval_shape(apply, of_params, of_x)
    _check_outputs(outputs, count(of_x))
    return discover(apply, of_params, of_x), outputs
