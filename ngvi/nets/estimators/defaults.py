"""What the estimators do when they are not told: all of it is here.

The data are standardised, so that one set of numbers serves many of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ngvi.nets import rows
from ngvi.nets.algorithm import Algorithm
from ngvi.nets.prior import GammaPrior

ROWS: dict[str, Callable[..., Algorithm]] = {
    row.__name__: row
    for row in (
        rows.vogn,
        rows.noisy_adam,
        rows.vadam,
        rows.ivon,
        rows.noisy_kfac,
        rows.noisy_ekfac,
        rows.slang,
        rows.full,
        rows.blocks,
    )
}

# A step of the mean no longer than a tenth of q's own width: the first steps, where the
# curvature is that of few batches, would be.
TRUST = 0.1

SETTINGS: dict[str, dict[str, Any]] = {
    "vogn": {"learning_rate": 0.05, "precision_rate": 0.02, "trust": TRUST},
    "noisy_adam": {"learning_rate": 1e-3, "precision_rate": 0.01, "trust": TRUST},
    "vadam": {"learning_rate": 1e-2, "precision_rate": 0.01},
    "ivon": {"learning_rate": 0.05, "precision_rate": 1e-3, "trust": TRUST},
    "noisy_kfac": {"learning_rate": 0.05, "precision_rate": 0.02, "trust": TRUST},
    "noisy_ekfac": {"learning_rate": 0.05, "precision_rate": 0.02, "trust": TRUST},
    "slang": {"learning_rate": 0.05, "precision_rate": 0.02, "trust": TRUST},
    "full": {"learning_rate": 0.05, "precision_rate": 0.02, "trust": TRUST},
    "blocks": {"learning_rate": 0.05, "precision_rate": 0.02, "trust": TRUST},
}
"""Of each row: what `settings` and `learning_rate` of an estimator replace."""

LOGIT_VARIANCE = 10.0
"""In the prior of classes: logits of one or less could not be sure of any."""

HYPERPRIOR = GammaPrior(1.0, 1.0)
"""Of a precision that is learned, one for a layer."""

RELEVANCE = GammaPrior(0.5, 0.05)
"""And of one for each input."""

NOISE = (1.0, 0.1)
"""Gamma prior of the precision of the noise, for targets of variance one."""

LINEARIZED = "linearized"
"""The algorithm that is no row."""

MOST_WEIGHTS, MOST_OUTPUTS = 1000, 5000
"""Of a net, and of all rows, for which it is the default."""

LITTLE_NOISE = (1.0, 1e-4)
"""Gamma prior of the noise there: it may fall to a hundredth of the targets' sd."""

MEMBERS = 5
"""Nets of it."""

ITERATIONS = 200
"""Of each, at most."""

SMALL = 0.1
"""Its nets begin with weights a tenth as large as is usual: nearly linear."""

EPOCHS_PER_LOOK = 10
"""Epochs between two looks at the objective: one compiled program."""

FIRST_KL_WEIGHT = 0.1
"""Of κ, at the beginning of the warm-up."""

ELBO_DRAWS = 16
"""Of the weights, the same ones at every look."""
