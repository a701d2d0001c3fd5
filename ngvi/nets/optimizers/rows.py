"""The published optimisers that need curvature, each a row of settings.

| row                | F                     | kind         | α, μ        | λ     |
|--------------------|-----------------------|--------------|-------------|-------|
| `natural_gradient` | any of the engine     | true         | model       | LM    |
| `kfac`             | Kronecker, a layer    | sampled      | model       | LM    |
| `ekfac`            | its eigenbasis        | sampled      | model       | LM    |
| `gauss_newton`     | any of the engine     | gauss-newton | 1, halved   | LM    |
| `hessian_free`     | products              | gauss-newton | 1, halved   | LM    |
| `diagonal_fisher`  | diagonal              | true         | given       | given |
| `squared_gradient` | diag(ĝ²)              | empirical    | given       | given |
| `stochastic_natural_gradient` | any        | true         | given       | given |

`ngvi.nets.optimizers.singd` is one more, Kronecker factors without an inverse.

Model: of the local quadratic model. LM: adapted by Levenberg and Marquardt's rule. All
take the net as `ngvi.fisher.fisher` does; what is left unsaid here is a setting of
`ngvi.nets.optimizers.Settings`, by keyword, and so are `mask` and `trainable` of
`CurvatureOptimizer`.
"""

from __future__ import annotations

from typing import Any, Literal

from ngvi.fisher.engine import StructureName
from ngvi.fisher.kinds import KINDS, EmpiricalFisher, Kind, SampledFisher
from ngvi.fisher.problem import Apply
from ngvi.fisher.structures import (
    STRUCTURES,
    DiagonalStructure,
    KroneckerEigenStructure,
    KroneckerStructure,
    LowRankStructure,
    MatrixFreeStructure,
    Structure,
)
from ngvi.fisher.structures.base import Averaged
from ngvi.fisher.structures.kronecker import Sharing
from ngvi.nets.optimizers.measures import (
    Leading,
    Measure,
    Measured,
    Products,
    Rescaled,
    SquaredGradient,
)
from ngvi.nets.optimizers.optimizer import CurvatureOptimizer
from ngvi.nets.optimizers.settings import Settings
from ngvi.nets.schedules import Number

KindName = Literal["true", "sampled", "empirical", "gauss-newton"]


def natural_gradient(
    apply: Apply,
    likelihood: Any,
    *,
    structure: StructureName | Structure = "dense",
    kind: KindName = "true",
    **settings: Any,
) -> CurvatureOptimizer:
    """Natural gradient descent, with any structure of the Fisher engine.

    Args:
        apply: (params, x) ↦ outputs, as in `ngvi.fisher.fisher`.
        likelihood: as there.
        structure: as there; "matrix-free" solves by conjugate gradients with the
            curvature of the step's own batch.
        kind: as there.
        **settings: see `Settings`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from ngvi.nets.optimizers import natural_gradient
        >>> def apply(params, x):
        ...     return x @ params["w"]
        >>> x = jnp.array([[1.0, 0.5], [0.2, -1.0], [2.0, 1.0]])
        >>> batch = x, x @ jnp.array([3.0, -2.0])
        >>> optimizer = natural_gradient(apply, "gaussian", damping=0.0)
        >>> state = optimizer.init({"w": jnp.zeros(2)}, batch)
        >>> state, info = optimizer.step(state, batch, jax.random.key(0))
        >>> [round(float(w), 3) for w in state.params["w"]]  # linear: one step
        [3.0, -2.0]

    Source: Amari (1998), Natural gradient works efficiently in learning; Martens
    (2020), New insights and perspectives on the natural gradient method.
    """
    defaults = {"damping": 1e-2, "adapt_every": 5}
    return made(apply, likelihood, _measure(structure, kind), defaults, settings)


def kfac(
    apply: Apply,
    likelihood: Any,
    *,
    kind: KindName = "sampled",
    sharing: Sharing = "expand",
    factor_dtype: str | None = None,
    **settings: Any,
) -> CurvatureOptimizer:
    """K-FAC, its steps scaled by the exact quadratic model.

    `learning_rate=`, `momentum=0.9` and `max_kl=` in place of the model make it the
    cheaper one of Ba, Grosse and Martens (2017). `factor_dtype="bfloat16"` multiplies
    inputs and gradients in half precision, and sums in single.

    Source: Martens and Grosse (2015), Optimizing neural networks with Kronecker-
    factored approximate curvature.
    """
    defaults = {
        "damping": 0.01,
        "adapt_every": 5,
        "factored": True,
        "refresh": 5,
    }
    measure = Measured(kind_of(kind), KroneckerStructure(sharing, factor_dtype))
    return made(apply, likelihood, measure, defaults, settings)


def ekfac(
    apply: Apply,
    likelihood: Any,
    *,
    kind: KindName = "sampled",
    sharing: Sharing = "expand",
    factor_dtype: str | None = None,
    **settings: Any,
) -> CurvatureOptimizer:
    """EK-FAC: K-FAC's eigenvectors, and second moments measured in them at every step.

    Source: George, Laurent, Bouthillier, Ballas and Vincent (2018), Fast approximate
    natural gradient descent in a Kronecker-factored eigenbasis.
    """
    defaults = {"damping": 0.01, "adapt_every": 5, "refresh": 20}
    measure = Rescaled(kind_of(kind), KroneckerStructure(sharing, factor_dtype))
    return made(apply, likelihood, measure, defaults, settings)


