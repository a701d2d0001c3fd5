"""Posterior predictive checks: do data that the fitted model makes look like the data?

For a statistic T of the observations, p = P(T(y_rep) ≥ T(y)) + ½ P(T(y_rep) = T(y))
with y_rep from the posterior predictive distribution. Near 0 or 1 the model does not
make data like these in this respect. Not uniform if the model is true: the data have
been used twice, which draws p towards ½.

Source: Gelman, Meng and Stern (1996), Posterior predictive assessment of model fitness
via realized discrepancies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ngvi.bayes.model_trace import observed_sites

if TYPE_CHECKING:
    import pandas as pd

    from ngvi.bayes.posterior import Posterior

Statistic = Callable[[np.ndarray], float]

STATISTICS: dict[str, Statistic] = {
    "mean": lambda y: float(y.mean()),
    "sd": lambda y: float(y.std()),
    "smallest": lambda y: float(y.min()),
    "largest": lambda y: float(y.max()),
}


def check(
    posterior: Posterior, statistics: Mapping[str, Statistic] | None, seed: int
) -> pd.DataFrame:
    """See `ngvi.Posterior.check`."""
    import pandas as pd

    posterior._model()
    trace = posterior.trace or {}
    sites = observed_sites(trace)
    if not sites:
        raise TypeError("The model observes nothing: there are no data to compare.")
    replicated = posterior.predictive(seed=seed)
    rows = {}
    for site in sites:
        observed = np.asarray(trace[site]["value"])
        draws = np.asarray(replicated[site])
        for name, statistic in (statistics or STATISTICS).items():
            actual = statistic(observed)
            values = np.array([statistic(draw) for draw in draws])
            p = (values > actual).mean() + (values == actual).mean() / 2
            rows[f"{site}: {name}"] = {
                "observed": actual,
                "replicated": values.mean(),
                "sd": values.std(),
                "p": p,
            }
    return pd.DataFrame.from_dict(rows, orient="index")
