"""Checkpoints: a folder from which a computation goes on after a crash.

A checkpoint is one file of arrays, written beside the others and given its name when it
is whole, so that a kill at any moment leaves those before. It has a SHA-256 of all
that is in it, and says which computation it is of. The last two are kept: a damaged
file is refused and the one before it used. A lock that dies with its process keeps
others out of the folder. Of several processes of one `jax.distributed` run only the
first writes; all read, from a folder that they share.
"""

from ngvi.checkpoints.files import CheckpointError
from ngvi.checkpoints.folder import Checkpoint, Checkpoints, repeat
from ngvi.checkpoints.trees import digest, from_arrays, to_arrays

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Checkpoints",
    "digest",
    "from_arrays",
    "repeat",
    "to_arrays",
]
