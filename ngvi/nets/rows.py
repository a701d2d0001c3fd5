"""The published algorithms, each a row: estimate × structure × retraction.

| row           | precision           | ĥ                   | retraction |
|---------------|---------------------|---------------------|------------|
| `vogn`        | diagonal            | per-example squares | first      |
| `noisy_adam`  | diagonal            | ĝ²                  | first      |
| `vadam`       | diagonal            | ĝ², m moves by √s   | first      |
| `ivon`        | diagonal            | Price, ĝ², squares  | second     |
| `noisy_kfac`  | Kronecker, a layer  | K-FAC               | first      |
| `noisy_ekfac` | its eigenbasis      | second moments      | first      |
| `slang`       | low rank + diagonal | leading gradients   | first      |
| `full`        | dense               | Fisher              | first      |
| `blocks`      | dense, a layer      | Fisher              | first      |
| `last_layer`  | dense, the last one | Fisher              | first      |

All take the model as `ngvi.fisher.fisher` does, and the settings of
`ngvi.nets.update.Rule` and `ngvi.nets.algorithm.Algorithm` by keyword.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ngvi.fisher.kinds import EmpiricalFisher, Kind, SampledFisher, TrueFisher
from ngvi.fisher.problem import Apply
from ngvi.fisher.structures.base import Averaged
from ngvi.fisher.structures.exact import (
    BlockStructure,
    DenseStructure,
    DiagonalStructure,
)
from ngvi.fisher.structures.kronecker import KroneckerStructure
from ngvi.nets.algorithm import Algorithm
from ngvi.nets.estimates import (
    EigenMoments,
    Estimate,
    FromFisher,
    LeadingGradients,
)
from ngvi.nets.gradient_estimates import Price, SquaredGradient
from ngvi.nets.last_layer import LastLayer
from ngvi.nets.update import Rule

KindName = Literal["true", "sampled", "empirical"]

_KINDS: dict[str, Callable[[], Kind]] = {
    "true": TrueFisher,
    "sampled": SampledFisher,
    "empirical": EmpiricalFisher,
}
_OF_ALGORITHM = (
    "prior_precision",
    "prior_mean",
    "hyperprior",
    "groups",
    "kl_weight",
    "initial_curvature",
)


def vogn(apply: Apply, likelihood: Any, data_size: int, **settings: Any) -> Algorithm:
    """Variational online Gauss-Newton: ĥ = (1/B) Σ g_i², example by example.

    Source: Khan, Nielsen, Tangkaratt, Lin, Gal and Srivastava (2018), Fast and scalable
    Bayesian deep learning by weight-perturbation in Adam; Osawa et al. (2019),
    Practical deep learning with Bayesian principles.
    """
    defaults = {"prior_in_momentum": True}
    estimate = FromFisher(EmpiricalFisher(), DiagonalStructure())
    return _made(apply, likelihood, data_size, estimate, defaults, settings)


def noisy_adam(
    apply: Apply, likelihood: Any, data_size: int, **settings: Any
) -> Algorithm:
    """Adam without the square root: ĥ = ĝ², of the batch's mean gradient.

    Source: Zhang, Sun, Duvenaud and Grosse (2018), Noisy natural gradient as
    variational inference, algorithm 1.
    """
    defaults = {"prior_in_momentum": True, "prior_at_draw": True}
    return _made(apply, likelihood, data_size, SquaredGradient(), defaults, settings)


def vadam(apply: Apply, likelihood: Any, data_size: int, **settings: Any) -> Algorithm:
    """Adam on perturbed weights: no natural gradient, for the mean moves by √s.

    Source: Khan, Nielsen, Tangkaratt, Lin, Gal and Srivastava (2018), Fast and scalable
    Bayesian deep learning by weight-perturbation in Adam, algorithm 1.
    """
    defaults = {"prior_in_momentum": True, "root": True, "initial_curvature": 1e-12}
    return _made(apply, likelihood, data_size, SquaredGradient(), defaults, settings)


def ivon(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    *,
    curvature: Literal["price", "squared", "per-example"] = "price",
    **settings: Any,
) -> Algorithm:
    """The improved variational online Newton method: precision by second order.

    Args:
        apply, likelihood, data_size: as in `vogn`.
        curvature: "price", ĝ (w − m) S, which is the Hessian's; "squared", ĝ²;
            "per-example", as in `vogn`. All are of the mean loss: the first is
            multiplied by the whole precision S = N s + δ, the others by nothing.
        **settings: see the module.

    Source: Shen, Daheim, Cong, Nickl, Marconi, Bazan, Yokota, Gurevych, Cremers, Khan
    and Möllenhoff (2024), Variational learning is effective for large deep networks.
    """
    estimates: dict[str, Estimate] = {
        "price": Price(),
        "squared": SquaredGradient(),
        "per-example": FromFisher(EmpiricalFisher(), DiagonalStructure()),
    }
    if curvature not in estimates:
        raise ValueError(
            f"curvature must be one of {', '.join(estimates)}, got {curvature!r}"
        )
    defaults = {"retraction": "second", "precision_rate": 1e-3, "trust": 0.3}
    return _made(apply, likelihood, data_size, estimates[curvature], defaults, settings)


def noisy_kfac(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    *,
    kind: KindName = "sampled",
    sharing: Literal["expand", "reduce"] = "expand",
    **settings: Any,
) -> Algorithm:
    """Matrix-normal posteriors of the layers, with the prior added exactly.

    S of a layer is (N/κ) A ⊗ G + δ I, factorised and drawn from in the eigenvectors of
    A and G. `factored=True` is the published form, (A + π√γ I) ⊗ (G + √γ/π I) with
    γ = κδ/N: more precision than asked for, and so a colder posterior.

    Source: Zhang, Sun, Duvenaud and Grosse (2018), Noisy natural gradient as
    variational inference, algorithm 2.
    """
    estimate = FromFisher(_kind(kind), KroneckerStructure(sharing))
    defaults = {"refresh": 10, "corrected": True, "trust": 0.3}
    return _made(apply, likelihood, data_size, estimate, defaults, settings)


def noisy_ekfac(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    *,
    kind: KindName = "sampled",
    sharing: Literal["expand", "reduce"] = "expand",
    **settings: Any,
) -> Algorithm:
    """The same in the eigenvectors of A and G, with the second moments measured there.

    Source: Bae, Zhang and Grosse (2018), Eigenvalue corrected noisy natural gradient.
    """
    estimate = EigenMoments(_kind(kind), KroneckerStructure(sharing))
    defaults = {"refresh": 10, "corrected": True, "trust": 0.3}
    return _made(apply, likelihood, data_size, estimate, defaults, settings)


def slang(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    *,
    rank: int = 8,
    kind: KindName = "empirical",
    **settings: Any,
) -> Algorithm:
    """A precision of low rank plus a diagonal, exact on the diagonal.

    Source: Mishkin, Kunstner, Nielsen, Schmidt and Khan (2018), SLANG.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}: else take vogn")
    estimate = LeadingGradients(rank, _kind(kind))
    return _made(apply, likelihood, data_size, estimate, {}, settings)


