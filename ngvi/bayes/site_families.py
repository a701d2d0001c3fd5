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

from collections.abc import Mapping
from typing import Any, NamedTuple

from ngvi.bayes.blocks import PAIRS, Block
from ngvi.bayes.numpyro_model import ModelTarget
from ngvi.bayes.site_layout import Family, Layout
from ngvi.families import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
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
    layout = Layout(target, trace)
    chosen: dict[tuple[str, ...], Choice] = {}
    for key, choice in family.items() if isinstance(family, Mapping) else ():
        names = (key,) if isinstance(key, str) else tuple(key)
        layout.check(names, chosen)
        chosen[names] = choice
    found = [_chosen(layout, names, choice) for names, choice in chosen.items()]
    taken = {name for names in chosen for name in names}
    rest = [site.name for site in target.sites if site.name not in taken]
    found += [Options(layout.of_support(name), False) for name in rest]
    order = [site.name for site in target.sites]
    return sorted(found, key=lambda option: order.index(option.sites[0]))


def _chosen(layout: Layout, names: tuple[str, ...], choice: Choice) -> Options:
    """The candidates for what the user says."""
    if len(names) > 1:
        return Options((_joined(layout, names, choice),), False)
    name = names[0]
    if choice == CONJUGATE:
        return Options(layout.of_support(name), True)
    family = _family(choice, names)
    fitting = layout.families(name)
    positive = Gamma in fitting
    if family is LogNormal and positive:
        family = Gaussian
    discrete = layout.support(name).is_discrete
    if (family is not Gaussian and family not in fitting) or (
        family is Gaussian and discrete
    ):
        suited = [f.__name__ for f in fitting] + ["Gaussian"] * (not discrete)
        raise ValueError(
            f"The family {family.__name__} does not fit the site '{name}', whose "
            f"support is {layout.support(name)}. What fits: {', '.join(suited)}."
        )
    return Options((layout.block(name, family),), False)


def _joined(layout: Layout, names: tuple[str, ...], choice: Choice) -> Block:
    family = _family(choice, names)
    quoted = ", ".join(f"'{name}'" for name in names)
    whole = [name for name in names if layout.support(name).is_discrete]
    if family is Gaussian and whole:
        raise ValueError(f"A Gaussian cannot hold the discrete site '{whole[0]}'.")
    if family is Gaussian:
        index = [
            i for n in names for row in layout.members(layout.sites[n], 1) for i in row
        ]
        return Block(names, Gaussian, (tuple(index),))
    if family not in PAIRS:
        raise ValueError(
            f"The sites {quoted} cannot share the family {family.__name__}: joined "
            "sites are 'gaussian', 'normal-gamma' or 'normal-inverse-wishart'."
        )
    block = layout.pair(names, family)
    if block is None:
        raise ValueError(
            f"The family {family.__name__} does not fit the sites {quoted}: it is "
            "of a mean on the line and a positive precision, or of a vector and a "
            "covariance matrix of its size, in this order."
        )
    return block


def natural_pair(target: ModelTarget, trace: Mapping[str, Any]) -> Block | None:
    """Of a model with just a mean and a precision or covariance, both under the family
    that is conjugate to a normal likelihood."""
    if len(target.sites) != 2 or target.whole:
        return None
    layout = Layout(target, trace)
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
