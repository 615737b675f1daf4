"""How often what happened: counted in memory, written in the background, shown to people."""


def flush() -> None:
    """
    Write now what this process has counted.

    Call it where a process ends without Python's exit functions, as some task workers do.

    Raises: Django's `DatabaseError` if that fails; what was counted is then kept.
    """
    from .flushing import flushing

    flushing.flush()
