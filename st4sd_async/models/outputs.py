"""Results of an instance: key-outputs, their contents, and downloaded files."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from .._render.displayable import Displayable
from .._util.durable import write_whole
from .._util.field_docs import document_fields
from .._util.file_names import safe_name
from ._base import Reply

if TYPE_CHECKING:
    import pandas

    from .._errors import St4sdError
    from .._render.cards import Card

MAX_CARD_ROWS, MAX_CARD_LINES, MAX_CARD_BYTES = 20, 10, 4000
"""Key-outputs, and lines and bytes of a text, in a notebook."""

_VERSION = re.compile(r"[0-9]{1,18}")


class KeyOutput(Displayable, Reply):
    """
    A file or folder that the developer of the experiment marked as a result.

    Source: ``GET instances/{id}/outputs`` of the runtime service, where every value is text.
    """

    filename: str | None = None
    """Name of the file or folder."""
    filepath: str | None = None
    """Path in the instance's directory."""
    description: str | None = None
    """Description by the developer."""
    type: str | None = None
    """Kind of file, in the developer's words; often empty."""
    version: int | None = None
    """Version: 1 for the first, and 1 more each time it is produced again."""
    created: datetime | None = Field(default=None, alias="creationtime")
    """When this version was produced, in UTC."""
    final: bool | None = None
    """Whether this is the last version."""
    production: bool | None = None
    """Whether a production stage produced it."""

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
        return _moment(str(value)) if isinstance(value, str | int | float | datetime) and value else None

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
    """Return a time that is given as seconds since 1970 or as ``2026-11-22T100522.972908``; None if it is neither."""
    try:
        return datetime.fromtimestamp(float(text), UTC)
    except (OverflowError, OSError):  # out of range
        return None
    except ValueError:
        pass
    for form in ("%Y-%m-%dT%H%M%S.%f", "%Y-%m-%d %H:%M:%S.%f"):
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    try:
        moment = datetime.fromisoformat(text)  # as in the JSON of our own models
    except ValueError:
        return None
    return moment if moment.tzinfo else None


class KeyOutputs(dict[str, KeyOutput], Displayable):
    """The key-outputs of a run, by name. A notebook shows them as a table."""

    def _card(self) -> Card:
        from .._render.cards import Badge, Card, CardTable, Tone, counted, omitted

        badges: dict[bool | None, Badge | str] = {
            True: Badge("final", Tone.GOOD),
            False: Badge("may change", Tone.WAITING),
            None: "",
        }
        rows = tuple(
            (name, badges[one.final], one.filename or "", str(one.version or ""), one.description or "")
            for name, one in list(self.items())[:MAX_CARD_ROWS]
        )
        if not rows:
            return Card("no key-outputs", notes=("none yet, or the experiment declares none",))
        more = omitted(len(self) - len(rows), "key-output")
        table = CardTable(("name", "state", "file", "version", "description"), rows, more)
        return Card(counted(len(self), "key-output"), table=table)


