"""Wrong parameters and observations: named outside `jit`, NaN or −∞ inside."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from ngvi import families
from ngvi.families.domains import Domain
from ngvi.families.parameters import domains, fixed_fields, parameter_fields
from tests.families.cases import FAMILIES, Case, every_family, members
from tests.families.observations import interior
from tests.programs import compiled


def elements_and_others(domain: Domain, element: np.ndarray) -> list[np.ndarray]:
    """Arrays of an element's shape, most of them outside its domain."""
    spoilt = []
    for value in (math.nan, math.inf, -math.inf, -1.0, 0.0, 0.3, 1.0, 1.5, 1e6):
        one = np.array(element, float)
        one[(0,) * element.ndim] = value
        spoilt.append(one)
    every = [np.zeros_like(spoilt[0]), -element, 2.0 * element, element + 0.25]
    return [*spoilt, *(np.asarray(e, float) for e in every)]


def outside(domain: Domain, element: np.ndarray) -> list[np.ndarray]:
    """Arrays of an element's shape that do not lie in its domain."""
    found = [
        v for v in elements_and_others(domain, element) if not domain.holds(v, np).all()
    ]
    assert any(np.isnan(v).any() for v in found)
    return found


def _values(q: Any) -> dict[str, Any]:
    return dict(vars(q))


PARAMETERS = [
    pytest.param(case, f.name, id=f"{case.name}-{f.name}")
    for case in FAMILIES
    for f in parameter_fields(case.family)
]


@pytest.mark.parametrize(("case", "field"), PARAMETERS)
def test_a_wrong_parameter_is_named(case: Case, field: str) -> None:
    (q,) = members(case, 0, (), count=1)
    (batch,) = members(case, 0, (3,), count=1)
    domain, element = domains(q)[field], np.asarray(getattr(q, field))
    said = rf"^{case.family.__name__}: {field} must be {_escaped(domain)}"
    for wrong in outside(domain, element):
        with pytest.raises(ValueError, match=said):
            case.family(**{**_values(q), field: wrong})
        among = np.asarray(getattr(batch, field)).copy()
        among[1] = wrong
        with pytest.raises(ValueError, match=rf"{said}.*at batch index \(1,\)$"):
            case.family(**{**_values(batch), field: among})


def _escaped(domain: Domain) -> str:
    return domain.description.replace("(", r"\(").replace(")", r"\)")


@pytest.mark.parametrize(("case", "field"), PARAMETERS)
def test_wrong_axes_are_named(case: Case, field: str) -> None:
    (q,) = members(case, 0, (3,), count=1)
    domain, values = domains(q)[field], _values(q)
    name = case.family.__name__
    if domain.ndim:
        too_few = np.asarray(values[field])[0]
        too_few = too_few[(0,) * domain.ndim]
        with pytest.raises(ValueError, match=rf"^{name}: .*{field}.*shape"):
            case.family(**{**values, field: too_few})
    elif len(parameter_fields(case.family)) > 1:
        with pytest.raises(ValueError, match=f"^{name}: .*shape"):
            case.family(**{**values, field: np.repeat(values[field], 2, 0)[:5]})


FIXED = [
    pytest.param(case, f.name, id=f"{case.name}-{f.name}")
    for case in FAMILIES
    for f in fixed_fields(case.family)
]


@pytest.mark.parametrize(("case", "field"), FIXED)
def test_a_wrong_fixed_parameter_is_named(case: Case, field: str) -> None:
    (q,) = members(case, 0, (), count=1)
    (f,) = (f for f in fixed_fields(case.family) if f.name == field)
    for wrong in (None, "three", math.nan, -1, 0, 0.5):
        try:
            right = f.metadata["holds"](wrong)
        except TypeError:
            right = False
        if not right:
            said = rf"{case.family.__name__}: {field} must be .*, got {wrong!r}"
            with pytest.raises(ValueError, match=said):
                case.family(**{**_values(q), field: wrong})


def _numbers(q: Any, p: Any, x: Any) -> list[Array]:
    """Numbers that an invalid member must not have, one row a member."""
    return [
        *(q.flatten(q.mean_params).T),
        q.entropy(),
        q.kl(p),
        q.log_prob(x),
    ]


