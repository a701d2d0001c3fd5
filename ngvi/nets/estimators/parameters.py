"""The parameters that the estimators share."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator


class Parameters(BaseEstimator):
    """Of a multi-layer perceptron and its training; stored as they are.

    Args:
        hidden: widths of the hidden layers.
        activation: "tanh", "relu", "silu", "gelu", "logistic", or a function of JAX.
        algorithm: a row of `ngvi.nets.rows` by name, such as "noisy_kfac" or "vogn";
            "linearized" for `ngvi.nets.linearized`, which has no steps and none of the
            parameters of such; "auto" for that in a regression where the net has up to
            1,000 weights and the rows times the outputs are up to 5,000, and else for
            "noisy_kfac".
        members: nets that start from different weights, their posteriors being a
            mixture; None for 5 of "linearized" and 1 of the others.
        prior_precision: δ of the weights, for standardised data: "fan_in" for the
            number of inputs of each layer; "learned" for a δ of each that starts there;
            "relevance" for one of each input's weights as well, learned; a number, or
            numbers in a pytree like the parameters. "auto" is "relevance" for
            "linearized" and else "fan_in".
        kl_weight: κ; below 1 the posterior is cold.
        max_epochs: at most; "linearized" takes no more than 200.
        warm_up: the share of max_epochs in which the weight of the KL divergence grows
            to κ: the mean finds a fit before the posterior widens.
        batch_size: examples a step.
        learning_rate: α; None for that of `defaults.SETTINGS`. Lower it where a fit
            diverges.
        samples: draws of the weights a step; in pairs, m ± Aε, where they are even.
        settings: others of `ngvi.nets.update.Rule` and of the row, by name.
        early_stopping: "elbo" ends the fit when the evidence lower bound of the
            training data stays; "validation" when the log predictive density of rows
            held out does; None never. The state of the best look is kept.
        validation_fraction: of the rows, held out.
        n_iter_no_change: looks, of ten epochs each, without an improvement.
        tol: what counts as one, in nats an example.
        draws: of the weights of each member, for predictions.
        random_state: of the weights' start, the order of the rows and all draws.
        verbose: show a line of progress.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (50,),
        *,
        activation: Any = "tanh",
        algorithm: str = "auto",
        members: int | None = None,
        prior_precision: Any = "auto",
        kl_weight: float = 1.0,
        max_epochs: int = 500,
        warm_up: float = 0.2,
        batch_size: int = 32,
        learning_rate: Any = None,
        samples: int = 4,
        settings: dict[str, Any] | None = None,
        early_stopping: str | None = "elbo",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        tol: float = 1e-3,
        draws: int = 64,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.algorithm = algorithm
        self.members = members
        self.prior_precision = prior_precision
        self.kl_weight = kl_weight
        self.max_epochs = max_epochs
        self.warm_up = warm_up
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.samples = samples
        self.settings = settings
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.draws = draws
        self.random_state = random_state
        self.verbose = verbose
