"""Reads the configuration file: YAML with environment variables, and errors that name the line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from app.settings.model import Configuration

PACKAGED = Path(__file__).with_name("headgate.yaml")
FILE_BYTES_MAX = 1 << 20
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")

SECRET_KEYS = frozenset({"client_secret", "api_key", "api_keys", "secret", "secrets", "password"})
"""What may stand in a file of its own: ``file:/run/secrets/…``."""

Place = tuple[str | int, ...]


class ConfigurationError(Exception):
    """The file cannot be used; the text says where and what was expected."""


def load_configuration(path: Path, environ: Mapping[str, str] | None = None) -> Configuration:
    """The checked configuration in ``path``.

    ``${NAME}`` and ``${NAME:-default}`` stand for environment variables; a value ``file:/path`` of
    what is secret (``SECRET_KEYS``) stands for that file's content. Raises ConfigurationError.
    """
    return parse_configuration(read_configuration(path), path, environ)


def read_configuration(path: Path) -> bytes:
    """The file as it is. Raises ConfigurationError."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{path}: larger than {FILE_BYTES_MAX} bytes")
    return raw


def parse_configuration(raw: bytes, path: Path, environ: Mapping[str, str] | None = None) -> Configuration:
    """The checked configuration in ``raw``, which was read from ``path``. Raises ConfigurationError."""
    reader = _Reader(path, os.environ if environ is None else environ)
    try:
        values = reader.read(raw)
    except RecursionError:
        # An alias within its own anchor has no end.
        raise ConfigurationError(f"{path}: nested too deeply, or an alias stands within its own anchor") from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}:1: expected sections with names: upstreams, models, …")
    try:
        configuration = Configuration.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(reader.explain(error)) from error
    if faults := [reader.say(place, text) for place, text in configuration.faults()]:
        raise ConfigurationError("\n".join(faults))
    return configuration


class _Reader:
    """Turns YAML nodes into values and remembers the line of each."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ
        self._lines: dict[Place, int] = {}
        self._scalars = yaml.SafeLoader("")

    def read(self, raw: bytes) -> Any:
        try:
            node = yaml.compose(raw.decode("utf-8"), Loader=yaml.SafeLoader)
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{self._path}: not UTF-8") from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigurationError(f"{self._path}:{line}: {error.problem}") from error
        except yaml.YAMLError as error:
            raise ConfigurationError(f"{self._path}: not YAML") from error
        if node is None:
            # A file that is being written is empty for a moment, and nobody means nothing by it.
            raise ConfigurationError(f"{self._path}: the file is empty")
        return self._value(node, ())

    def _value(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        self._lines[place] = line
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                if key in result:
                    raise ConfigurationError(f"{self._path}:{key_node.start_mark.line + 1}: {key} stands twice")
                result[key] = self._value(value_node, (*place, key))
                self._lines[(*place, key)] = key_node.start_mark.line + 1
            return result
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*place, index)) for index, item in enumerate(node.value)]
        if node.tag == "tag:yaml.org,2002:str":
            return self._text(str(node.value), place, line)
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigurationError(f"{self._path}:{line}: {_dotted(place)}: not a plain value") from error

    def _text(self, text: str, place: Place, line: int) -> str:
        def substitute(found: re.Match[str]) -> str:
            name, default = found.group(1), found.group(2)
            value = self._environ.get(name, "")
            if value or default is not None:
                return value or default
            raise ConfigurationError(
                f"{self._path}:{line}: {_dotted(place)}: the environment has no {name} "
                f"(write ${{{name}:-}} if it may be absent)"
            )

        text = VARIABLE.sub(substitute, text)
        if not SECRET_KEYS.isdisjoint(place) and text.startswith("file:"):
            try:
                return Path(text.removeprefix("file:")).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"{self._path}:{line}: {_dotted(place)}: the file cannot be read") from error
        return text

    def explain(self, error: ValidationError) -> str:
        """One line a fault: place, key, what was expected. Never the value, which may be a secret."""
        faults = []
        for fault in error.errors(include_input=False, include_url=False):
            text = "there is no such key" if fault["type"] == "extra_forbidden" else fault["msg"]
            faults.append(self.say(tuple(fault["loc"]), text.removeprefix("Value error, ")))
        return "\n".join(faults)

    def say(self, place: Place, text: str) -> str:
        """A fault, with the line of the innermost part of its place that stands in the file."""
        line = next((self._lines[place[:size]] for size in range(len(place), -1, -1) if place[:size] in self._lines), 1)
        return f"{self._path}:{line}: {_dotted(place)}: {text}" if place else f"{self._path}:{line}: {text}"


def _dotted(place: Place) -> str:
    return ".".join(str(part) for part in place)
