"""A Ray of one's own is for this machine alone: nothing of it listens to another."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Iterator
from pathlib import Path

from integration_base import Start, processes_of

LISTENING = "0A"  # as /proc/net/tcp calls the state
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def listens(pids: list[int]) -> Iterator[Address]:
    """Yield the addresses on which processes listen."""
    sockets = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                sockets.add(os.readlink(entry))
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENING and f"socket:[{inode}]" in sockets:
                yield address(local.partition(":")[0])


def address(words: str) -> Address:
    """Return an address that the kernel writes as words of 32 bits, each in the machine's order."""
    data = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    found = ipaddress.ip_address(data)
    return getattr(found, "ipv4_mapped", None) or found


def test_a_ray_of_ones_own_listens_on_the_loopback_alone(start: Start, sweep: Path, store: Path) -> None:
    driver = start("run", sweep, "--store", store)
    driver.until(lambda: driver.workers("ray::IDLE"))
    found = list(listens([pid for pid, _ in processes_of(driver.process.pid)]))
    assert len(found) >= 4  # the driver, a worker, the raylet and the control store, at least
    assert all(one.is_loopback for one in found), found
