"""Errors that a user can fix."""


class UserError(ValueError):
    """An error that the user can fix. Scripts print it in one line and exit with this status."""

    exit_status = 2


class DamagedModelError(UserError):
    """The weights compute something that is not a number."""

    exit_status = 1


class ClusterError(UserError):
    """A Ray cluster failed; the flags are right."""

    exit_status = 1


def require(name: str, value: object, holds: bool, legal: str) -> None:
    """Raise UserError, naming the setting, what is legal and the value, unless it holds."""
    if not holds:
        raise UserError(f"{name} must be {legal}, got {value}")
