"""Optional packages: where one is missing, the error names the extra that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """For imports of packages that not every installation has.

    Args:
        name: of the extra of ngvi that brings them.
        what: needs them.

    Raises:
        ModuleNotFoundError: one is missing; it says how to get it.

    Example:
        >>> with extra("nets", "This net"):
        ...     import a_package_that_nobody_has
        Traceback (most recent call last):
            ...
        ModuleNotFoundError: This net needs a_package_that_nobody_has: pip install \
'ngvi[nets]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "ngvi").partition(".")[0]
        if package == "ngvi":
            raise
        raise ModuleNotFoundError(
            f"{what} needs {package}: pip install 'ngvi[{name}]'", name=error.name
        ) from error