def full(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    *,
    kind: KindName = "true",
    **settings: Any,
) -> Algorithm:
    """All covariances, for small nets: P² numbers."""
    return _from_fisher(apply, likelihood, data_size, kind, DenseStructure(), settings)


def blocks(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    *,
    kind: KindName = "true",
    **settings: Any,
) -> Algorithm:
    """All covariances within a layer."""
    return _from_fisher(apply, likelihood, data_size, kind, BlockStructure(), settings)


def last_layer(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    *,
    kind: KindName = "true",
    **settings: Any,
) -> Algorithm:
    """All covariances of the last layer, and a point for the layers before it.

    These move by the same step, with the diagonal of their curvature; their prior is a
    penalty. Its δ cannot be learned: for points, an ever larger one would be best.

    Source: Kristiadi, Hein and Hennig (2020), Being Bayesian, even just a bit, fixes
    overconfidence in ReLU networks.
    """
    if settings.get("hyperprior") is not None:
        raise ValueError(
            "last_layer has points for weights, whose prior cannot be learned: give "
            "prior_precision without a hyperprior, or take another row"
        )
    estimate = LastLayer(_kind(kind))
    return _made(apply, likelihood, data_size, estimate, {}, settings)


def _from_fisher(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    kind: KindName,
    structure: Averaged,
    settings: dict[str, Any],
) -> Algorithm:
    estimate = FromFisher(_kind(kind), structure)
    return _made(apply, likelihood, data_size, estimate, {}, settings)


def _kind(name: KindName) -> Kind:
    if name not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}, got {name!r}")
    return _KINDS[name]()


def _made(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    estimate: Estimate,
    defaults: dict[str, Any],
    settings: dict[str, Any],
) -> Algorithm:
    """The settings, over the row's defaults, to those they belong to."""
    chosen = defaults | settings
    own = {name: chosen.pop(name) for name in _OF_ALGORITHM if name in chosen}
    return Algorithm(apply, likelihood, data_size, Rule(estimate, **chosen), **own)
