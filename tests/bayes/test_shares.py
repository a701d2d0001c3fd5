"""Blocks of a hierarchical model shared out over simulated devices and processes."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.sharding import Mesh

import ngvi
from ngvi.bayes.numpyro_model import model_target
from ngvi.bayes.shared_model import Indivisible, share_out
from ngvi.bayes.structure import choose
from tests.processes import on_devices


def counts(group: Any, x: Any, groups: int, y: Any = None) -> None:
    """Rows know their groups by an index; two of the sites are constrained."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0))
    sd = numpyro.sample("sd", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("group", groups):
        a = numpyro.sample("a", dist.Normal(mean, sd))
        b = numpyro.sample("b", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("row", x.shape[0]):
        numpyro.sample("y", dist.Poisson(jnp.exp(a[group]) * b[group] ** x), obs=y)


def rooms(y: Any) -> None:
    """Rooms in schools, whose axis is the last of the data; a factor for all rows."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    shift = numpyro.sample("shift", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    with numpyro.plate("school", 16, dim=-1):
        school = numpyro.sample("school_effect", dist.Normal(mean + shift[0], 1.0))
        with numpyro.plate("class", 2, dim=-2):
            room = numpyro.sample("class_effect", dist.Normal(school, 0.5))
            with numpyro.plate("pupil", 4, dim=-3):
                numpyro.sample("y", dist.Normal(room + shift[1], 1.0), obs=y)
    numpyro.factor("more", -((y - room) ** 4).sum() / 100)


SCORES = np.random.default_rng(0).normal(2.0, 1.0, (4, 2, 16))


def counted(groups: int, each: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(groups), each)
    x = rng.normal(size=group.size)
    return {"group": group, "x": x, "groups": groups, "y": rng.poisson(3.0, x.size)}


def shared(model: Any, *args: Any, mesh: Mesh | None = None, **kwargs: Any) -> Any:
    """A plan over devices, and all that it was made from."""
    target, data, point, trace = model_target(model, args, kwargs, None)
    plan, structure = choose("structured", target, data, point, trace)
    mesh = mesh or Mesh(np.array(jax.devices()), ("groups",))
    found = share_out(plan, structure.plates, target, data, point, trace, mesh)
    return found, (target, data, point, plan)


DEVICES = r"""
import json
from functools import partial
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh
import ngvi
from ngvi.bayes import fit_in_memory
from ngvi.bayes.programs import begin, compiled_begin
from ngvi.mirror import loop
from tests.bayes.test_shares import (
    SCORES, Indivisible, counted, counts, held, rooms, shared, unsorted
)
from tests.bayes.test_sharding import numbers_moved

advance, programs, found = fit_in_memory.compiled_advance, [], []

def compiled(*args):
    programs.append(advance.lower(*args).compile())
    found.append(numbers_moved(programs[-1].as_text()))

def advanced(*args):
    if not programs:
        compiled(*args)
    return programs[0](*args[3:])

mesh = Mesh(np.array(jax.devices()), ("groups",))
fit_in_memory.compiled_advance = advanced
fitted = ngvi.fit(counts, **counted(16, 5), covariance="structured", mesh=mesh)
assert not fitted.structure.notes, fitted.structure

# Twice as many groups, four times as many rows.
plan, (_, data, point, _) = shared(counts, **counted(32, 10))
problem = plan.target, plan, plan.settings(loop.Settings()), data
draws = plan.draws(0, point.dtype)
state = jax.eval_shape(partial(begin, *problem), plan.spread(point), draws).state
compiled(*problem, state, draws, 9)

plan, (target, data, point, whole) = shared(rooms, SCORES)
settings = plan.settings(loop.Settings())
draws = whole.draws(0, point.dtype), plan.draws(0, point.dtype)
alone = compiled_begin(target, whole, settings, data, point, draws[0])
over = compiled_begin(plan.target, plan, settings, data, plan.spread(point), draws[1])
q = plan.together(over.state).q
np.testing.assert_allclose(over.value, alone.value, rtol=1e-12)
for a, b in zip(*map(jax.tree.leaves, (q, alone.state.q))):
    np.testing.assert_allclose(a, b, atol=1e-12)
    assert a.sharding.is_fully_replicated

q, reasons = fitted.gaussian, []
for model in (unsorted, held):
    try:
        shared(model, **counted(16, 5))
    except Indivisible as why:
        reasons.append(str(why))
print(json.dumps({
    "numbers": found,
    "reasons": reasons,
    "mean": q.mean.tolist(),
    "variance": q.variance.tolist(),
    "iterations": fitted.diagnostics.iterations,
}))
"""


def unsorted(group: Any, x: Any, groups: int, y: Any) -> None:
    """Rows that are not in the order of their blocks."""
    counts(group[::-1], x, groups, y)


def held(group: Any, x: Any, groups: int, y: Any) -> None:
    """A model that holds an array as long as the plate."""
    with numpyro.plate("group", groups):
        a = numpyro.sample("a", dist.Normal(jnp.zeros(groups), 1.0))
    numpyro.sample("y", dist.Poisson(jnp.exp(a[group])), obs=y)


def test_over_devices() -> None:
    """The same answer; what goes between devices depends on the border alone."""
    found = json.loads(on_devices(DEVICES, 8))
    alone = ngvi.fit(counts, **counted(16, 5), covariance="structured")
    assert found["iterations"] == alone.diagnostics.iterations
    np.testing.assert_allclose(found["mean"], alone.gaussian.mean, rtol=1e-8)
    np.testing.assert_allclose(found["variance"], alone.gaussian.variance, rtol=1e-8)
    # Of S = 16 draws, b = 2: S (2 b + 1), b for a step's length, and single numbers.
    once, more = found["numbers"]
    assert more == once
    assert 16 * 5 + 2 <= once <= 16 * 5 + 2 + 20
    unsorted_rows, array_held = found["reasons"]
    assert unsorted_rows.startswith("the log density of 'y' is no sum of those of the")
    assert array_held.startswith("with a share of plate group it fails")


def test_blocks_that_are_no_multiple_of_the_devices() -> None:
    two = Mesh(np.array([jax.devices()[0]] * 2), ("groups",))
    with pytest.raises(Indivisible, match="15 blocks of plate group are no multiple"):
        shared(counts, **counted(15, 4), mesh=two)
