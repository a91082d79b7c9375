"""Configuration files: YAML read into a declared model, with overrides from the environment.

An override names the path to a value: `HEADGATE_BROKER__URL=mqtt://host` sets `broker.url`. Relative paths in a file
count from the file's own folder, so that a configuration folder can be moved as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ValidationError, ValidationInfo

ENVIRONMENT_PREFIX = "HEADGATE_"

Config = TypeVar("Config", bound=BaseModel)


class ConfigError(Exception):
    """A configuration that can't be used; the text has one line per problem, each with file and path."""


def _from_folder(path: Path, info: ValidationInfo) -> Path:
    folder = info.context.get("folder") if isinstance(info.context, dict) else None
    return Path(folder) / path.expanduser() if folder is not None else path.expanduser()


FilePath = Annotated[Path, AfterValidator(_from_folder)]
"""A path in a configuration file, relative to that file's folder."""


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises: ConfigError: missing, unreadable or no YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def validate(model: type[Config], content: Any, source: str, folder: Path | None = None) -> Config:
    """Content as a declared model. Raises: ConfigError: one line `source: path: problem` for each problem."""
    try:
        return model.model_validate(content, context={"folder": folder})
    except ValidationError as error:
        lines = [f"{source}: {_place(e['loc'])}: {_message(e)}" for e in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines)) from None


def load(model: type[Config], path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read a configuration file, overridden from the environment. Raises: ConfigError."""
    content = read_yaml(path)
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a mapping of keys was expected, not {type(content).__name__}")
    override(content, os.environ if environ is None else environ, frozenset(model.model_fields))
    return validate(model, content, str(path), path.resolve().parent)


def override(content: dict[str, Any], environ: Mapping[str, str], fields: frozenset[str]) -> None:
    """Set what the environment names (`HEADGATE_A__B` is `a.b`) in place.

    Values are read as YAML scalars; what is no YAML is text.
    Variables whose first part is no field of the model belong to something else and are left alone.
    """
    for name, text in sorted(environ.items()):
        path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if not name.startswith(ENVIRONMENT_PREFIX) or path[0] not in fields:
            continue
        place = content
        for part in path[:-1]:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{name}: {part} is not a group of settings")
            place = inner
        try:
            place[path[-1]] = yaml.safe_load(text)
        except yaml.YAMLError:  # such as [::1]:9464
            place[path[-1]] = text


def _place(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "file"


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    text = str(error["msg"]).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
