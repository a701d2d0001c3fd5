"""The picture of a calibration: histograms of ranks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binom

from ngvi.extras import extra

if TYPE_CHECKING:
    from ngvi.bayes.calibration import Calibration

_MOST = 12
_COLUMNS = 4


def plot(calibration: Calibration, names: tuple[str, ...] | None, bins: int) -> Any:
    """See `ngvi.bayes.calibration.Calibration.plot`.

    Raises:
        ValueError: there is no quantity of a name.
    """
    with extra("plots", "calibration.plot()"):
        import matplotlib.pyplot as plt

    from ngvi.bayes.calibration import DRAWS

    if names is None:
        worst = np.argsort(calibration.p_values, kind="stable")[:_MOST]
        names = tuple(calibration.names[i] for i in worst)
    for name in names:
        if name not in calibration.names:
            raise ValueError(f"There is no quantity '{name}' to plot.")
    count = len(calibration.ranks)
    low, high = binom.ppf([0.005, 0.995], count, 1 / bins)
    across = min(_COLUMNS, len(names))
    down = math.ceil(len(names) / across)
    figure, axes = plt.subplots(
        down, across, figsize=(2.2 * across, 1.7 * down), squeeze=False, sharex=True
    )
    for ax, name in zip(axes.flat, names, strict=False):
        ranks = calibration.ranks[:, calibration.names.index(name)]
        ax.axhspan(low, high, color="0.9")
        ax.axhline(count / bins, color="0.6", linewidth=0.8)
        ax.hist(ranks, bins=np.linspace(0, DRAWS + 1, bins + 1), color="#3b6ea5")
        ax.set_title(name, fontsize=8)
        ax.set_yticks([])
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    figure.supxlabel("rank of the true value among draws from q", fontsize=8)
    figure.tight_layout()
    return figure
