"""Where the latent sites of a model are, and which families their supports allow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpyro.distributions import constraints

from ngvi.bayes.blocks import DISCRETE, SUPPORTS, Block
from ngvi.bayes.model_trace import base_support
from ngvi.bayes.numpyro_model import ModelTarget, Site
from ngvi.families import (
    Bernoulli,
    Categorical,
    Dirichlet,
    ExponentialFamily,
    Gamma,
    Gaussian,
    InverseWishart,
    NormalInverseWishart,
    Wishart,
)

Family = type[ExponentialFamily]
LARGEST_JOINT = 32
"""Entries of one value up to which a Gaussian has all their correlations."""
LARGEST_DISCRETE = 100
"""Free probabilities of a discrete site."""

_SAME = (
    (constraints.nonnegative, constraints.positive),
    (constraints.positive_semidefinite, constraints.positive_definite),
    (constraints.interval(0.0, 1.0), constraints.unit_interval),
    (constraints.open_interval(0.0, 1.0), constraints.unit_interval),
)
"""Supports that differ by their border."""


class Layout:
    """Where the sites of a model are, and what they are on."""

    def __init__(self, target: ModelTarget, trace: Mapping[str, Any]) -> None:
        self.sites = {site.name: site for site in target.sites}
        self.trace = trace
        self.starts = dict(zip(self.sites, target.starts, strict=True))

    def check(self, names: tuple[str, ...], chosen: Iterable[tuple[str, ...]]) -> None:
        for name in names:
            if name not in self.sites:
                known = ", ".join(f"'{n}'" for n in self.sites)
                raise ValueError(
                    f"family: there is no latent site '{name}'. The model has {known}."
                )
            if any(name in other for other in chosen) or names.count(name) > 1:
                raise ValueError(f"family: the site '{name}' is named twice.")

    def support(self, name: str) -> Any:
        """Of one entry, or of one value of a joint distribution."""
        return base_support(self.trace[name]["fn"].support)

    def members(self, site: Site, size: int) -> tuple[tuple[int, ...], ...]:
        start = self.starts[site.name]
        index = np.arange(start, start + site.size).reshape(-1, size)
        return tuple(tuple(int(i) for i in row) for row in index)

    def _event(self, site: Site) -> int:
        """Coordinates of one value."""
        fn = self.trace[site.name]["fn"]
        batch = len(site.shape) - fn.event_dim
        return math.prod(site.unconstrained_shape[batch:])

    def block(self, name: str, family: Family) -> Block:
        """A site under a family that fits its support."""
        site, event = self.sites[name], self._event(self.sites[name])
        if family in SUPPORTS:
            if SUPPORTS[family].event_dim == 0:
                event = 1
            elif family is Dirichlet:
                event = site.unconstrained_shape[-1]
            return Block((name,), family, self.members(site, event))
        if family in DISCRETE:
            low, count = self._values(name)
            if count * site.size - site.size > LARGEST_DISCRETE:
                raise ValueError(
                    f"The discrete site '{name}' has {site.size} entries of {count} "
                    f"values: more than the {LARGEST_DISCRETE} free probabilities that "
                    "are fitted one by one. Sum it out (without family=, a site that "
                    "can be enumerated is), or by hand."
                )
            index = self.members(site, 1)
            return Block((name,), family, index, low=low, classes=count)
        size = event if event <= LARGEST_JOINT else 1
        return Block((name,), Gaussian, self.members(site, size))

    def _values(self, name: str) -> tuple[int, int]:
        """The lowest value of a discrete site, and how many there are."""
        support = self.support(name)
        if support == constraints.boolean:
            return 0, 2
        low = getattr(support, "lower_bound", None)
        high = getattr(support, "upper_bound", None)
        if low is None or high is None:
            raise ValueError(
                f"The discrete site '{name}' has no end of values: sum it out by hand, "
                "or observe it."
            )
        low, high = np.asarray(low), np.asarray(high)
        if np.ptp(low) or np.ptp(high):
            raise ValueError(
                f"The entries of the discrete site '{name}' have different values."
            )
        return int(low.min()), int(high.max() - low.min()) + 1

    def families(self, name: str) -> tuple[Family, ...]:
        """Those that fit a site's support, but for the Gaussian."""
        support = self.support(name)
        if support.is_discrete:
            return (Bernoulli if self._values(name) == (0, 2) else Categorical,)
        support = next((s for t, s in _SAME if support == t), support)
        found = tuple(f for f, where in SUPPORTS.items() if where == support)
        # A covariance is met more often than a precision.
        return found[::-1] if Wishart in found else found

    def of_support(self, name: str) -> tuple[Block, ...]:
        """The candidates for a site that nothing is said about."""
        families = self.families(name) or (Gaussian,)
        return tuple(self.block(name, family) for family in families)

    def pair(self, names: tuple[str, ...], family: Family) -> Block | None:
        """Two sites under a family over both; None where it does not fit."""
        if len(names) != 2:
            return None
        first, second = (self.sites[name] for name in names)
        matrix = family is NormalInverseWishart
        wanted = InverseWishart if matrix else Gamma
        dim = self._event(first) if matrix else 1
        size = dim * (dim + 1) // 2 if matrix else 1
        fits = (
            self.support(names[0]) == constraints.real
            and wanted in self.families(names[1])
            and first.size * size == second.size * dim
            and (not matrix or self._event(second) == size)
        )
        if not fits:
            return None
        pairs = zip(self.members(first, dim), self.members(second, size), strict=True)
        return Block(names, family, tuple(a + b for a, b in pairs), first=dim)
