"""What a batch raises about its journal, and what the journal does not keep; the tree is in `_errors`."""

from __future__ import annotations

from ._errors import LONGEST_MESSAGE, St4sdError, shorten


class JournalError(St4sdError):
    """The journal of a batch cannot be used, or contradicts what it is given; nothing was sent on account of it."""

    advice = ""

    def __init__(self, problem: str, advice: str = "") -> None:
        if advice:
            self.advice = advice  # never cut, as a command to type may not be
        super().__init__("; ".join(part for part in (shorten(problem, LONGEST_MESSAGE - 150), self.advice) if part))


class JournalLocked(JournalError):
    """Another batch has the journal open, in this process or another, or somebody reads it."""

    advice = "leave the other batch, or close the tool that reads it; a process that died holds no lock"


class JournalCorrupt(JournalError):
    """The journal is damaged."""

    advice = "restore a copy; with a new journal, first look for the runs of this one in client.instances.list()"


class LaunchConflict(JournalError):
    """A key is in the journal with another experiment or payload; that launch is left as it is."""

    advice = "use another key, or have that one corrected, if it failed or was not sent: retry_failed(corrected=...)"


class NoCredentials(St4sdError):
    """A launch of a batch lacks its credentials, which a journal does not keep; it was not sent and stays planned."""

    def __init__(self, key: str) -> None:
        self.key = key
        """Key of the launch."""
        told = "a journal keeps no credentials and no environmentVariables: add the launch again, then run()"
        super().__init__(f"{key!r} was not sent: {told}")
