"""Which family each latent site has: by its support, or as the user says.

| support                      | families, the first that is conjugate or fits best   |
|------------------------------|------------------------------------------------------|
| positive numbers             | Gamma, InverseGamma                                  |
| (0, 1)                       | Beta                                                 |
| the simplex                  | Dirichlet                                            |
| positive-definite matrices   | InverseWishart, Wishart                              |
| angles                       | VonMises                                             |
| a few whole numbers          | Bernoulli, Categorical                               |
| the line, and all other ones | Gaussian in the unconstrained coordinates            |

The members of a site are independent over its plates; the entries of one value are one
member of a joint family, or of a Gaussian with all correlations up to 32 of them. "Fits
best" means that log p, given the other sites, is closest to a combination of the
family's statistics, in gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpyro.distributions import constraints

from ngvi.bayes.blocks import DISCRETE, PAIRS, SUPPORTS, Block
from ngvi.bayes.numpyro_model import ModelTarget, Site
from ngvi.families import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    ExponentialFamily,
    Gamma,
    Gaussian,
    InverseGamma,
    InverseWishart,
    LogNormal,
    Normal,
    NormalGamma,
    NormalInverseWishart,
    VonMises,
    Wishart,
)

MEAN_FIELD = "mean-field"
CONJUGATE = "conjugate"
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

Family = type[ExponentialFamily]
Choice = str | Family
NAMES: dict[str, Family] = {
    "gaussian": Gaussian,
    "normal": Gaussian,
    "log-normal": LogNormal,
    "gamma": Gamma,
    "inverse-gamma": InverseGamma,
    "beta": Beta,
    "dirichlet": Dirichlet,
    "wishart": Wishart,
    "inverse-wishart": InverseWishart,
    "von-mises": VonMises,
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "normal-gamma": NormalGamma,
    "normal-inverse-wishart": NormalInverseWishart,
}


class Options(NamedTuple):
    """The blocks that may stand for a site, or for several joined ones."""

    candidates: tuple[Block, ...]
    must_be_conjugate: bool

    @property
    def sites(self) -> tuple[str, ...]:
        """Their names."""
        return self.candidates[0].sites


def options(
    target: ModelTarget,
    trace: Mapping[str, Mapping[str, Any]],
    family: Any,
) -> list[Options]:
    """What may stand for each site.

    Args:
        target: the model.
        trace: its recorded run.
        family: "mean-field", or a choice for some of the sites: a name of `NAMES`, a
            class of `ngvi.families`, "conjugate"; for several joined sites, as a tuple,
            "gaussian", "normal-gamma" or "normal-inverse-wishart".

    Raises:
        ValueError: there is no such site or family, a site is named twice, or a family
            does not fit a site's support; the message names the site.
    """
    layout = _Layout(target, trace)
    chosen: dict[tuple[str, ...], Choice] = {}
    for key, choice in family.items() if isinstance(family, Mapping) else ():
        names = (key,) if isinstance(key, str) else tuple(key)
        layout.check(names, chosen)
        chosen[names] = choice
    found = [layout.chosen(names, choice) for names, choice in chosen.items()]
    taken = {name for names in chosen for name in names}
    rest = [site.name for site in target.sites if site.name not in taken]
    found += [Options(layout.of_support(name), False) for name in rest]
    order = [site.name for site in target.sites]
    return sorted(found, key=lambda option: order.index(option.sites[0]))


class _Layout:
    """Where the sites of a model are, and what they are on."""

    def __init__(self, target: ModelTarget, trace: Mapping[str, Any]) -> None:
        self.sites = {site.name: site for site in target.sites}
        self.trace = trace
        ends = np.cumsum([site.size for site in target.sites])
        starts = (
            int(end) - site.size for site, end in zip(target.sites, ends, strict=True)
        )
        self.starts = dict(zip(self.sites, starts, strict=True))

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
        support = self.trace[name]["fn"].support
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        return support

    def _members(self, site: Site, size: int) -> tuple[tuple[int, ...], ...]:
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
            return Block((name,), family, self._members(site, event))
        if family in DISCRETE:
            low, count = self._values(name)
            if count * site.size - site.size > LARGEST_DISCRETE:
                raise ValueError(
                    f"The discrete site '{name}' has {site.size} entries of {count} "
                    f"values: more than the {LARGEST_DISCRETE} free probabilities that "
                    "are fitted one by one. Sum it out (without family=, a site that "
                    "can be enumerated is), or by hand."
                )
            index = self._members(site, 1)
            return Block((name,), family, index, low=low, classes=count)
        size = event if event <= LARGEST_JOINT else 1
        return Block((name,), Gaussian, self._members(site, size))

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

    def chosen(self, names: tuple[str, ...], choice: Choice) -> Options:
        """The candidates for what the user says."""
        if len(names) > 1:
            return Options((self._joined(names, choice),), False)
        name = names[0]
        if choice == CONJUGATE:
            return Options(self.of_support(name), True)
        family = _family(choice, names)
        fitting = self.families(name)
        positive = Gamma in fitting
        if family is LogNormal and positive:
            family = Gaussian
        discrete = self.support(name).is_discrete
        if (family is not Gaussian and family not in fitting) or (
            family is Gaussian and discrete
        ):
            suited = [f.__name__ for f in fitting] + ["Gaussian"] * (not discrete)
            raise ValueError(
                f"The family {family.__name__} does not fit the site '{name}', whose "
                f"support is {self.support(name)}. What fits: {', '.join(suited)}."
            )
        return Options((self.block(name, family),), False)

    def _joined(self, names: tuple[str, ...], choice: Choice) -> Block:
        family = _family(choice, names)
        quoted = ", ".join(f"'{name}'" for name in names)
        whole = [name for name in names if self.support(name).is_discrete]
        if family is Gaussian and whole:
            raise ValueError(f"A Gaussian cannot hold the discrete site '{whole[0]}'.")
        if family is Gaussian:
            index = [
                i for n in names for row in self._members(self.sites[n], 1) for i in row
            ]
            return Block(names, Gaussian, (tuple(index),))
        if family not in PAIRS:
            raise ValueError(
                f"The sites {quoted} cannot share the family {family.__name__}: joined "
                "sites are 'gaussian', 'normal-gamma' or 'normal-inverse-wishart'."
            )
        block = self.pair(names, family)
        if block is None:
            raise ValueError(
                f"The family {family.__name__} does not fit the sites {quoted}: it is "
                "of a mean on the line and a positive precision, or of a vector and a "
                "covariance matrix of its size, in this order."
            )
        return block

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
        pairs = zip(self._members(first, dim), self._members(second, size), strict=True)
        return Block(names, family, tuple(a + b for a, b in pairs), first=dim)


def natural_pair(target: ModelTarget, trace: Mapping[str, Any]) -> Block | None:
    """Of a model with just a mean and a precision or covariance, both under the family
    that is conjugate to a normal likelihood."""
    if len(target.sites) != 2 or target.whole:
        return None
    layout = _Layout(target, trace)
    names = tuple(site.name for site in target.sites)
    for order in (names, names[::-1]):
        for family in PAIRS:
            block = layout.pair(order, family)
            if block is not None:
                return block
    return None


def _family(choice: Any, names: tuple[str, ...]) -> Family:
    if isinstance(choice, str) and choice.lower().replace("_", "-") in NAMES:
        return NAMES[choice.lower().replace("_", "-")]
    if choice is Normal:
        return Gaussian
    if choice in NAMES.values():
        return choice
    quoted = ", ".join(f"'{name}'" for name in names)
    raise ValueError(
        f"family: {choice!r} for the site {quoted} is none of "
        f"{', '.join([*NAMES, CONJUGATE])} or of their classes in ngvi.families."
    )
