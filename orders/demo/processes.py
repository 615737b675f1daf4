"""Processes that the demo starts, watches and ends: its own children, never others."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

PR_SET_PDEATHSIG = 1


def start(
    command: Sequence[str], *, output: IO[bytes] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start *command* in a process group of its own, so that Ctrl-C reaches it through us only."""
    return subprocess.Popen(  # noqa: S603 - The command is ours.
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output and subprocess.STDOUT,
        process_group=0,
        preexec_fn=_end_with_parent,
        **options,
    )


def stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """Ask *process* to end; after *patience* seconds end it and what is left of its group."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def children_of(pid: int) -> list[int]:
    """Give the processes whose parent is *pid*."""
    parents = _parents_by_proc() if Path("/proc/self/stat").exists() else _parents_by_ps()
    return [child for child, parent in parents if parent == pid]


def end_on_signals() -> None:
    """End on SIGTERM and on a closed terminal in the same tidy way as on Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's “&” has it ignored.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # As nohup has it.
            # Not KeyboardInterrupt at once: asyncio knows how to end on SIGINT.
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))


def _end_with_parent() -> None:
    # Linux only: nobody is left behind, even if we are killed with -9.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _parents_by_proc() -> Iterator[tuple[int, int]]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # It has ended in between.
            # The name comes second, in parentheses, and may hold anything.
            after_name = status.read_text(errors="replace").rpartition(")")[2].split()
            yield int(status.parent.name), int(after_name[1])


def _parents_by_ps() -> Iterator[tuple[int, int]]:
    command = ["ps", "-A", "-o", "pid=,ppid="]
    listing = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603
    for line in listing.stdout.splitlines():
        pid, parent = line.split()
        yield int(pid), int(parent)
