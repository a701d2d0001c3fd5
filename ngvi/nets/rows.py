"""The published algorithms, each a row: measure × structure × retraction.

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

from dataclasses import fields
from typing import Any, Literal, get_args

from ngvi.fisher.kinds import KINDS, EmpiricalFisher, Kind
from ngvi.fisher.problem import Apply
from ngvi.fisher.structures.exact import (
    BlockStructure,
    DenseStructure,
    DiagonalStructure,
)
from ngvi.fisher.structures.kronecker import KroneckerStructure
from ngvi.nets.algorithm import Algorithm
from ngvi.nets.eigen_moments import EigenMoments
from ngvi.nets.gradient_measures import Price, SquaredGradient
from ngvi.nets.last_layer import LastLayer
from ngvi.nets.measures import FromFisher, LeadingGradients, Measure
from ngvi.nets.update import Rule

KindName = Literal["true", "sampled", "empirical"]

_SQUARES = FromFisher(EmpiricalFisher(), DiagonalStructure())
_FACTORS: dict[str, Any] = {"refresh": 10, "corrected": True, "trust": 0.3}


def vogn(apply: Apply, likelihood: Any, data_size: int, **settings: Any) -> Algorithm:
    """Variational online Gauss-Newton: ĥ = (1/B) Σ g_i², example by example.

    Source: Khan, Nielsen, Tangkaratt, Lin, Gal and Srivastava (2018), Fast and scalable
    Bayesian deep learning by weight-perturbation in Adam; Osawa et al. (2019),
    Practical deep learning with Bayesian principles.
    """
    defaults = {"prior_in_momentum": True}
    return _made(apply, likelihood, data_size, _SQUARES, settings, defaults)


def noisy_adam(
    apply: Apply, likelihood: Any, data_size: int, **settings: Any
) -> Algorithm:
    """Adam without the square root: ĥ = ĝ², of the batch's mean gradient.

    Source: Zhang, Sun, Duvenaud and Grosse (2018), Noisy natural gradient as
    variational inference, algorithm 1.
    """
    defaults = {"prior_in_momentum": True, "prior_at_draw": True}
    return _made(apply, likelihood, data_size, SquaredGradient(), settings, defaults)


def vadam(apply: Apply, likelihood: Any, data_size: int, **settings: Any) -> Algorithm:
    """Adam on perturbed weights: no natural gradient, for the mean moves by √s.

    Source: Khan, Nielsen, Tangkaratt, Lin, Gal and Srivastava (2018), Fast and scalable
    Bayesian deep learning by weight-perturbation in Adam, algorithm 1.
    """
    defaults = {"prior_in_momentum": True, "root": True, "initial_curvature": 1e-12}
    return _made(apply, likelihood, data_size, SquaredGradient(), settings, defaults)


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
    measures: dict[str, Measure] = {
        "price": Price(),
        "squared": SquaredGradient(),
        "per-example": _SQUARES,
    }
    if curvature not in measures:
        raise ValueError(
            f"curvature must be one of {', '.join(measures)}, got {curvature!r}"
        )
    defaults = {"retraction": "second", "precision_rate": 1e-3, "trust": 0.3}
    return _made(apply, likelihood, data_size, measures[curvature], settings, defaults)


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
    measure = FromFisher(_kind(kind), KroneckerStructure(sharing))
    return _made(apply, likelihood, data_size, measure, settings, _FACTORS)


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
    measure = EigenMoments(_kind(kind), KroneckerStructure(sharing))
    return _made(apply, likelihood, data_size, measure, settings, _FACTORS)


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
    measure = LeadingGradients(rank, _kind(kind))
    return _made(apply, likelihood, data_size, measure, settings)


def full(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    *,
    kind: KindName = "true",
    **settings: Any,
) -> Algorithm:
    """All covariances, for small nets: P² numbers."""
    measure = FromFisher(_kind(kind), DenseStructure())
    return _made(apply, likelihood, data_size, measure, settings)


def blocks(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    *,
    kind: KindName = "true",
    **settings: Any,
) -> Algorithm:
    """All covariances within a layer."""
    measure = FromFisher(_kind(kind), BlockStructure())
    return _made(apply, likelihood, data_size, measure, settings)


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
    measure = LastLayer(_kind(kind))
    return _made(apply, likelihood, data_size, measure, settings)


def _kind(name: KindName) -> Kind:
    known = get_args(KindName)
    if name not in known:
        raise ValueError(f"kind must be one of {', '.join(known)}, got {name!r}")
    return KINDS[name]()


def _made(
    apply: Apply,
    likelihood: Any,
    data_size: int,
    measure: Measure,
    settings: dict[str, Any],
    defaults: dict[str, Any] | None = None,
) -> Algorithm:
    """The settings, over the row's defaults, to those they belong to."""
    chosen = (defaults or {}) | settings
    of_algorithm = [field.name for field in fields(Algorithm)]
    own = {name: chosen.pop(name) for name in of_algorithm if name in chosen}
    return Algorithm(apply, likelihood, data_size, Rule(measure, **chosen), **own)
