"""How mkdocstrings is to read this package, where griffe would take it differently."""

import re
from typing import Any

import griffe


class HouseStyle(griffe.Extension):
    """One example a docstring; functions that are called like their module."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """`Example:`, in the singular, is the section `Examples:`."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", text)

    def on_package(
        self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any
    ) -> None:
        """What a package exports is the function, not the module of that name."""
        loader.resolve_aliases(implicit=True, external=False)
        packages = [pkg]
        for package in packages:
            packages += [m for m in package.modules.values() if not m.is_alias]
        known = loader.modules_collection
        for package in reversed(packages):
            named = package.imports.keys() & set(package.exports or ())
            for name in named & package.modules.keys():
                found = known[package.imports[name]]
                package.members[name] = found.final_target if found.is_alias else found