@document_fields
@dataclass(frozen=True)
class Output(Displayable):
    """
    The content of a key-output: that of a file, or a zip archive of a folder.

    Source: ``GET instances/{id}/outputs/{name}`` of the runtime service.
    """

    name: str
    """Name of the key-output."""
    filename: str
    """File name from the service, ``<folder>.zip`` for a folder. Not safe as a path; `save` makes a safe name of it."""
    content: bytes = field(repr=False)
    """Content of the file or archive."""
    media_type: str = "application/octet-stream"
    """Media type; ``application/zip`` for a folder."""

    @property
    def is_folder(self) -> bool:
        """Whether the content is a zip archive of a folder."""
        return self.media_type == "application/zip"

    def text(self, encoding: str = "utf-8") -> str:
        """
        Return the content as text.

        Raises:
            ValueError: The key-output is a folder, or its content is not in that encoding.
        """
        self._check_file()
        return self.content.decode(encoding)

    def dataframe(self) -> pandas.DataFrame:
        """
        Return the content of a CSV file as a pandas DataFrame. The separator may be a comma, semicolon, tab or blank.

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

    def _card(self) -> Card:
        from .._render.cards import Card, facts_of, format_size

        facts = {"file": self.filename, "size": format_size(len(self.content)), "type": self.media_type}
        beginning = self._beginning()
        logs = (("beginning of the content", beginning),) if beginning else ()
        note = "unpack() extracts the folder" if self.is_folder else ""
        return Card(self.name, kind="output", facts=facts_of(facts), logs=logs, notes=(note,) if note else ())

    def _beginning(self) -> str:
        """Return the first lines if the content is text, otherwise ""."""
        if self.is_folder or b"\0" in self.content[:MAX_CARD_BYTES]:
            return ""
        text = self.content[:MAX_CARD_BYTES].decode("utf-8", "replace")
        return "\n".join(text.splitlines()[:MAX_CARD_LINES])

    def _check_file(self) -> None:
        if self.is_folder:
            raise ValueError(
                f"key-output {self.name!r} is a folder: request a file inside it with output(run, name, path)"
            )

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """
        Write the content to a file in a directory, which is created if missing, and return the path of the file.

        The file name is `filename` without any part that leads out of the directory. An existing file is replaced in
        one step, so that readers see the old content or the new one.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / safe_name(self.filename, otherwise=self.name)
        write_whole(target, self.content)
        return target

    def unpack(self, directory: str | os.PathLike[str]) -> list[Path]:
        """
        Unpack the archive of a folder key-output into a directory, and return the paths of the files.

        The directory is created if missing. Nothing is written outside of it, and nothing at all unless the whole
        archive is valid; then existing files are replaced. Names that begin with ``.st4sd-``, which downloads use
        for their own files, get the prefix ``_``.

        Raises:
            UnsafeArchive: A name leads out of the directory, or the content differs from what the archive declares.
            DownloadError: The archive is incomplete or damaged, or an entry of the directory cannot be replaced.
            ValueError: The key-output is a file; use `save`.
        """
        import tempfile

        from .._results.target import extract  # not imported with the package: most programs unpack nothing

        if not self.is_folder:
            raise ValueError(f"key-output {self.name!r} is a file, not a folder: save() writes it")
        folder = Path(directory)
        with tempfile.TemporaryDirectory() as scratch:
            archive = Path(scratch, "output.zip")
            archive.write_bytes(self.content)
            return [folder / member.path for member in extract(archive, folder)]


@document_fields
@dataclass(frozen=True)
class Download(Displayable):
    """A downloaded file; it is complete."""

    path: Path
    """Path of the file."""
    size: int
    """Size in bytes."""
    sha256: str
    """SHA-256 of the content, in hexadecimal."""
    source: str
    """Origin: ``file://<id of a gateway>/<path>``, ``<rest-uid>/outputs/<key-output>`` or ``s3://bucket/key``."""

    def _card(self) -> Card:
        from .._render.cards import Badge, Card, Tone, facts_of, format_size

        facts = facts_of({"size": format_size(self.size), "source": self.source, "sha256": self.sha256})
        return Card(str(self.path), kind="download", badge=Badge("whole", Tone.GOOD), facts=facts)


@document_fields
@dataclass(frozen=True)
class DownloadFailed(Displayable):
    """A file or the files of a folder that could not be downloaded; nothing incomplete is left under its name."""

    path: Path
    """Path that it should have."""
    source: str
    """Origin, as in `Download`."""
    error: St4sdError
    """Why it could not be downloaded."""

    def _card(self) -> Card:
        from .._render.cards import Badge, Card, Tone, facts_of, with_error

        facts = facts_of({"source": self.source})
        card = Card(str(self.path), kind="download", badge=Badge("failed", Tone.BAD), facts=facts)
        return with_error(card, self.error)
