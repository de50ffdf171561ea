"""Processor time and memory of processes, from Linux's /proc."""

from __future__ import annotations

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return text.rpartition(")")[2].split()


def processor_s(pid: int) -> float:
    """Return the processor time of a process and its children, living and gone, s."""
    total = 0
    try:
        fields = _stat(pid)
    except OSError:
        return 0.0
    total += sum(int(fields[n]) for n in (11, 12, 13, 14))
    own = total / TICKS
    return own + sum(processor_s(child) for child in children(pid))


def children(pid: int) -> list[int]:
    """Return the living children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int(_stat(int(entry.name))[1]) == pid:
                    found.append(int(entry.name))
            except (OSError, IndexError):
                continue
    return found


def peak_memory_mb(pid: int) -> float:
    """Return the largest resident size that a process has had, MB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def listener(port: int) -> int | None:
    """Return the process that listens on a local port; None when it can't be seen."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        path = Path(table)
        if not path.exists():
            continue
        for line in path.read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    holders = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            links = {str(file.readlink()) for file in (entry / "fd").iterdir()}
        except OSError:
            continue
        if links & inodes:
            holders.append(int(entry.name))
    # A server's children share its socket: the parent is the one that started first.
    return min(holders, key=lambda pid: int(_stat(pid)[19]), default=None)
