"""Code in another process, with simulated devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run_python(code: str, *arguments: Any, **variables: str) -> subprocess.Popen[str]:
    """Another process, which can import `tests`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | variables
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


def on_devices(code: str, count: int) -> str:
    """The last line that code prints where there are so many devices."""
    flags = f"--xla_force_host_platform_device_count={count}"
    flags += " --xla_backend_optimization_level=0"
    with run_python(code, XLA_FLAGS=flags, JAX_PLATFORMS="cpu") as process:
        output = process.communicate(timeout=300)[0]
    assert process.returncode == 0
    return output.splitlines()[-1]
