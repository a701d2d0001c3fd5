"""JAX's options while the command runs: precision, and a cache of compiled programs on
the disk, so that those of one run serve the next."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import jax

_JAX = tuple(int(part) for part in jax.__version__.split(".")[:2])
_FOLDER = "jax_compilation_cache_dir"
_OPTIONS = {
    # Of a fit's many programs most take less than JAX's least time for keeping one.
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def folder() -> Path:
    """Where programs for this machine's processor are kept: $XDG_CACHE_HOME/ngvi, by
    default ~/.cache/ngvi."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # A home may be shared by machines that do not run each other's programs.
    processor = platform.machine() + platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor += next((line for line in lines if line.startswith("flags")), "")
    name = hashlib.sha256(processor.encode()).hexdigest()[:16]
    return home / "ngvi" / "programs" / name


@contextmanager
def configured(options: dict[str, Any]) -> Iterator[None]:
    """With these options of JAX, and as before afterwards."""
    before = {name: getattr(jax.config, name) for name in options}
    _set(options)
    try:
        yield
    finally:
        _set(before)


def _set(options: dict[str, Any]) -> None:
    for name, value in options.items():
        jax.config.update(name, value)


def kept_programs() -> AbstractContextManager[None]:
    """Keep compiled programs, unless the user has told JAX where, or not to."""
    # Earlier versions find fault with every program that they read back, on stderr,
    # and use it all the same: github.com/openxla/xla/issues/44565.
    if getattr(jax.config, _FOLDER) is not None or _JAX < (0, 12):
        return nullcontext()
    return configured(_OPTIONS | {_FOLDER: str(folder())})