def gauss_newton(
    apply: Apply,
    likelihood: Any,
    *,
    structure: StructureName | Structure = "dense",
    **settings: Any,
) -> CurvatureOptimizer:
    """Levenberg and Marquardt's damped Gauss-Newton steps.

    Each has the curvature of its own batch, and is halved until the loss is lower.

    Source: Levenberg (1944); Marquardt (1963); Schraudolph (2002), Fast curvature
    matrix-vector products for second-order gradient descent.
    """
    measure = _measure(structure, "gauss-newton")
    return made(apply, likelihood, measure, _NEWTON, settings)


def hessian_free(
    apply: Apply,
    likelihood: Any,
    *,
    kind: KindName = "gauss-newton",
    **settings: Any,
) -> CurvatureOptimizer:
    """Hessian-free optimisation: conjugate gradients on products with the curvature.

    A solve starts where the last one ended, times `warm_start`, and ends by Martens'
    rule of `progress`; the step is halved until the loss is lower.

    Source: Martens (2010), Deep learning via Hessian-free optimization.
    """
    return made(apply, likelihood, Products(kind_of(kind)), _NEWTON, settings)


def diagonal_fisher(
    apply: Apply,
    likelihood: Any,
    learning_rate: Number,
    *,
    kind: KindName = "true",
    **settings: Any,
) -> CurvatureOptimizer:
    """The natural gradient by the exact diagonal of F.

    Adam and RMSProp take diag(ĝ²) for it, and its root: see `squared_gradient`.

    Source: Becker and LeCun (1989), Improving the convergence of back-propagation
    learning with second order methods.
    """
    defaults = {"learning_rate": learning_rate, "momentum": 0.0}
    measure = Measured(kind_of(kind), DiagonalStructure())
    return made(apply, likelihood, measure, defaults, settings)


def squared_gradient(
    apply: Apply, likelihood: Any, learning_rate: Number, **settings: Any
) -> CurvatureOptimizer:
    """Adam, seen as a diagonal curvature: s = diag(ĝ²), averaged, and its root.

    An empirical Fisher matrix of the batch as one example, and a step by its root. With
    `gradient_decay=0` it is RMSProp with its start corrected.

    Source: Kingma and Ba (2015), Adam: a method for stochastic optimization.
    """
    defaults = {
        "learning_rate": learning_rate,
        "momentum": 0.0,
        "root": True,
        "damping": 1e-8,
        "gradient_decay": 0.9,
        "curvature_decay": 0.999,
    }
    measure = SquaredGradient(EmpiricalFisher())
    return made(apply, likelihood, measure, defaults, settings)


def stochastic_natural_gradient(
    apply: Apply,
    likelihood: Any,
    learning_rate: Number,
    *,
    structure: StructureName | Structure = "kronecker",
    kind: KindName = "true",
    **settings: Any,
) -> CurvatureOptimizer:
    """Natural gradients of batches, with running averages of gradient and curvature.

    Of small cost: no quadratic model, and curvature measured on every tenth batch.
    With `CurvatureOptimizer.anchored` the gradients' noise is reduced.

    Source: Park, Amari and Fukumizu (2000), Adaptive natural gradient learning
    algorithms for various stochastic models.
    """
    defaults = {
        "learning_rate": learning_rate,
        "momentum": 0.0,
        "damping": 1e-3,
        "gradient_decay": 0.9,
        "measure_every": 10,
        "refresh": 10,
        "max_kl": 1e-2,
    }
    return made(apply, likelihood, _measure(structure, kind), defaults, settings)


_NEWTON: dict[str, Any] = {
    "learning_rate": 1.0,
    "momentum": 0.0,
    "damping": 1.0,
    "adapt_every": 1,
    "damping_factor": 2 / 3,
    "binding": 0.0,
    "curvature_decay": 0.0,
    "max_halvings": 10,
}


def _measure(structure: str | Structure, kind: str) -> Measure:
    if isinstance(structure, str):
        if structure not in STRUCTURES:
            raise ValueError(
                f"structure must be one of {', '.join(STRUCTURES)}, got {structure!r}"
            )
        structure = STRUCTURES[structure]()
    used = kind_of(kind)
    match structure:
        case MatrixFreeStructure():
            return Products(used)
        case LowRankStructure():
            return Leading(used, structure)
        case KroneckerEigenStructure():
            factors = KroneckerStructure(structure.sharing, structure.dtype)
            return Rescaled(used, factors)
        case Averaged():
            return Measured(used, structure)
    raise ValueError(f"no optimiser knows the structure {type(structure).__name__}")


def kind_of(name: str) -> Kind:
    known = [name for name in KINDS if name != "hessian"]
    if name not in known:
        raise ValueError(f"kind must be one of {', '.join(known)}, got {name!r}")
    return SampledFisher(1) if name == "sampled" else KINDS[name]()


def made(
    apply: Apply,
    likelihood: Any,
    measure: Measure,
    defaults: dict[str, Any],
    settings: dict[str, Any],
) -> CurvatureOptimizer:
    """The settings, over the row's defaults, to those they belong to."""
    chosen = defaults | settings
    own = {name: chosen.pop(name) for name in ("mask", "trainable") if name in chosen}
    return CurvatureOptimizer(apply, likelihood, Settings(measure, **chosen), **own)
