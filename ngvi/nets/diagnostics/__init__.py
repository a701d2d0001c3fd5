"""What is said about a posterior of weights."""

from ngvi.nets.diagnostics.export import to_arviz
from ngvi.nets.diagnostics.nuts import Comparison, compare_with_nuts, nuts
from ngvi.nets.diagnostics.pruning import Pruned, prune, signal_to_noise
from ngvi.nets.diagnostics.shares import shares

__all__ = [
    "Comparison",
    "Pruned",
    "compare_with_nuts",
    "nuts",
    "prune",
    "shares",
    "signal_to_noise",
    "to_arviz",
]
