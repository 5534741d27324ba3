"""Stands between a client and a real broker, and can break the connection over which an EndTxn goes.

Addresses in the broker's answers are replaced by its own, so that the client never finds the way around it.
"""

import contextlib
import socket
import struct
import threading

END_TXN = 26
CONNECT_TIMEOUT_S = 10.0


class Proxy:
    """Passes frames on. After `hold_next_end`, the next EndTxn is kept, and its connection closed."""

    def __init__(self, broker: tuple[str, int]) -> None:
        self._broker = broker
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = [self._listener]
        self._hold = False
        self.held: bytes | None = None
        self.ends = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_next_end(self) -> None:
        self._hold, self.ends = True, 0

    def release(self) -> None:
        """The EndTxn that was kept arrives now; returns once the broker has answered."""
        assert self.held is not None, "no EndTxn was kept"
        with socket.create_connection(self._broker, CONNECT_TIMEOUT_S) as connection:
            connection.sendall(self.held)
            assert _frame(connection) is not None

    def close(self) -> None:
        for each in self._sockets:
            _close(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                broker = socket.create_connection(self._broker, CONNECT_TIMEOUT_S)
                broker.settimeout(None)
                self._sockets += [client, broker]
                for target in (self._requests, self._answers):
                    threading.Thread(target=target, args=(client, broker), daemon=True).start()

    def _requests(self, client: socket.socket, broker: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the other side has closed
            while (frame := _frame(client)) is not None:
                if struct.unpack_from(">h", frame, 4)[0] == END_TXN:
                    self.ends += 1
                    if self._hold:
                        self._hold, self.held = False, frame
                        break
                broker.sendall(frame)
        _close(client)
        _close(broker)

    def _answers(self, client: socket.socket, broker: socket.socket) -> None:
        theirs, ours = (b"127.0.0.1" + struct.pack(">i", port) for port in (self._broker[1], self.port))
        with contextlib.suppress(OSError):  # the other side has closed
            while (frame := _frame(broker)) is not None:
                client.sendall(frame.replace(theirs, ours))
        _close(client)
        _close(broker)


def _frame(connection: socket.socket) -> bytes | None:
    """One request or answer with its length before it; None at the end."""
    head = _read(connection, 4)
    body = None if head is None else _read(connection, struct.unpack(">i", head)[0])
    return None if head is None or body is None else head + body


def _read(connection: socket.socket, size: int) -> bytes | None:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            return None
        found += part
    return found


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # not connected any more
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
