"""From the parameters of an estimator to an algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np

from ngvi.fisher.mlp import MLP
from ngvi.nets.algorithm import Algorithm
from ngvi.nets.estimators import defaults

EARLY_STOPPING = ("elbo", "validation", None)
PRIORS = ("auto", "fan_in", "learned", "relevance")


def check(estimator: Any) -> None:
    """Hold the parameters that no other part checks to their ranges.

    Raises:
        ValueError: one is out of it.
    """
    others = ("auto", defaults.LINEARIZED)
    if estimator.algorithm not in (*others, *defaults.ROWS):
        known = ", ".join((*others, *sorted(defaults.ROWS)))
        raise ValueError(
            f"algorithm must be one of {known}, got {estimator.algorithm!r}"
        )
    if estimator.early_stopping not in EARLY_STOPPING:
        raise ValueError(
            "early_stopping must be 'elbo', 'validation' or None, got "
            f"{estimator.early_stopping!r}"
        )
    by_rows = estimator.algorithm != defaults.LINEARIZED
    if not by_rows and estimator.early_stopping == "validation":
        raise ValueError(
            "algorithm='linearized' holds out no rows: take early_stopping='elbo', or "
            "a row such as algorithm='noisy_kfac'"
        )
    prior = estimator.prior_precision
    if isinstance(prior, str) and prior not in PRIORS:
        raise ValueError(
            "prior_precision must be positive numbers, 'auto', 'fan_in', 'learned' or "
            f"'relevance', got {prior!r}"
        )
    counts = ("max_epochs", "batch_size", "draws", "n_iter_no_change", "members")
    for name in counts:
        if getattr(estimator, name) is not None and getattr(estimator, name) < 1:
            raise ValueError(f"{name} must be positive, got {getattr(estimator, name)}")
    fraction, warm_up = estimator.validation_fraction, estimator.warm_up
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must be between 0 and 1, got {fraction}")
    if not 0 <= warm_up <= 1:
        raise ValueError(f"warm_up must be from 0 to 1, got {warm_up}")


def choose_algorithm(
    estimator: Any, default: str, net: MLP, rows: int, online: bool
) -> str:
    """What "auto" means for a net and its data.

    Args:
        estimator: with its parameters.
        default: for small nets.
        net: its layers.
        rows: of the data.
        online: whether more will come.
    """
    if estimator.algorithm != "auto":
        return estimator.algorithm
    sizes = zip(net.sizes, net.sizes[1:], strict=False)
    weights = sum((inputs + 1) * outputs for inputs, outputs in sizes)
    small = weights <= defaults.MOST_WEIGHTS
    small &= rows * net.sizes[-1] <= defaults.MOST_OUTPUTS
    # It takes all rows at once and holds out none.
    small &= not online and estimator.early_stopping != "validation"
    return default if small else "noisy_kfac"


def prior_of(
    estimator: Any, algorithm: str, net: MLP, output_variance: float
) -> dict[str, Any]:
    """Precisions, and how they are learned, as the algorithms take them."""
    chosen = estimator.prior_precision
    if not isinstance(chosen, str):
        return {"prior_precision": chosen}
    if chosen == "auto":
        chosen = "relevance" if algorithm == defaults.LINEARIZED else "fan_in"
    prior: dict[str, Any] = {"prior_precision": by_fan_in(net, output_variance)}
    if chosen == "learned":
        prior["hyperprior"] = defaults.HYPERPRIOR
    if chosen == "relevance":
        # Biases place the bends of the first layer among the inputs, of variance one.
        start = [layer | {"b": 1.0} for layer in prior["prior_precision"]]
        prior = {
            "prior_precision": start,
            "hyperprior": defaults.RELEVANCE,
            "groups": by_input(net),
        }
    return prior


def algorithm_of(
    estimator: Any,
    algorithm: str,
    net: MLP,
    likelihood: Any,
    data_size: int,
    output_variance: float,
) -> Algorithm:
    """The row, with the defaults that the parameters do not replace.

    Args:
        estimator: with its parameters.
        algorithm: the row's name.
        net: its layers.
        likelihood: of the outputs.
        data_size: N.
        output_variance: of the outputs in the prior, where the weights' is by fan-in.
    """
    chosen = defaults.SETTINGS[algorithm] | {
        "samples": estimator.samples,
        "antithetic": estimator.samples % 2 == 0,
        "kl_weight": estimator.kl_weight,
    }
    if estimator.learning_rate is not None:
        chosen["learning_rate"] = estimator.learning_rate
    prior = prior_of(estimator, algorithm, net, output_variance)
    if "hyperprior" in prior and algorithm in ("noisy_kfac", "noisy_ekfac"):
        # The Fisher matrix of sure but wrong classes vanishes, and a prior that is
        # learned would widen with q, and q with it.
        chosen["kind"] = "empirical"
    return defaults.ROWS[algorithm](
        net, likelihood, data_size, **(chosen | prior | (estimator.settings or {}))
    )


def by_fan_in(net: MLP, output_variance: float) -> list[dict[str, float]]:
    """δ of every layer, the number of its inputs: outputs of any width then have a
    variance of about this, for standardised inputs."""
    precisions = [float(inputs) for inputs in net.sizes[:-1]]
    precisions[-1] /= output_variance
    return [{"w": one, "b": one} for one in precisions]


def by_input(net: MLP) -> list[dict[str, Any]]:
    """Groups of weights: those of each input of the net, and each layer's kernel and
    bias."""
    inputs, outputs = net.sizes[:2]
    each = np.broadcast_to(np.arange(inputs)[:, None], (inputs, outputs))
    first = {"w": each, "b": inputs}
    return [first] + [{"w": 0, "b": 1} for _ in net.sizes[2:]]
