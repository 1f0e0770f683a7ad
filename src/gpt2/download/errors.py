"""What ends a download, in one line that is safe to show."""

from gpt2.terminal import escaped


class DownloadError(Exception):
    """Says where, what happened, and what to try."""

    def __init__(self, where: object, what: str, advice: str):
        self.where, self.what, self.advice = shown(where), shown(what), advice
        super().__init__(f"{self.summary()}; {advice}")

    def summary(self) -> str:
        """Where it happened, and what."""
        return f"{self.where}: {self.what}"


class Interrupted(DownloadError):
    """A failure that another try may not meet."""

    def __init__(self, where: object, what: str, advice: str, after: float = 0):
        super().__init__(where, what, advice)
        self.after = after  # seconds that the server asks to wait


class Missing(DownloadError):
    """The server has no such file, or does not show it."""

    def __init__(self, where: object, what: str, advice: str, status: int):
        super().__init__(where, what, advice)
        self.status = status


def shown(text: object, most: int = 300) -> str:
    """A text from outside as part of one line; what a terminal would not print is escaped."""
    line = escaped(" ".join(str(text).split()))
    return line if len(line) <= most else line[:most] + "..."
