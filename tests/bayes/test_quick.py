"""Which of two programs of a function is compiled, and that they agree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ngvi.bayes import programs, quick
from ngvi.bayes.plan import Full
from ngvi.bayes.target import function_target
from ngvi.bayes.traced import operations, traced
from ngvi.mirror import loop

X = np.random.default_rng(0).standard_normal((30, 3))


def density(b: Any, x: Any) -> Any:
    return -jnp.logaddexp(0.0, x @ b).sum() - b @ b / 2


def test_both_programs_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    target, data, point = function_target(density, np.zeros(3), (X,), {})
    plan = Full(3)
    settings, draws = plan.settings(loop.Settings()), plan.draws(0, point.dtype)
    assert quick.is_brief(target, data, 1000)
    found = []
    for most in (quick._BRIEF, 0.0):
        monkeypatch.setattr(quick, "_BRIEF", most)
        fixed = target, plan, settings, data
        state = programs.compiled_begin(*fixed, point, draws).state
        found.append(programs.compiled_advance(*fixed, state, draws, 5))
    assert found[0].iteration == found[1].iteration > 2
    np.testing.assert_allclose(found[0].q.mean, found[1].q.mean, rtol=1e-9)
    np.testing.assert_allclose(found[0].objective, found[1].objective, rtol=1e-12)


def test_much_work_is_compiled_well() -> None:
    """Many rows, a long loop, or an array that lies on several devices."""
    target, data, _ = function_target(density, np.zeros(3), (X,), {})
    rows = np.broadcast_to(X[:1], (10**7, 3))
    assert not quick.is_brief(target, data._replace(arrays=(rows,)), 1000)

    def walk(b: Any) -> Any:
        step = lambda z, _: (jnp.tanh(z) + b, None)  # noqa: E731
        return -(jax.lax.scan(step, b, length=10**6)[0] ** 2).sum()

    target, data, _ = function_target(walk, np.zeros(3), (), {})
    assert not quick.is_brief(target, data, 1000)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: jnp.exp(x) + 1, 2 * 12),
        (lambda x: x @ x.T, 12 + 2 * 9 * 4),  # the transpose, and the product
        (lambda x: jax.lax.fori_loop(0, 5, lambda _, z: z * 2, x), 5 * (12 + 1)),
        (jax.jit(lambda x: x * 2), 12),
    ],
)
def test_operations_are_counted(function: Any, expected: float) -> None:
    assert operations(jax.make_jaxpr(function)(np.ones((3, 4))).jaxpr) == expected


def test_factorisations_are_seen_inside_of_loops() -> None:
    def within(b: Any) -> Any:
        matrix = jnp.eye(3) * (1 + b @ b)
        step = lambda z, _: (z + jnp.linalg.slogdet(matrix)[1], None)  # noqa: E731
        return -jax.lax.scan(step, 0.0, length=3)[0]

    for function, expected in ((within, True), (lambda b: -b @ b, False)):
        target, data, _ = function_target(function, np.zeros(3), (), {})
        assert traced(target, data).factorises is expected
