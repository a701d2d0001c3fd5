"""One checkpoint as a file: named arrays and a header, whole or not there at all.

It is an npz file. The header, as JSON, has the format's version, what is computed, what
else there is to know, and a SHA-256 of all that.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

import ngvi

VERSION = 1
"""Of the files' format."""
DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
"""What reading a file that is damaged or no checkpoint raises."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: damaged, of another version or computation, or
    in use."""


def write(
    path: Path, kind: str, arrays: Mapping[str, np.ndarray], facts: dict[str, Any]
) -> None:
    """Write a checkpoint of a kind of computation."""
    header = {
        "version": VERSION,
        "kind": kind,
        "ngvi": ngvi.__version__,
        "facts": facts,
        "sha256": checksum(arrays, facts),
    }
    with _replacing(path) as file:
        text = np.asarray(json.dumps(header))
        np.savez(file, allow_pickle=False, header=text, **arrays)


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a whole file; one of `DAMAGE` is raised else."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(str(arrays.pop("header")))
    # Another format may have another checksum: it is told from a damaged file.
    whole = header["version"] != VERSION or (
        header["sha256"] == checksum(arrays, header["facts"])
    )
    if not whole:
        raise ValueError("its checksum does not fit")
    return header, arrays


def checksum(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> str:
    """A SHA-256 of arrays, with their names, shapes and types, and of facts."""
    total = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {array.dtype.str} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its place when it is whole and on the disk, or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix="part-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink(missing_ok=True)
        raise
