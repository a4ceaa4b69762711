"""The client of the socket case: sends its lines as fast as it can to each port it is told.

A process of its own, so that it shares no interpreter with what is measured. Prints one line when
its lines are made; then reads ports from its standard input, one round per port.
"""

from __future__ import annotations

import socket
import sys
from threading import Thread

from data import make_lines

CONNECTIONS = 4


def blast(port: int, loads: list[bytes]) -> None:
    """Open one connection per load, all of them before the first byte, and send."""
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in loads]
    senders = [
        Thread(target=connection.sendall, args=(load,))
        for connection, load in zip(connections, loads, strict=True)
    ]
    for sender in senders:
        sender.start()
    for sender, connection in zip(senders, connections, strict=True):
        sender.join()
        connection.close()


def main() -> None:
    """Make the lines, then serve rounds until the input ends."""
    lines = make_lines(int(sys.argv[1]))
    loads = [b"".join(lines[first::CONNECTIONS]) for first in range(CONNECTIONS)]
    print("ready", flush=True)
    for port in sys.stdin:
        blast(int(port), loads)


if __name__ == "__main__":
    main()