@every_family
def test_an_invalid_member_is_nan_inside_jit(case: Case) -> None:
    """All of it, also what ignores the wrong parameter; its neighbours stay right."""
    (q,) = members(case, 0, (), count=1)
    wrongs = [
        (name, wrong)
        for name, domain in domains(q).items()
        for wrong in outside(domain, np.asarray(getattr(q, name)))
    ]
    size = len(wrongs) + 1

    def repeated(leaf: Array) -> np.ndarray:
        return np.array(np.broadcast_to(leaf, (size, *leaf.shape)))

    columns = {n: jax.tree.map(repeated, v) for n, v in _branches(q).items()}
    static = {f.name: getattr(q, f.name) for f in fixed_fields(case.family)}
    for i, (name, wrong) in enumerate(wrongs):
        columns[name][i] = wrong

    @compiled
    def build(columns: dict[str, Any], good: Any, x: Any) -> list[Array]:
        q = case.family(**columns, **_batched(static))
        assert q.batch_shape == (size,)
        return _numbers(q, good, x)

    (good,) = members(case, 0, (size,), count=1)
    x = interior(good)
    for row in build(columns, good, x):
        assert np.isnan(row[:-1]).all(), wrongs[int(np.argmin(np.isnan(row[:-1])))]
        assert np.isfinite(row[-1])


def _branches(q: Any) -> dict[str, Any]:
    """All that is not fixed, by field."""
    static = {f.name for f in fixed_fields(type(q))}
    return {n: v for n, v in vars(q).items() if n not in static}


def _batched(static: dict[str, Any]) -> dict[str, Any]:
    return {n: 1 if n == "batch_ndim" else v for n, v in static.items()}


@every_family
def test_log_prob_outside_the_support(case: Case) -> None:
    """−∞ outside, NaN at NaN, and no NaN in the derivatives of what is −∞."""
    (q,) = members(case, 0, (), count=1)
    x = jax.tree.map(np.asarray, interior(q))
    parts = jax.tree.leaves(getattr(q.support, "parts", q.support))
    leaves, structure = jax.tree.flatten(x)
    points = []
    for i, domain in enumerate(parts):
        for wrong in outside(domain, leaves[i].astype(float)):
            points.append(
                [wrong if j == i else v.astype(float) for j, v in enumerate(leaves)]
            )
    stacked = [np.stack(column) for column in zip(*points, strict=True)]
    missing = np.array([any(np.isnan(v).any() for v in point) for point in points])
    assert missing.any() and not missing.all()

    @compiled
    def study(params: Any, values: Any) -> tuple[Array, Any]:
        def total(params: Any) -> tuple[Array, Array]:
            logs = q.with_natural_params(params).log_prob(values)
            return jnp.where(jnp.isfinite(logs), logs, 0).sum(), logs

        slopes, logs = jax.grad(total, has_aux=True)(params)
        return logs, slopes

    logs, slopes = study(q.natural_params, jax.tree.unflatten(structure, stacked))
    assert np.isnan(logs[missing]).all()
    assert (logs[~missing] == -np.inf).all()
    assert all(np.isfinite(s).all() for s in jax.tree.leaves(slopes))


OUTSIDE: list[tuple[Any, Any]] = [
    (families.Normal, (1.0, 0.5)),
    (families.Exponential, -1.0),
    (families.InverseGaussian, (2.0, 0.4)),
    (families.Bernoulli, 1.0),
    (families.Geometric, 0.0),
    (families.Poisson, np.inf),
    (families.LogSeries, 1.0),
    (families.Categorical, [0.5, 0.5]),
    (families.Categorical, [0.5, -0.1]),
    (families.Gamma, (1.0, 1.0)),
]
"""Mean parameters of no member."""


@pytest.mark.parametrize(("family", "mean"), OUTSIDE, ids=str)
def test_mean_parameters_of_no_member(family: Any, mean: Any) -> None:
    mean = jnp.asarray(mean) if isinstance(mean, list) else mean
    mean = jax.tree.map(jnp.asarray, mean)
    for make in (family.from_mean, family.natural_from_mean):
        with pytest.raises(ValueError, match=rf"^{family.__name__}: .* must be"):
            make(mean)
        for leaf in jax.tree.leaves(compiled(make)(mean)):
            assert np.isnan(leaf).all()
