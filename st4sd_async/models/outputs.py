"""What an instance leaves behind: its key-outputs, and their contents."""

from __future__ import annotations

import io
import os
import re
import tempfile
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from .._render.displayable import Displayable
from .._util.field_docs import document_fields
from .._util.file_names import safe_name
from ._base import Reply

if TYPE_CHECKING:
    import pandas

    from .._render.cards import Card

_VERSION = re.compile(r"[0-9]{1,18}")


class KeyOutput(Displayable, Reply):
    """
    A file or folder that the experiment's developer flagged as being of special interest.

    Source: ``GET instances/{id}/outputs`` of the runtime service, where every value is text.
    """

    filename: str | None = None
    """Name of the file or folder."""
    filepath: str | None = None
    """Its path inside the instance's directory."""
    description: str | None = None
    """What the developer says it is."""
    type: str | None = None
    """Kind of file, as the developer words it; often empty."""
    version: int | None = None
    """How often it was produced, counted from 1."""
    created: datetime | None = Field(default=None, alias="creationtime")
    """When this version was made, in UTC."""
    final: bool | None = None
    """Whether no newer version will follow."""
    production: bool | None = None
    """Whether a production stage made it."""

    @field_validator("version", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, int | str) and _VERSION.fullmatch(str(value)) else None

    @field_validator("final", "production", mode="before")
    @classmethod
    def _flag(cls, value: Any) -> Any:
        return value.casefold() in ("yes", "true", "y") if isinstance(value, str) else value

    @field_validator("created", mode="before")
    @classmethod
    def _moment(cls, value: Any) -> Any:
        return _moment(str(value)) if isinstance(value, str | int | float) and value else None

    def _card(self) -> Card:
        from .._render.cards import Badge, Card, Tone, facts_of

        badge = None
        if self.final is not None:
            badge = Badge("final", Tone.GOOD) if self.final else Badge("may change", Tone.WAITING)
        facts = {
            "path": self.filepath,
            "description": self.description,
            "type": self.type,
            "version": self.version,
            "made": None if self.created is None else f"{self.created:%Y-%m-%d %H:%M:%S %Z}",
        }
        return Card(self.filename or "a file", kind="key-output", badge=badge, facts=facts_of(facts))


def _moment(text: str) -> datetime | None:
    """A time as the servers write it: seconds since 1970, or ``2026-11-22T100522.972908``; None if neither."""
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (OverflowError, OSError):  # a time that no calendar has
        return None
    except ValueError:
        pass
    for form in ("%Y-%m-%dT%H%M%S.%f", "%Y-%m-%d %H:%M:%S.%f"):
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


@document_fields
@dataclass(frozen=True)
class Output:
    """
    The contents of a key-output: a file as it is, a folder as a zip archive.

    Source: ``GET instances/{id}/outputs/{name}`` of the runtime service.
    """

    name: str
    """Name of the key-output."""
    filename: str
    """Name that the service gives the file; ``<folder>.zip`` for a folder. Not safe as a path: `save` makes it so."""
    content: bytes = field(repr=False)
    """The bytes."""
    media_type: str = "application/octet-stream"
    """``application/zip`` for a folder."""

    @property
    def is_folder(self) -> bool:
        """Whether the contents are a zip archive that the service made of a folder."""
        return self.media_type == "application/zip"

    def text(self, encoding: str = "utf-8") -> str:
        """
        The contents as text.

        Raises:
            ValueError: The key-output is a folder, or its contents are not in that encoding.
        """
        self._check_file()
        return self.content.decode(encoding)

    def dataframe(self) -> pandas.DataFrame:
        """
        The contents of a CSV file as a pandas DataFrame; commas, semicolons, tabs or blanks separate its cells.

        Raises:
            ImportError: pandas is not installed.
            ValueError: The key-output is a folder, or not a table.
        """
        from .._util.csv_reader import AS_TEXT, read_table

        self._check_file()
        try:
            return read_table(io.TextIOWrapper(io.BytesIO(self.content), **AS_TEXT))
        except ImportError:
            raise ImportError('Output.dataframe() needs pandas: pip install "st4sd_async[pandas]"') from None

    def _check_file(self) -> None:
        if self.is_folder:
            raise ValueError(f"key-output {self.name!r} is a folder: ask for a file inside it, output(run, name, path)")

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """
        Write the contents into a directory, which is made if it is missing, and return the file's path.

        The name is `filename` without anything that could lead elsewhere. A file of that name is
        replaced in one step: whoever reads it sees the old contents or the new ones.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / safe_name(self.filename, otherwise=self.name)
        part = folder / f".{uuid.uuid4().hex}.part"
        try:
            part.write_bytes(self.content)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def unpack(self, directory: str | os.PathLike[str]) -> list[Path]:
        """
        Unpack the archive of a folder key-output into a directory, and return the files' paths.

        Nothing is written outside of the directory, which is made if it is missing, and nothing at all unless the
        whole archive proves good; then files of the same names are replaced. A name that begins with ``.st4sd-``,
        which downloads use for files of their own, gets a ``_`` in front.

        Raises:
            UnsafeArchive: A name leads elsewhere, or the contents are not what the archive says of them.
            DownloadError: The archive is cut short or damaged, or something in the directory is in the way.
            ValueError: The key-output is a file: `save` it.
        """
        from .._results.target import extract  # not with the package: most programs unpack nothing

        if not self.is_folder:
            raise ValueError(f"key-output {self.name!r} is a file, not a folder: save() writes it")
        folder = Path(directory)
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch, "output.zip")
            archive.write_bytes(self.content)
            return [folder / member.path for member in extract(archive, folder)]
