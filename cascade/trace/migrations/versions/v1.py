"""Version 1, the first: runs, steps and calls; the first grade made the table of grades."""

revision = "1"
down_revision = None


def upgrade() -> None:
    """Do nothing: there is no version before this one."""
