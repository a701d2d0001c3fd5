"""From the parameters of an estimator to an algorithm."""

from __future__ import annotations

from typing import Any

from ngvi.fisher.mlp import MLP
from ngvi.nets.algorithm import Algorithm
from ngvi.nets.estimators import defaults

EARLY_STOPPING = ("elbo", "validation", None)
PRIORS = ("fan_in", "learned")


def check(estimator: Any) -> None:
    """Hold the parameters that no other part checks to their ranges.

    Raises:
        ValueError: one is out of it.
    """
    if estimator.algorithm not in defaults.ROWS:
        known = ", ".join(sorted(defaults.ROWS))
        raise ValueError(
            f"algorithm must be one of {known}, got {estimator.algorithm!r}"
        )
    if estimator.early_stopping not in EARLY_STOPPING:
        raise ValueError(
            "early_stopping must be 'elbo', 'validation' or None, got "
            f"{estimator.early_stopping!r}"
        )
    prior = estimator.prior_precision
    if isinstance(prior, str) and prior not in PRIORS:
        raise ValueError(
            f"prior_precision must be positive numbers, 'fan_in' or 'learned', got "
            f"{prior!r}"
        )
    for name in ("max_epochs", "batch_size", "draws", "n_iter_no_change"):
        if getattr(estimator, name) < 1:
            raise ValueError(f"{name} must be positive, got {getattr(estimator, name)}")
    fraction, warm_up = estimator.validation_fraction, estimator.warm_up
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must be between 0 and 1, got {fraction}")
    if not 0 <= warm_up <= 1:
        raise ValueError(f"warm_up must be from 0 to 1, got {warm_up}")


def algorithm_of(
    estimator: Any, net: MLP, likelihood: Any, data_size: int, output_variance: float
) -> Algorithm:
    """The row, with the defaults that the parameters do not replace.

    Args:
        estimator: with its parameters.
        net: its layers.
        likelihood: of the outputs.
        data_size: N.
        output_variance: of the outputs in the prior, where the weights' is by fan-in.
    """
    chosen = defaults.SETTINGS[estimator.algorithm] | {
        "samples": estimator.samples,
        "antithetic": estimator.samples % 2 == 0,
        "kl_weight": estimator.kl_weight,
    }
    if estimator.learning_rate is not None:
        chosen["learning_rate"] = estimator.learning_rate
    chosen["prior_precision"] = estimator.prior_precision
    if isinstance(estimator.prior_precision, str):
        chosen["prior_precision"] = by_fan_in(net, output_variance)
    if estimator.prior_precision == "learned":
        chosen["hyperprior"] = defaults.HYPERPRIOR
    return defaults.ROWS[estimator.algorithm](
        net, likelihood, data_size, **(chosen | (estimator.settings or {}))
    )


def by_fan_in(net: MLP, output_variance: float) -> list[dict[str, float]]:
    """δ of every layer, the number of its inputs: outputs of any width then have a
    variance of about this, for standardised inputs."""
    precisions = [float(inputs) for inputs in net.sizes[:-1]]
    precisions[-1] /= output_variance
    return [{"w": one, "b": one} for one in precisions]
