"""Random members of every family in a file of `ngvi.families`.

A new family takes part by being there. The values of its parameters come from their
domains; only what no domain tells (fixed fields, relations between parameters, matrix
structures) needs a row in `ROWS`.

Members come in batches: one compiled program checks hundreds of them.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import ngvi.families
from ngvi import linalg
from ngvi.families import ExponentialFamily, domains
from ngvi.families.domains import Domain
from ngvi.families.parameters import parameter_fields

Shape = tuple[int, ...]
Draw = Callable[[np.random.Generator, Shape, float], Any]

DIM = 3
"""The length of random vectors."""

MODERATE, WIDE = 0.5, 3.0
"""How many decades positive parameters reach to either side of one."""

DRAWS = 20_000
# Two-sided false-alarm rate of one comparison: 2e-8; of a thousand: 2e-5.
STANDARD_ERRORS = 5.6

seeds = st.integers(0, 2**32 - 1)

# -- values of a domain ---------------------------------------------------------------


def _real(rng: np.random.Generator, shape: Shape, decades: float) -> np.ndarray:
    return rng.standard_normal(shape) * _positive(rng, shape, decades)


def _positive(rng: np.random.Generator, shape: Shape, decades: float) -> np.ndarray:
    return 10 ** rng.uniform(-decades, decades, shape)


def _probability(rng: np.random.Generator, shape: Shape, decades: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(1 + decades) * rng.standard_normal(shape)))


def _vector(of: Draw) -> Draw:
    return lambda rng, shape, decades: of(rng, (*shape, DIM), decades)


def _simplex(rng: np.random.Generator, shape: Shape, decades: float) -> np.ndarray:
    # No coordinate so small that a discrete one would hardly be drawn.
    weights = np.exp((0.3 + decades) * rng.uniform(-1, 1, (*shape, DIM)))
    return weights / weights.sum(-1, keepdims=True)


def _unit_vector(rng: np.random.Generator, shape: Shape, _: float) -> np.ndarray:
    vector = rng.standard_normal((*shape, DIM))
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def _matrix(rng: np.random.Generator, shape: Shape, decades: float) -> np.ndarray:
    return _real(rng, (*shape, DIM, DIM), decades)


def positive_definite(
    rng: np.random.Generator, shape: Shape, decades: float, dim: int = DIM
) -> np.ndarray:
    """Matrices whose units spread over these decades and half of it to a side."""
    factor = rng.standard_normal((*shape, dim, 2 * dim + 2))
    matrix = factor @ np.swapaxes(factor, -1, -2) / (2 * dim) + 0.1 * np.eye(dim)
    units = 10 ** rng.uniform(-decades / 2, decades / 2, (*shape, dim))
    return matrix * units[..., :, None] * units[..., None, :]


def _logit(rng: np.random.Generator, shape: Shape, decades: float) -> np.ndarray:
    # Probabilities neither so small that what they belong to would never be drawn.
    return (0.3 + decades) * rng.uniform(-1.3, 1.3, shape)


BY_NAME: dict[str, Draw] = {"logits": _logit}
"""Of numbers; for parameters whose domain says less than their name."""

GENERATORS: list[tuple[Domain, Draw]] = [
    (domains.REAL, _real),
    (domains.POSITIVE, _positive),
    (domains.PROBABILITY, _probability),
    (domains.REAL_VECTOR, _vector(_real)),
    (domains.POSITIVE_VECTOR, _vector(_positive)),
    (domains.SIMPLEX, _simplex),
    (domains.UNIT_VECTOR, _unit_vector),
    (domains.REAL_MATRIX, _matrix),
    (domains.POSITIVE_DEFINITE, positive_definite),
]


def from_domain(
    name: str, domain: Domain, rng: np.random.Generator, batch: Shape, decades: float
) -> np.ndarray:
    """Random elements: of a domain known here, or of one that holds such elements."""
    known = [draw for d, draw in GENERATORS if d is domain]
    if name in BY_NAME:
        known = [BY_NAME[name] if domain.ndim == 0 else _vector(BY_NAME[name])]
    alike = [draw for d, draw in GENERATORS if d.ndim == domain.ndim]
    for draw in known or [*alike, _above(domain)]:
        value = draw(rng, batch, decades)
        if np.all(domain.holds(value, np)):
            return value
    raise NotImplementedError(
        f"no random elements for the domain 'must be {domain.description}': add a "
        "generator to tests/families/cases.py"
    )


def _above(domain: Domain) -> Draw:
    """For numbers above a limit, whose interior point is the limit plus one."""

    def draw(rng: np.random.Generator, shape: Shape, decades: float) -> np.ndarray:
        low = np.asarray(domain.interior(jnp.zeros(shape))) - 1
        return low + _positive(rng, shape, decades)

    return draw


# -- members of a family --------------------------------------------------------------


class Case(NamedTuple):
    """A family, with what is fixed in it, and batches of random members."""

    name: str
    family: type[ExponentialFamily]
    draw: Draw

    def members(
        self, rng: np.random.Generator, batch: Shape, decades: float = MODERATE
    ) -> Any:
        """A batch of random members."""
        return self.draw(rng, batch, decades)


def from_fields(cls: type[ExponentialFamily], **given: Any) -> Draw:
    """Members whose parameters are drawn from their domains, or as given: a value, or
    a function like `Draw`."""

    def draw(rng: np.random.Generator, batch: Shape, decades: float) -> Any:
        values = {
            f.name: from_domain(f.name, f.metadata["domain"], rng, batch, decades)
            for f in parameter_fields(cls)
            if f.name not in given
        }
        values |= {
            name: value(rng, batch, decades) if callable(value) else value
            for name, value in given.items()
        }
        return cls(**values)

    return draw


def precision(structure: Any, *arguments: Any) -> Draw:
    """Random matrices of a structure of `ngvi.linalg`."""

    def draw(rng: np.random.Generator, batch: Shape, decades: float) -> Any:
        matrix = jnp.asarray(positive_definite(rng, batch, decades))
        return structure.from_dense(matrix, *arguments)

    return draw


def _gaussians(cls: Any) -> dict[str, Draw]:
    return {
        s.__name__: from_fields(cls, precision=precision(s))
        for s in (linalg.Dense, linalg.Diagonal)
    }


def _mixtures(cls: Any) -> dict[str, Draw]:
    def components(of: Any) -> Draw:
        draw = from_fields(of)
        return lambda rng, batch, decades: draw(rng, (*batch, DIM), decades)

    return {
        of.__name__: from_fields(cls, components=components(of))
        for of in (ngvi.families.Normal, ngvi.families.Gamma)
    }


def _products(cls: Any) -> dict[str, Draw]:
    def draw(rng: np.random.Generator, batch: Shape, decades: float) -> Any:
        # The slopes' last axis is part of the event.
        slopes = from_fields(ngvi.families.Normal)(rng, (*batch, 2), decades)
        noise = from_fields(ngvi.families.Gamma)(rng, batch, decades)
        return cls({"slopes": slopes, "noise": noise}, len(batch))

    return {"": draw}


def _degrees_of_freedom(
    rng: np.random.Generator, shape: Shape, decades: float
) -> np.ndarray:
    # Nearly p − 1 of them give draws that are singular to rounding.
    return DIM - 1 + 10 ** rng.uniform(-decades / 4, decades, shape)


def row(**given: Any) -> Callable[[Any], dict[str, Draw]]:
    """A family of which some parameters are given, see `from_fields`."""
    return lambda cls: {"": from_fields(cls, **given)}


ROWS: dict[str, Callable[[Any], dict[str, Draw]]] = {
    "Binomial": row(total_count=7),
    "Gaussian": _gaussians,
    "InverseWishart": row(df=_degrees_of_freedom),
    "Laplace": row(loc=0.7),
    "MatrixNormalWishart": row(df=_degrees_of_freedom),
    "Mixture": _mixtures,
    "Multinomial": row(total_count=5),
    "NegativeBinomial": row(total_count=2.5),
    "NormalInverseWishart": row(df=_degrees_of_freedom),
    "Product": _products,
    "Weibull": row(concentration=1.7),
    "Wishart": row(df=_degrees_of_freedom),
}
"""How to draw what the domains do not tell: by family, variants by name."""

ELSEWHERE = {"Custom"}
"""Families without batches of their own, tested in their own files."""


def discover(package: ModuleType = ngvi.families) -> list[Case]:
    """Every concrete family that a file of the package defines."""
    found = []
    for cls in sorted(concrete(package), key=lambda cls: cls.__name__):
        name = cls.__name__
        variants = ROWS.get(name, lambda cls: {"": from_fields(cls)})(cls)
        found += [
            Case(f"{name}-{variant}" if variant else name, cls, draw)
            for variant, draw in variants.items()
        ]
    return found


def concrete(package: ModuleType) -> list[type[ExponentialFamily]]:
    """The families that are no mere bases of others, but for those `ELSEWHERE`."""
    modules = [
        importlib.import_module(f"{package.__name__}.{info.name}")
        for info in pkgutil.iter_modules(package.__path__)
    ]
    return [
        cls
        for module in modules
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, ExponentialFamily)
        and cls.__module__ == module.__name__
        and not (inspect.isabstract(cls) or name in ELSEWHERE)
    ]


def has(cls: Any, name: str) -> bool:
    """Whether a family has what not every family has to have, such as a mode."""
    own = getattr(cls, name, None) is not getattr(ExponentialFamily, name)
    return own or name in {f.name for f in parameter_fields(cls)}


def having(name: str, cases: list[Case]) -> list[Case]:
    """Those whose family has it."""
    return [c for c in cases if has(c.family, name)]


FAMILIES = discover()
NUMBERS = [c for c in FAMILIES if c.family.event_shape is ExponentialFamily.event_shape]
"""The families whose observations are numbers."""

HEAVY = {
    "InverseWishart",
    "MatrixNormalWishart",
    "NormalInverseWishart",
    "VonMises",
    "VonMisesFisher",
}
"""Families whose programs take ten times as long to compile as the others'."""


def each(cases: list[Case], heavy_are_slow: bool = False) -> pytest.MarkDecorator:
    """The decorator that runs a test on each case, as often as `make test` can bear."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(c, marks=pytest.mark.slow)
            if heavy_are_slow and c.name in HEAVY
            else c
            for c in cases
        ],
        ids=[c.name for c in cases],
    )


every_family = each(FAMILIES)
each_with_a_cdf = each(having("cdf", NUMBERS))


def members(
    case: Case, seed: int, batch: Shape, decades: float = MODERATE, count: int = 2
) -> list[Any]:
    """Independent batches of random members with the same fixed parameters."""
    rng = np.random.default_rng(seed)
    return [case.members(rng, batch, decades) for _ in range(count)]


def single(tree: Any) -> Any:
    """The same in single precision."""
    return jax.tree.map(
        lambda v: v.astype(jnp.float32) if jnp.issubdtype(v.dtype, jnp.floating) else v,
        tree,
    )


def double(tree: Any) -> Any:
    """The same numbers in double precision."""
    return jax.tree.map(
        lambda v: v.astype(jnp.float64) if jnp.issubdtype(v.dtype, jnp.floating) else v,
        tree,
    )
