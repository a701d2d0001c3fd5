"""The model a command is about: from the zoo, or a function in a file."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import ngvi
from ngvi import zoo
from ngvi.cli.errors import InputError, in_words, place_in, raised_in


@dataclass(frozen=True)
class Chosen:
    """A model and where it came from."""

    name: str
    model: Callable[..., Any]
    data: Callable[[], dict[str, Any]] | None
    """The model's own data, if it has any."""
    file: Path
    """Absolute: tracebacks are searched for it."""
    shown: str
    """The file as messages call it."""

    def explain(self, error: Exception, data: str = "") -> InputError:
        """An exception that the model's file raised, or the fit of its model, in words.

        Args:
            error: caught around anything that runs lines of the file.
            data: what the model was given, in words.
        """
        if line := place_in(error, self.file):
            return _error(f"{in_words(error)} (in {self.shown}, {line}).", data)
        if isinstance(error, ValueError | TypeError | ImportError | OSError):
            # ngvi's own messages say it all; other libraries do not know what for.
            own = raised_in(error, Path(ngvi.__file__).parent)
            return _error(" ".join(str(error).split()), "" if own else data)
        return _error(f"{in_words(error)} (--debug shows where).", data)


def _error(text: str, data: str) -> InputError:
    if data:
        text = f"{text.rstrip('.')}. {data}"
    return InputError(text)


def choose(text: str) -> Chosen:
    """What MODEL on the command line means.

    Args:
        text: a name of the zoo, file.py:function, or file.py for its function `model`.

    Raises:
        InputError: there is no such model, file or function, or the file cannot be run.
    """
    path, _, function = text.rpartition(":")
    if text.endswith(".py"):
        return _from_file(Path(text), "")
    if path.endswith(".py"):
        return _from_file(Path(path), function)
    if ":" in text or Path(text).parent != Path():
        raise InputError(
            f"MODEL {text!r} is neither a name of the zoo nor path/to/file.py:function."
        )
    return _from_zoo(text)


def _from_zoo(name: str) -> Chosen:
    try:
        found = zoo.load(name)
    except zoo.UnknownModel as error:
        if Path(f"{name}.py").is_file():
            raise InputError(
                f"There is no model {name!r} in the zoo. To fit the one in {name}.py: "
                f"ngvi fit {name}.py:model"
            ) from error
        raise InputError(f"{error} (`ngvi models` lists all.)") from error
    except (ImportError, FileNotFoundError) as error:
        raise InputError(str(error)) from error
    file = zoo.path(name)
    return Chosen(name, found.model, found.data, file, file.name)


def _from_file(path: Path, function: str) -> Chosen:
    if not path.is_file():
        raise InputError(f"MODEL {path}: there is no such file.")
    module = _run(path)
    functions = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, FunctionType)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }
    wanted = function or "model"
    model = vars(module).get(wanted)
    if not callable(model):
        problem = f"{path} has no function {wanted!r}."
        if model is not None:
            problem = f"{wanted!r} in {path} is not a function."
        raise InputError(f"{problem} {_listed(functions, wanted)}")
    name = path.stem if wanted == "model" else wanted
    if isinstance(model, FunctionType):
        # What the progress line, the table and the report call the model.
        model.__name__ = name
    data = functions.get("data")
    # Only where it can be meant: a model that takes data, a function that needs none.
    if data is not None and (data is model or _takes(data) or not _takes(model)):
        data = None
    return Chosen(name, model, data, path.resolve(), str(path))


def _takes(function: Callable[..., Any]) -> bool:
    """Whether a function has parameters."""
    return bool(inspect.signature(function).parameters)


def _run(path: Path) -> ModuleType:
    """Run a file as a module, with its folder importable as for `python file.py`."""
    file = path.resolve()
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    name = f"_ngvi_model_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None  # a .py file has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        line = place_in(error, file) or "which could not be run"
        raise InputError(f"{in_words(error)} (in {path}, {line}).") from error
    return module


def _listed(functions: Iterable[str], wanted: str) -> str:
    names = list(functions)
    if not names:
        return "No function is defined there."
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.6)
    guess = f"Did you mean {near[0]}? " if near else ""
    return f"{guess}The functions there: {', '.join(names)}."


def arrange(
    model: Callable[..., Any], data: dict[str, Any], source: str | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Data by name as the (args, kwargs) that `ngvi.fit(model, *args, **kwargs)` takes.

    Args:
        model: its parameters say what is expected.
        data: by name.
        source: where the data come from, for messages; None where there are none.

    Raises:
        InputError: the data lack an argument of the model, or hold one it does not
            take.
    """
    parameters = inspect.signature(model).parameters
    positional, keyword, open_ended = [], [], False
    for parameter in parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind is parameter.KEYWORD_ONLY:
            keyword.append(parameter)
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            positional.append(parameter)
    expected = [p.name for p in positional + keyword]
    required = [p.name for p in positional + keyword if p.default is p.empty]
    _check_names(data, expected, required, open_ended, source)

    fixed = {p.name for p in positional if p.kind is p.POSITIONAL_ONLY}
    # A model's argument may share its name with an option of fit, such as seed: by
    # position it goes to the model.
    reserved = {
        p.name
        for p in inspect.signature(ngvi.fit).parameters.values()
        if p.kind is p.KEYWORD_ONLY or p.name == "model"
    }
    if not fixed and not reserved & data.keys():
        return (), data
    args = tuple(data.get(p.name, p.default) for p in positional)
    kwargs = {k: v for k, v in data.items() if k not in {p.name for p in positional}}
    if clash := sorted(reserved & kwargs.keys()):
        raise InputError(
            f"The model's argument {clash[0]!r} has the name of an option of ngvi.fit: "
            "rename it, or make it an argument by position."
        )
    return args, kwargs


def left_out(model: Callable[..., Any], data: dict[str, Any]) -> list[str]:
    """Arguments that are None because the data do not hold them."""
    parameters = inspect.signature(model).parameters.values()
    return [p.name for p in parameters if p.default is None and p.name not in data]


def _check_names(
    data: dict[str, Any],
    expected: list[str],
    required: list[str],
    open_ended: bool,
    source: str | None,
) -> None:
    missing = [name for name in required if name not in data]
    unexpected = [name for name in data if name not in expected]
    if open_ended:
        unexpected = []
    if not missing and not unexpected:
        return
    if source is None:
        raise InputError(
            f"The model needs {quoted(missing)}: give --data FILE, or write a "
            "function data() beside the model that returns a dict."
        )
    problems = []
    if missing:
        problems.append(f"lacks {quoted(missing)}, which the model needs")
    if unexpected:
        problems.append(f"holds {quoted(unexpected)}, which the model does not take")
    takes = f"It takes {', '.join(expected)}." if expected else "It takes no argument."
    raise InputError(f"{source} {', and '.join(problems)}. {takes}")


def quoted(names: list[str]) -> str:
    quoted = [repr(name) for name in names]
    *others, last = quoted
    return f"{', '.join(others)} and {last}" if others else last
