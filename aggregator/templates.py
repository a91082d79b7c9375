"""The skeletons of generations on disk: versions are a function of skeleton and vector, so both have to last."""

from __future__ import annotations

from pathlib import Path

from broker_bridge.durable import write_whole
from uns_topics.template import Template, TemplateError, read_template

TEMPLATES = "templates"
"""Their folder in an aggregator's data directory."""


class TemplateFiles:
    """`<folder>/<sha256>.onnx`. Files are small beside versions and few, one per generation; none is removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, template: Template) -> None:
        """Keep a skeleton durably."""
        target = self._path(template.sha256)
        if not target.exists():
            write_whole(target, template.skeleton)

    def read(self, sha256: str) -> Template:
        """A skeleton that was kept. Raises: TemplateError: missing, or not what its name says."""
        path = self._path(sha256)
        try:
            template = read_template(path.read_bytes())
        except OSError as error:
            raise TemplateError(f"{path}: {error.strerror}") from None
        except TemplateError as error:
            raise TemplateError(f"{path}: {error}") from None
        if template.sha256 != sha256:
            raise TemplateError(f"{path}: it was changed on disk")
        return template

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.onnx"
