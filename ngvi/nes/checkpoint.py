"""Checkpoints of a search: arrays in one file that is whole at any moment.

A file is written beside the old one and takes its place in one step, so that a kill
leaves either. It says which search it is of; another one refuses it.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 3
_IDENTITY = "identity/"
_CONTENT = "content/"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or is of another search."""


def save(
    path: Path,
    identity: Mapping[str, Any],
    content: Mapping[str, np.ndarray],
    facts: Mapping[str, Any],
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: of the file.
        identity: arrays, numbers and strings that make the search what it is.
        content: arrays it has come to.
        facts: what else it has come to, as JSON takes it.
    """
    arrays: dict[str, Any] = {}
    arrays |= {_IDENTITY + name: np.asarray(value) for name, value in identity.items()}
    arrays |= {_CONTENT + name: value for name, value in content.items()}
    header = np.asarray(json.dumps({"version": VERSION, "facts": dict(facts)}))
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=path.name, suffix=".part"
    )
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, header=header, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(
    path: Path, identity: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the checkpoint of this very search: its content and its facts.

    Raises:
        CheckpointError: no checkpoint, one of another version, or of a search with
            other settings; the message names them.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is no checkpoint of a search, or it is damaged: {error}. "
            "Delete it or give another path."
        ) from error
    if header["version"] != VERSION:
        raise CheckpointError(
            f"{path} has format {header['version']}; this version reads {VERSION}. "
            "Delete it or give another path."
        )
    stored = under(arrays, _IDENTITY)
    differ = [
        name
        for name, value in identity.items()
        if name not in stored or not _equal(stored[name], np.asarray(value))
    ]
    if differ:
        raise CheckpointError(
            f"{path} is the checkpoint of a search with another {', '.join(differ)}. "
            "Delete it or give another path."
        )
    return under(arrays, _CONTENT), header["facts"]


def under(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin so, by the rest of their names."""
    return {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and bool(np.all(a == b))
