"""A folder of checkpoints, and loops that go on from the last one in it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import jax
import numpy as np

from ngvi.checkpoints import files
from ngvi.checkpoints.files import CheckpointError
from ngvi.checkpoints.trees import from_arrays, to_arrays, under

try:
    import fcntl
except ImportError:  # pragma: no cover: no such locks on this system
    fcntl = None  # type: ignore[assignment]

_KEPT = 2
_IDENTITY, _CONTENT = "identity/", "content/"


class Checkpoint(NamedTuple):
    """What a computation has come to."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]
    """What else, as JSON takes it."""


class Checkpoints:
    """The checkpoints of one computation, in a folder of their own.

    A context manager: inside, the folder is locked.

    Args:
        folder: made if it is not there.
        kind: what is computed, such as "fit".
        identity: arrays, numbers and strings that make the computation what it is;
            checkpoints of another one are refused, with the names of what differs.

    Raises:
        CheckpointError: the path is a file.

    Example:
        >>> import tempfile, numpy as np
        >>> from ngvi.checkpoints import Checkpoints
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Checkpoints(folder, "count", {"step": 2}) as kept:
        ...         written = kept.save({"total": np.array(6)}, {"calls": 3})
        ...     with Checkpoints(folder, "count", {"step": 2}) as kept:
        ...         found = kept.latest()
        >>> found.arrays["total"].item(), found.facts
        (6, {'calls': 3})
    """

    def __init__(
        self, folder: str | os.PathLike[str], kind: str, identity: Mapping[str, Any]
    ) -> None:
        self.folder = Path(folder)
        self.kind = kind
        self.identity = {name: np.asarray(value) for name, value in identity.items()}
        self._lock: IO[bytes] | None = None
        self._written = False
        if self.folder.exists() and not self.folder.is_dir():
            raise CheckpointError(
                f"{self.folder} is a file: checkpoints need a folder of their own."
            )

    def __enter__(self) -> Self:
        """Lock the folder.

        Raises:
            CheckpointError: another process, or another computation of this one, has
                it.
            OSError: it cannot be made.
        """
        if not _writes():
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        if fcntl is None:
            return self
        lock = (self.folder / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise CheckpointError(
                f"{self.folder} is in use by another run. Give each its own folder."
            ) from None
        self._lock = lock
        for part in self.folder.glob("part-*"):  # a kill left it
            part.unlink(missing_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Unlock it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def latest(self) -> Checkpoint | None:
        """The last whole checkpoint, None if there is none yet.

        Damaged ones are warned of and passed over.

        Raises:
            CheckpointError: all are damaged, or the last is of another format or
                another computation.
        """
        damaged = ""
        for path in reversed(self._paths()):
            try:
                header, arrays = files.read(path)
            except files.DAMAGE as error:
                damaged = f"{path} is damaged or no checkpoint: {error}."
                warnings.warn(
                    f"{damaged} The checkpoint before it is used.", stacklevel=2
                )
                continue
            self._check(path, header, arrays)
            return Checkpoint(under(arrays, _CONTENT), header["facts"])
        if damaged:
            raise CheckpointError(
                f"{damaged} Delete the folder or give another one: there is no whole "
                "checkpoint in it."
            )
        return None

    def save(
        self, arrays: Mapping[str, Any], facts: Mapping[str, Any] | None = None
    ) -> bool:
        """Write a checkpoint.

        Args:
            arrays: what JAX or NumPy has computed.
            facts: what else, as JSON takes it.

        Returns:
            Whether it was written: a disk that is full later on is warned of, and the
            checkpoints before stay.

        Raises:
            OSError: the first of a run cannot be written.
        """
        if not _writes():
            return False
        content = {name: np.asarray(value) for name, value in arrays.items()}
        try:
            self._write(content, dict(facts or {}))
        except OSError as error:
            if not self._written:
                raise
            warnings.warn(
                f"A checkpoint could not be written to {self.folder}: {error}. The "
                "run goes on; the checkpoint before stays.",
                stacklevel=2,
            )
            return False
        self._written = True
        for path in self._paths()[:-_KEPT]:
            path.unlink(missing_ok=True)
        return True

    def _paths(self) -> list[Path]:
        """Of the checkpoints, in order."""
        found = self.folder.glob("checkpoint-*.npz")
        return sorted(path for path in found if _number(path) is not None)

    def _write(self, content: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        arrays = {_IDENTITY + name: value for name, value in self.identity.items()}
        arrays |= {_CONTENT + name: value for name, value in content.items()}
        paths = self._paths()
        number = (_number(paths[-1]) or 0) + 1 if paths else 1
        path = self.folder / f"checkpoint-{number:08d}.npz"
        files.write(path, self.kind, arrays, facts)

    def _check(
        self, path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> None:
        if header["version"] != files.VERSION:
            raise CheckpointError(
                f"{path} has format {header['version']}, written by ngvi "
                f"{header.get('ngvi')}; this version reads format {files.VERSION}. "
                "Delete the folder or give another one."
            )
        if header["kind"] != self.kind:
            raise CheckpointError(
                f"{path} is the checkpoint of a {header['kind']}, not of a {self.kind}."
            )
        stored = under(arrays, _IDENTITY)
        differ = [
            name
            for name, value in self.identity.items()
            if name not in stored or not _equal(stored[name], value)
        ]
        if differ:
            raise CheckpointError(
                f"{path} is the checkpoint of a {self.kind} with another "
                f"{', '.join(differ)}. Delete the folder or give another one."
            )


def repeat(
    step: Callable[[Any, int], Any],
    state: Any,
    count: int,
    folder: str | os.PathLike[str],
    *,
    every: int = 1,
    identity: Mapping[str, Any] | None = None,
) -> Any:
    """step(state, i) for i = 0, 1, … count − 1, going on from a folder's checkpoint.

    What is random should be drawn from `i`, as `jax.random.fold_in(key, i)`: then a
    loop that was killed comes to the same state as one that was not.

    Args:
        step: (state, i) ↦ state, such as an epoch.
        state: before all, a pytree of arrays.
        count: of steps; with a larger one a loop that has ended goes on.
        folder: see `Checkpoints`.
        every: steps between two checkpoints; there is one at the end.
        identity: see `Checkpoints`.

    Returns:
        The state after all.

    Raises:
        ValueError: `every` is less than 1.
        CheckpointError: see `Checkpoints`; also a state of another structure.

    Example:
        >>> import tempfile, jax.numpy as jnp
        >>> from ngvi import checkpoints
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     total = checkpoints.repeat(
        ...         lambda x, i: x + i, jnp.zeros(()), 5, folder
        ...     )
        >>> float(total)
        10.0
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, not {every}.")
    with Checkpoints(folder, "loop", identity or {}) as kept:
        found, done = kept.latest(), 0
        if found is not None:
            state, done = from_arrays(found.arrays, state), found.facts["done"]
        for i in range(done, count):
            state = step(state, i)
            if (i + 1) % every == 0 or i + 1 == count:
                kept.save(to_arrays(state), {"done": i + 1})
    return state


def _writes() -> bool:
    """Whether this process is the one of its run that writes files."""
    return jax.process_index() == 0


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(np.all(a == b))


def _number(path: Path) -> int | None:
    """Which checkpoint a file is; None if it is none."""
    digits = path.stem.removeprefix("checkpoint-")
    return int(digits) if digits.isdecimal() else None
