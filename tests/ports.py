"""Ports of the loopback that tests listen at.

They lie below the range from which the kernel gives ports to outgoing connections, so that no client that happens to
run beside a test can take one between the look and the use; tests that run side by side look in ranges of their own.
"""

import contextlib
import os
import socket

FIRST, SHARE = 18000, 1000  # ports; Linux gives outgoing connections 32768 and above


def free_ports(count: int) -> int:
    """Return the first of so many neighbouring ports that nobody listens at now; OSError when there are none."""
    start = FIRST + SHARE * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for first in range(start, start + SHARE - count, count):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise OSError(f"no {count} free ports between {start} and {start + SHARE}")
