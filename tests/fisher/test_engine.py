"""The one call: each kind in each structure against explicit Jacobians, in float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from ngvi.fisher import (
    Curvature,
    SingularMatrixError,
    explain,
    fisher,
    fisher_vector_product,
)
from ngvi.fisher.structures import LowRankStructure
from ngvi.linalg import KroneckerEigen, KroneckerFactors
from tests.fisher.reference import MODELS, Model, matrix

MLP, SEQUENCE = MODELS
KINDS = ["true", "sampled", "empirical", "gauss-newton", "hessian"]
EXACT = ["dense", "diagonal", "block-diagonal", "matrix-free"]
by_name = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def curvature(model: Model, **options: Any) -> Curvature:
    chosen = {"likelihood": model.likelihood, **options}
    return fisher(model.apply, model.params, (model.x, model.y), **chosen)


@cache
def expected(name: str, kind: str) -> np.ndarray:
    model = MLP if name == "mlp" else SEQUENCE
    return matrix(model, kind, jax.random.split(jax.random.key(0), len(model.x)))


def blocks_of(f: Curvature) -> np.ndarray:
    """True where the block-diagonal structure has entries."""
    sizes = [block.dim for block in f.matrix.blocks]
    number = np.repeat(np.arange(len(sizes)), sizes)
    number = np.asarray(f.layout.to_flat(jnp.asarray(number)))
    return number[:, None] == number


@by_name
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("structure", EXACT)
def test_exact_structures_hold_the_entries_of_explicit_jacobians(
    model: Model, kind: str, structure: str
) -> None:
    # Parts of 3 do not divide the 7 examples.
    size = 3 if kind in ("sampled", "hessian") else None
    f = curvature(model, kind=kind, structure=structure, batch_size=size)
    whole = expected(model.name, kind)
    if structure == "diagonal":
        whole = np.diag(np.diag(whole))
    if structure == "block-diagonal":
        assert len(f.matrix.blocks) > 2
        whole = np.where(blocks_of(f), whole, 0)
    np.testing.assert_allclose(f.dense(), whole, atol=1e-12 * abs(whole).max())
    v = np.random.default_rng(0).standard_normal(f.dim)
    _, unravel = ravel_pytree(model.params)
    np.testing.assert_allclose(f @ v, whole @ v, rtol=1e-10, atol=1e-11)
    as_tree = ravel_pytree(f @ unravel(jnp.asarray(v)))[0]
    np.testing.assert_allclose(as_tree, whole @ v, rtol=1e-10, atol=1e-11)


@by_name
@pytest.mark.parametrize("structure", EXACT)
def test_a_damped_matrix_is_that_of_dense_linear_algebra(
    model: Model, structure: str
) -> None:
    f = curvature(model, structure=structure)
    whole = np.asarray(f.dense())
    options = {"tolerance": 1e-13} if structure == "matrix-free" else {}
    damped = whole + 0.1 * np.eye(f.dim)
    inverse = np.linalg.inv(damped)
    p, v = f.damp(0.1, **options), np.random.default_rng(0).standard_normal(f.dim)
    np.testing.assert_allclose(p.solve(v), inverse @ v, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(p @ v, damped @ v, rtol=1e-9, atol=1e-10)
    logdet = np.linalg.slogdet(damped)[1]
    np.testing.assert_allclose(p.logdet(), logdet, rtol=1e-8)
    np.testing.assert_allclose(f.trace(), np.trace(whole), rtol=1e-10)
    diagonal = ravel_pytree(f.diagonal())[0]
    np.testing.assert_allclose(diagonal, np.diag(whole), rtol=1e-9, atol=1e-12)
    if structure != "matrix-free":
        root = p.root()
        np.testing.assert_allclose(root @ root.T, damped, atol=1e-11)
        np.testing.assert_allclose(p.inverse_dense(), inverse, atol=1e-10)


@pytest.mark.parametrize("structure", ["dense", "matrix-free"])
@pytest.mark.parametrize("kind", ["sampled", "empirical"])
def test_single_precision_stays_single_where_double_is_on(
    kind: str, structure: str
) -> None:
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (MLP.params, MLP.x))
    options = {"kind": kind, "structure": structure, "batch_size": 3}
    f = fisher(MLP.apply, params, (x, MLP.y), likelihood=MLP.likelihood, **options)
    product = ravel_pytree(f @ params)[0]
    assert product.dtype == jnp.float32
    whole = expected("mlp", kind) @ ravel_pytree(MLP.params)[0]
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    if kind == "empirical":
        np.testing.assert_allclose(product, whole, **tolerance)


@pytest.mark.parametrize("kind", ["true", "sampled", "empirical"])
def test_blocks_of_leaves_are_the_entries_too(kind: str) -> None:
    f = curvature(MLP, kind=kind, structure="block-diagonal", blocks="leaf")
    assert len(f.matrix.blocks) == len(jax.tree.leaves(MLP.params))
    whole = np.where(blocks_of(f), expected("mlp", kind), 0)
    np.testing.assert_allclose(f.dense(), whole, atol=1e-12)


@pytest.mark.parametrize(
    "model, kind, method",
    [(MLP, "true", "randomised"), (SEQUENCE, "empirical", "lanczos")],
    ids=["true-randomised", "empirical-lanczos"],
)
def test_low_rank_keeps_the_leading_eigenvectors_and_the_diagonal(
    model: Model, kind: str, method: Any
) -> None:
    whole, rank = expected(model.name, kind), 4
    structure = LowRankStructure(rank, method)
    f = curvature(model, kind=kind, structure=structure)
    np.testing.assert_allclose(f.trace(), np.trace(whole), rtol=1e-8)
    vectors = np.linalg.eigh(whole)[1][:, -rank:]
    leading = f.matrix.vectors
    inside = np.linalg.svd(vectors.T @ leading, compute_uv=False)
    np.testing.assert_allclose(inside, 1, atol=1e-6)
    diagonal = ravel_pytree(f.diagonal())[0]
    np.testing.assert_allclose(diagonal, np.diag(whole), rtol=1e-8)


def layer_blocks(model: Model, kind: str) -> list[np.ndarray]:
    """The exact blocks of the layers, in the order of W̄."""
    f = curvature(model, kind=kind, structure="block-diagonal")
    return [np.asarray(block.dense()) for block in f.matrix.blocks]


@by_name
@pytest.mark.parametrize("kind", ["true", "sampled", "empirical"])
def test_ekfac_has_the_exact_second_moments_in_its_basis(
    model: Model, kind: str
) -> None:
    ekfac = curvature(model, kind=kind, structure="kronecker-eigen")
    kfac = curvature(model, kind=kind, structure="kronecker")
    compared = 0
    pairs = zip(ekfac.matrix.blocks, kfac.matrix.blocks, strict=True)
    for exact, (scaled, factors) in zip(layer_blocks(model, kind), pairs, strict=True):
        if isinstance(factors, KroneckerFactors):
            assert isinstance(scaled, KroneckerEigen)
            basis = np.kron(scaled.left_vectors, scaled.right_vectors)
            moments = np.diag(basis.T @ exact @ basis).reshape(scaled.values.shape)
            np.testing.assert_allclose(scaled.values, moments, rtol=1e-10, atol=1e-13)
            np.testing.assert_allclose(scaled.trace(), np.trace(exact), rtol=1e-12)
            ours = np.linalg.norm(exact - scaled.dense())
            assert ours <= np.linalg.norm(exact - factors.dense()) + 1e-12
            compared += 1
        else:
            np.testing.assert_allclose(scaled.dense(), exact, atol=1e-13)
            np.testing.assert_allclose(factors.dense(), exact, atol=1e-13)
    assert compared >= 2


def _linear(p: Any, x: jax.Array) -> jax.Array:
    return (x @ p[0]) @ p[1]


def test_kfac_is_exact_for_a_deep_linear_model_with_a_gaussian_likelihood() -> None:
    rng = np.random.default_rng(2)
    params = [jnp.asarray(rng.standard_normal(s)) for s in [(3, 4), (4, 2)]]
    x, y = (jnp.asarray(rng.standard_normal((6, d))) for d in (3, 2))
    options: dict[str, Any] = {"likelihood": "gaussian"}
    kfac = fisher(_linear, params, (x, y), structure="kronecker", **options)
    exact = fisher(_linear, params, (x, y), structure="block-diagonal", **options)
    np.testing.assert_allclose(kfac.dense(), exact.dense(), atol=1e-12)
    # Exact damping in the eigenbasis, and the log determinant.
    damped = np.asarray(exact.dense()) + 0.3 * np.eye(kfac.dim)
    v = rng.standard_normal(kfac.dim)
    solved = kfac.solve(v, damping=0.3)
    np.testing.assert_allclose(solved, np.linalg.solve(damped, v), rtol=1e-10)
    np.testing.assert_allclose(kfac.logdet(0.3), np.linalg.slogdet(damped)[1])


def _positions(p: Any, x: jax.Array) -> jax.Array:
    return x @ p


def _averaged(p: Any, x: jax.Array) -> jax.Array:
    return (x @ p).mean(1)


@pytest.mark.parametrize(
    "apply, sharing", [(_positions, "expand"), (_averaged, "reduce")]
)
def test_shared_weights_are_exact_in_the_setting_they_are_for(
    apply: Any, sharing: Any
) -> None:
    rng = np.random.default_rng(3)
    w, x = jnp.asarray(rng.standard_normal((3, 2))), rng.standard_normal((6, 4, 3))
    options: dict[str, Any] = {"likelihood": "gaussian"}
    exact = fisher(apply, w, x, structure="dense", **options).dense()
    kfac = fisher(apply, w, x, structure="kronecker", sharing=sharing, **options)
    np.testing.assert_allclose(kfac.dense(), exact, atol=1e-12)
    other = "expand" if sharing == "reduce" else "reduce"
    wrong = fisher(apply, w, x, structure="kronecker", sharing=other, **options)
    assert np.linalg.norm(wrong.dense() - exact) > 0.1 * np.linalg.norm(exact)


def test_sampled_labels_give_the_fisher_matrix_on_average() -> None:
    # The error falls as 1/√S.
    exact = expected("mlp", "true")
    errors = []
    for samples in (16, 1024):
        f = curvature(MLP, kind="sampled", samples=samples)
        errors.append(np.linalg.norm(f.dense() - exact) / np.linalg.norm(exact))
    assert errors[1] < 0.1
    assert 3 < errors[0] / errors[1] < 24  # 8 expected


def test_labels_drawn_do_not_depend_on_the_batch_size() -> None:
    whole = curvature(MLP, kind="sampled").dense()
    in_parts = curvature(MLP, kind="sampled", batch_size=3).dense()
    np.testing.assert_allclose(in_parts, whole, atol=1e-13)
    other = curvature(MLP, kind="sampled", key=1).dense()
    assert np.abs(other - whole).max() > 1e-3


def test_draws_have_the_inverse_for_their_covariance() -> None:
    for structure in ("dense", "kronecker-eigen", "matrix-free"):
        f = curvature(MLP, structure=structure)
        draws = f.draw(jax.random.key(3), (4_000,), damping=0.5)
        assert draws["scale"].shape == (4_000, 2)
        flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])(draws)
        covariance = np.linalg.inv(f.dense() + 0.5 * np.eye(f.dim))
        root = np.linalg.cholesky(covariance)
        white = np.linalg.solve(root, np.asarray(flat).T)
        # Entries of a Wishart mean: variance (1 + δᵢⱼ)/n; 5 of them.
        error = white @ white.T / 4_000 - np.eye(f.dim)
        assert np.abs(error).max() < 5 * np.sqrt(2 / 4_000), structure


def test_a_product_alone_is_that_of_the_matrix() -> None:
    v = jax.tree.map(jnp.ones_like, MLP.params)
    data = MLP.x, MLP.y
    for kind in ("true", "hessian"):
        one = fisher_vector_product(
            MLP.apply, MLP.params, data, v, likelihood="categorical", kind=kind
        )
        flat = ravel_pytree(v)[0]
        np.testing.assert_allclose(
            ravel_pytree(one)[0], expected("mlp", kind) @ flat, rtol=1e-9, atol=1e-12
        )


def test_an_average_over_batches_is_that_over_all_examples() -> None:
    parts = [
        fisher(
            MLP.apply, MLP.params, (MLP.x[a:b], MLP.y[a:b]), likelihood="categorical"
        )
        for a, b in [(0, 3), (3, 7)]
    ]
    both = parts[0].average(parts[1], 4 / 7)
    np.testing.assert_allclose(both.dense(), expected("mlp", "true"), atol=1e-12)


_traces = [0]


def _counted(p: Any, x: jax.Array) -> jax.Array:
    _traces[0] += 1
    return jnp.tanh(x @ p["w"])


def test_new_parameters_and_data_compile_nothing() -> None:
    rng = np.random.default_rng(4)

    def run(structure: str) -> None:
        p = {"w": jnp.asarray(rng.standard_normal((3, 2)))}
        x = jnp.asarray(rng.standard_normal((5, 3)))
        y = jnp.asarray(rng.integers(0, 2, 5))
        f = fisher(_counted, p, (x, y), likelihood="categorical", structure=structure)
        jax.block_until_ready(f @ p)

    for structure in ("dense", "kronecker-eigen", "matrix-free"):
        run(structure)
        before = _traces[0]
        run(structure)
        assert _traces[0] == before, structure


def test_inside_jit_and_single_precision() -> None:
    def natural_gradient(params: Any, x: jax.Array) -> Any:
        f = fisher(MLP.apply, params, x, likelihood="categorical")
        return f.solve(params, damping=0.1)

    exact = natural_gradient(MLP.params, MLP.x)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (MLP.params, MLP.x))
    step = jax.jit(natural_gradient)(*single)
    for one, other in zip(*map(jax.tree.leaves, (exact, step)), strict=True):
        assert other.dtype == jnp.float32
        np.testing.assert_allclose(other, one, rtol=2e-4, atol=2e-4)


def test_explain_says_which_layer_got_what() -> None:
    table = curvature(MLP, structure="kronecker").explain()
    assert [line.split("  ")[-1].strip() for line in table.splitlines()] == [
        "structure",
        "Kronecker 4 ⊗ 4",
        "Kronecker 4 ⊗ 2",
        "block 2 × 2",
        "Kronecker 3 ⊗ 3",
    ]
    before = explain(MLP.apply, MLP.params, MLP.x)
    assert [line.rsplit("  ", 1)[0].rstrip() for line in table.splitlines()] == (
        before.splitlines()
    )
    free = curvature(MLP, structure="matrix-free")
    assert free.explain() == "MatrixFree of 35 parameters"


# -- bad input -------------------------------------------------------------------------


def test_a_singular_matrix_is_not_solved_with() -> None:
    # A shift of all logits changes no probability.
    with pytest.raises(SingularMatrixError, match="damping 0 is singular"):
        curvature(MLP).solve(MLP.params)
    with pytest.raises(SingularMatrixError, match="indefinite"):
        curvature(MLP, kind="hessian").solve(MLP.params, damping=1e-3)


def _unused(p: Any, x: jax.Array) -> jax.Array:
    return x @ p["w"]


def _row(p: Any, x: jax.Array) -> jax.Array:
    return (x @ p)[0]


W = jnp.zeros((3, 2))
X, Y = np.ones((4, 3)), np.zeros(4, int)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "observed"}, "kind must be one of true, sampled"),
        ({"structure": "full"}, "structure must be one of dense, diagonal"),
        ({"kind": "hessian", "structure": "kronecker"}, "no Kronecker factors"),
        ({"kind": "empirical", "data": X}, "needs labels"),
        ({"data": (X[:0], Y[:0])}, "no examples"),
        ({"data": (X, Y[:3])}, "labels have shape"),
        ({"data": (X, Y + 2)}, "got 2 at index 0"),
        ({"apply": _unused, "params": {"w": W, "v": W}}, "do not depend on .* v"),
        ({"apply": _row}, "need the 4 examples along their first axis"),
        ({"params": {"w": W.astype(int)}, "apply": _unused}, "must be floating"),
        ({"likelihood": "heteroscedastic_gaussian"}, "must be a tuple"),
        ({"likelihood": "normal-ish"}, "likelihood"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"structure": "low-rank", "rank": 7}, "from 1 to the number of parameters, 6"),
        ({"kind": "sampled", "samples": 0}, "samples must be at least 1"),
        ({"structure": "block-diagonal", "blocks": "row"}, "'layer' or 'leaf'"),
    ],
)
def test_bad_input_is_refused_in_words(change: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {
        "apply": _positions,
        "params": W,
        "data": (X, Y),
        "likelihood": "categorical",
        **change,
    }
    apply, params, data = (options.pop(name) for name in ("apply", "params", "data"))
    with pytest.raises(ValueError, match=message):
        fisher(apply, params, data, **options)


def test_vectors_of_another_length_and_negative_damping_are_refused() -> None:
    f = fisher(_positions, W, (X, Y), likelihood="categorical")
    with pytest.raises(ValueError, match="a vector of 6 parameters"):
        f.mv(np.ones(5))
    with pytest.raises(ValueError, match="must not be negative"):
        f.damp(-1.0)


def test_one_example_is_enough() -> None:
    f = fisher(_positions, W, (X[:1], Y[:1]), likelihood="categorical")
    assert np.linalg.matrix_rank(f.dense()) == 1
