"""Python functions evaluated side by side, on executors that exist."""

from ngvi.executors.dispatch import Dispatcher, ExecutorError, Tally
from ngvi.executors.workers import Executor, PoolExecutor, Workers, make_workers

__all__ = [
    "Dispatcher",
    "Executor",
    "ExecutorError",
    "PoolExecutor",
    "Tally",
    "Workers",
    "make_workers",
]
