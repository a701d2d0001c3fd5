"""Compiled programs on the disk: where, and that nothing else is changed."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ngvi.cli import jax_options


def test_programs_are_kept_and_all_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jax_options, "_JAX", (0, 12))
    before = jax.config.jax_compilation_cache_dir
    with jax_options.kept_programs():
        assert Path(jax.config.jax_compilation_cache_dir) == jax_options.folder()
        assert jax_options.folder().is_relative_to(tmp_path / "ngvi")
        jax.jit(lambda x: jnp.sin(x) + 17)(jnp.ones(3))
    assert jax.config.jax_compilation_cache_dir == before
    assert list(jax_options.folder().iterdir())


@pytest.mark.parametrize("version", [(0, 10), (0, 12)])
def test_the_users_own_folder_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int]
) -> None:
    monkeypatch.setattr(jax_options, "_JAX", version)
    before = jax.config.jax_compilation_cache_dir
    own = str(tmp_path) if version == (0, 12) else None
    jax.config.update("jax_compilation_cache_dir", own)
    try:
        with jax_options.kept_programs():
            assert jax.config.jax_compilation_cache_dir == own
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
