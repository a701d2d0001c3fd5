"""Shapes, dtypes and transformations of JAX, for every method of every family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ngvi.families import Mixture, Normal
from tests.families.cases import (
    FAMILIES,
    Case,
    each,
    every_family,
    has,
    members,
    single,
)
from tests.families.checks import close
from tests.programs import compiled

KEY = jax.random.key(0)
BATCH = (2, 3)
OPTIONAL = ("mean", "variance", "mode")


def methods(q: Any, p: Any, x: Any) -> dict[str, Callable[[], Any]]:
    """Every method that gives numbers, by name; x has one leading axis."""
    weights = jnp.ones(jax.tree.leaves(x)[0].shape[0], q.dtype)
    natural, mean = q.natural_params, q.mean_params
    every: dict[str, Callable[[], Any]] = {
        "natural_params": lambda: natural,
        "mean_params": lambda: mean,
        "with_natural_params": lambda: q.with_natural_params(natural),
        "with_mean_params": lambda: q.with_mean_params(mean),
        "log_partition": lambda: q.log_partition(natural),
        "sufficient_statistics": lambda: q.sufficient_statistics(x),
        "log_base_measure": lambda: q.log_base_measure(x),
        "expected_log_base_measure": lambda: q.expected_log_base_measure(),
        "log_prob": lambda: q.log_prob(x),
        "kl": lambda: q.kl(p),
        "entropy": lambda: q.entropy(),
        "cross_entropy": lambda: q.cross_entropy(p),
        "fisher": lambda: q.fisher.dense(),
        "fisher_product": lambda: q.fisher_product(natural),
        "natural_gradient": lambda: q.natural_gradient(mean),
        "flatten": lambda: q.flatten(natural),
        "fit": lambda: q.fit(x, weights),
        "conjugate_sum": lambda: q.conjugate_sum(p),
    }
    for name in OPTIONAL:
        if has(type(q), name):
            every[name] = lambda name=name: getattr(q, name)
    if has(type(q), "cdf") and q.event_shape == ():
        every["cdf"] = lambda: q.cdf(x)
    return every


def _all(q: Any, p: Any, x: Any) -> dict[str, Any]:
    return {name: method() for name, method in methods(q, p, x).items()}


@every_family
def test_dtypes_and_shapes(case: Case) -> None:
    """Single precision stays single, batch axes come first; nothing is computed."""
    one, q = (single(members(case, 0, batch, count=1)[0]) for batch in ((), BATCH))
    assert (q.batch_shape, q.event_shape) == (BATCH, one.event_shape)
    assert q.dtype == jnp.float32
    alone = _results(one)
    for name, result in _results(q).items():
        leading = 1 if name in DRAWN else 0
        pairs = zip(jax.tree.leaves(result), jax.tree.leaves(alone[name]), strict=True)
        for leaf, like in pairs:
            head, tail = like.shape[:leading], like.shape[leading:]
            assert leaf.shape == (*head, *BATCH, *tail), name
            counted = name in ("sample", "mode") and leaf.dtype.kind == "i"
            assert leaf.dtype == jnp.float32 or counted, name


DRAWN = {"sample", "log_prob", "sufficient_statistics", "log_base_measure", "cdf"}
"""Results that have the observations' leading axis."""


def _results(q: Any) -> dict[str, Any]:
    sample = jax.eval_shape(lambda q: q.sample(KEY, (5,)), q)

    def run(q: Any, x: Any) -> dict[str, Any]:
        return _all(q, q, x)

    def floats(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, q.dtype)

    return {
        **jax.eval_shape(run, q, jax.tree.map(floats, sample)),
        "sample": sample,
    }


def _summary(q: Any, p: Any, x: Any) -> dict[str, Array]:
    """What a wrong axis would change; x has one leading axis."""
    return {
        "mean_params": q.flatten(q.mean_params),
        "natural_params": q.flatten(q.natural_params),
        "fisher": q.fisher.diagonal(),
        "kl": q.kl(p),
        "entropy": q.entropy(),
        "log_prob": q.log_prob(x)[0],
    }


@each(FAMILIES, heavy_are_slow=True)
def test_a_batch_is_its_members(case: Case) -> None:
    """A batch gives what `jax.vmap` over its members gives."""
    size = int(np.prod(BATCH))
    q, p = members(case, 0, BATCH)
    x = compiled(lambda q: q.sample(KEY, (1,)))(q)
    together = compiled(_summary)(q, p, x)
    (like,) = members(case, 0, (), count=1)

    def one_axis(tree: Any, leading: int = 0) -> list[Array]:
        return [
            v.reshape(*v.shape[:leading], size, *v.shape[leading + 2 :])
            for v in jax.tree.leaves(tree)
        ]

    ones = [jax.tree.unflatten(jax.tree.structure(like), one_axis(m)) for m in (q, p)]
    values = jax.tree.unflatten(jax.tree.structure(x), one_axis(x, 1))
    each = compiled(jax.vmap(_summary, in_axes=(0, 0, 1)))(*ones, values)
    for name, expected in each.items():
        found = together[name].reshape(expected.shape)
        close(found, expected, 1e-9 * (1e-3 + np.abs(expected)), name)


@every_family
def test_members_are_pytrees(case: Case) -> None:
    q, p = members(case, 0, (3,))
    leaves, structure = jax.tree.flatten(q)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is case.family
    assert again.fixed.keys() == q.fixed.keys()
    assert structure == jax.tree.structure(p)
    paths = jax.tree_util.tree_leaves_with_path(q)
    assert [path[0].name for path, _ in paths] == sorted(
        (path[0].name for path, _ in paths), key=list(vars(q)).index
    )
    # Leaves need not be arrays: specifications of axes or of shardings pass too.
    assert jax.tree.leaves(jax.tree.map(lambda _: "axis", q)) == ["axis"] * len(leaves)


@every_family
def test_other_values_do_not_retrace(case: Case) -> None:
    traces = 0

    @jax.jit
    def program(q: Any) -> Any:
        nonlocal traces
        traces += 1
        return q.natural_params

    q, p = members(case, 0, (3,))
    (other,) = members(case, 1, (3,), count=1)
    for member in (q, p, other, q.with_natural_params(p.natural_params)):
        program(member)
    assert traces == 1


def test_a_mixture_may_have_one_component() -> None:
    q = Mixture(jnp.zeros(1), Normal(jnp.array([2.0]), 3.0))
    for again in (
        q.with_natural_params(q.natural_params),
        q.with_mean_params(q.mean_params),
    ):
        close(again.components.loc, [2.0], 1e-12)
        close(again.weights, [1.0], 1e-12)


@every_family
def test_flatten_is_an_isometry(case: Case) -> None:
    """flatten(λ) · flatten(μ) = ⟨λ, μ⟩, and unflatten inverts flatten."""

    @jax.jit
    def study(q: Any) -> tuple[Array, Array, Any, Any]:
        natural, mean = q.natural_params, q.mean_params
        dot = (q.flatten(natural) * q.flatten(mean)).sum(-1)
        return dot, q.pair(natural, mean), natural, q.unflatten(q.flatten(natural))

    (q,) = members(case, 0, BATCH, count=1)
    dot, paired, natural, again = study(q)
    close(dot, paired, 1e-12 * (1 + np.abs(paired)))
    for a, b in zip(jax.tree.leaves(natural), jax.tree.leaves(again), strict=True):
        close(a, b, 1e-14 * np.abs(b).max())
