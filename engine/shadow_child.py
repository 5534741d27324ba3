"""The process of a challenger: gets out of the champion's way before it does anything else."""

import os
import signal
import socket
import sys

NICE = 19


def main() -> None:
    """Works for whoever has the other end of the socket, whose descriptor is the argument."""
    os.nice(NICE)
    # The worker ends it, by closing the socket or by force.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What takes time to import is imported only now.
    from engine.shadow_loop import work
    from engine.shadow_wire import Channel

    work(Channel(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
