"""Kronecker products: the order of the vector, and factors of any kind."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import scipy.stats

from ngvi.linalg import Dense, Diagonal, Kronecker
from tests.linalg.cases import DENSE, DIAGONAL, close, stack


def test_the_vector_is_the_matrix_row_by_row() -> None:
    rng = np.random.default_rng(0)
    (left, l_matrix), (right, r_matrix) = DENSE.member(rng, 2), DENSE.member(rng, 3)
    p = Kronecker(left, right)
    x = rng.standard_normal((2, 3))
    product = np.asarray(p.mv(jnp.asarray(x.reshape(-1)))).reshape(2, 3)
    close(product, l_matrix @ x @ r_matrix)
    close(p.dense(), jnp.kron(jnp.asarray(l_matrix), jnp.asarray(r_matrix)))


def test_it_is_the_precision_of_a_matrix_normal() -> None:
    rng = np.random.default_rng(1)
    (left, l_matrix), (right, r_matrix) = DENSE.member(rng, 2), DENSE.member(rng, 3)
    p = Kronecker(left, right)
    x = rng.standard_normal((2, 3))
    theirs = scipy.stats.matrix_normal(
        rowcov=np.linalg.inv(l_matrix), colcov=np.linalg.inv(r_matrix)
    ).logpdf(x)
    square = (np.asarray(p.whiten(jnp.asarray(x.reshape(-1)))) ** 2).sum()
    ours = (float(p.logdet()) - square - 6 * np.log(2 * np.pi)) / 2
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_a_factor_may_be_a_product() -> None:
    rng = np.random.default_rng(2)
    (a, dense_a), (b, dense_b) = DIAGONAL.member(rng, 2), DENSE.member(rng, 3)
    c, dense_c = DENSE.member(rng, 2)
    x = rng.standard_normal((4, 12))
    expected = x @ np.kron(dense_a, np.kron(dense_b, dense_c))
    close(Kronecker(a, Kronecker(b, c)).mv(jnp.asarray(x)), expected)
    close(Kronecker(Kronecker(a, b), c).mv(jnp.asarray(x)), expected)


def test_the_leading_axes_of_the_factors_broadcast() -> None:
    rng = np.random.default_rng(3)
    lefts = [DENSE.member(rng, 2) for _ in range(2)]
    rights = [DIAGONAL.member(rng, 3) for _ in range(3)]
    left = stack([p for p, _ in lefts])
    left = Dense(left.root[:, None], left.inverse_root[:, None])
    p = Kronecker(left, Diagonal(stack([q for q, _ in rights]).root))
    assert p.batch_shape == (2, 3)
    x = jnp.asarray(rng.standard_normal((5, 1, 3, 6)))
    results = p.mv(x), p.solve(x), p.unwhiten(x[0, 0, 0]), p.logdet(), p.dense()
    assert [r.shape for r in results[:3]] == [(5, 2, 3, 6), (5, 2, 3, 6), (2, 3, 6)]
    for i, (_, l_matrix) in enumerate(lefts):
        for j, (_, r_matrix) in enumerate(rights):
            matrix = np.kron(l_matrix, r_matrix)
            close(results[0][:, i, j], x[:, 0, j] @ matrix)
            close(results[1][:, i, j], x[:, 0, j] @ np.linalg.inv(matrix))
            logdet = np.linalg.slogdet(matrix)[1]
            np.testing.assert_allclose(results[3][i, j], logdet, atol=1e-10)
            close(results[4][i, j], matrix)
