"""What became of files that were to be fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .._render.displayable import Displayable
from .._util.field_docs import document_fields

if TYPE_CHECKING:
    from .._errors import St4sdError
    from .._render.cards import Card


@document_fields
@dataclass(frozen=True)
class Download(Displayable):
    """A file that is whole and on disk."""

    path: Path
    """Where it is."""
    size: int
    """Bytes."""
    sha256: str
    """Of its content, in hexadecimal."""
    source: str
    """Where it came from: ``file://<id of a gateway>/<path>``, ``<rest-uid>/outputs/<key-output>``, ``s3://bucket/key``."""

    def _card(self) -> Card:
        from .._render.cards import Badge, Card, Tone, facts_of, format_size

        facts = facts_of({"size": format_size(self.size), "source": self.source, "sha256": self.sha256})
        return Card(str(self.path), kind="download", badge=Badge("whole", Tone.GOOD), facts=facts)


@document_fields
@dataclass(frozen=True)
class DownloadFailed(Displayable):
    """A file, or all files of a folder, that could not be had; nothing half of it is under the name."""

    path: Path
    """Where it should be."""
    source: str
    """Where it should come from, as in `Download`."""
    error: St4sdError
    """Why it did not."""

    def _card(self) -> Card:
        from .._render.cards import Badge, Card, Tone, facts_of, with_error

        facts = facts_of({"source": self.source})
        card = Card(str(self.path), kind="download", badge=Badge("failed", Tone.BAD), facts=facts)
        return with_error(card, self.error)
