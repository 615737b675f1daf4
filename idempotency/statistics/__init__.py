"""How often what happened: counted in memory, written in the background, shown to people."""


def flush() -> None:
    """
    Write now what this process has counted.

    Call it where a process ends without Python's exit functions, as some task workers do.

    Raises: `RuntimeError` in an open transaction, with which the counts could be lost; Django's
    `DatabaseError` if it fails. What was counted is then kept, unless it is a `DataError`.
    """
    from .flushing import flushing

    flushing.flush()
