"""Errors that a user can fix."""


class UserError(ValueError):
    """An error that the user can fix. Scripts print one line and exit with exit_status."""

    exit_status = 2


class DamagedModelError(UserError):
    """The model computes values that are not numbers."""

    exit_status = 1


class ClusterError(UserError):
    """A worker or a cluster failed; the flags are right."""

    exit_status = 1


def require(name: str, value: object, holds: bool, legal: str) -> None:
    """Raise UserError with the setting's name, its legal values and the value, unless it holds."""
    if not holds:
        raise UserError(f"{name} must be {legal}, got {value}")
