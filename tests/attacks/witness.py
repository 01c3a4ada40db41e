"""Well-behaved clients beside an attack, in a process of their own: how long do their echoes take?

    python witness.py PORT CLIENTS MESSAGES_A_SECOND

Each line on standard input is answered with a line of JSON about the time since the last one: the messages,
percentiles of their round trips in milliseconds, and how many clients were cut or not served.
"""

from __future__ import annotations

import json
import random
import sys
import time

import gevent
import gevent.fileobject
import gevent.socket
from wire import frame, request

_SECONDS = 30.0


class Crowd:
    """The clients."""

    def __init__(self, port: int, count: int, rate: float) -> None:
        self.times: list[float] = []
        self.failures: list[str] = []
        self._port = port
        self._pause = count / rate
        self._clients = [gevent.spawn(self._live) for _ in range(count)]

    def _live(self) -> None:
        while True:
            try:
                self._talk()
            except (OSError, EOFError) as error:
                self.failures.append(repr(error))
                gevent.sleep(0.5)

    def _talk(self) -> None:
        sock = gevent.socket.create_connection(("127.0.0.1", self._port), timeout=_SECONDS)
        try:
            sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
            sock.sendall(request())
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                data = data + (sock.recv(4096) or _end(data))
            message = random.randbytes(15).hex().encode()
            sent, awaited = frame(0x81, message), bytes((0x81, len(message))) + message
            due = time.perf_counter() + random.random() * self._pause
            data = b""
            while True:
                gevent.sleep(max(0, due - time.perf_counter()))
                start = time.perf_counter()
                sock.sendall(sent)
                echo = b""
                while not echo:
                    data += sock.recv(4096) or _end(data)
                    echo, pings, data = take_frames(data)
                    for payload in pings:
                        sock.sendall(frame(0x8A, payload))
                if echo != awaited:
                    raise OSError(f"not an echo: {echo!r}")
                self.times.append(time.perf_counter() - start)
                due = max(due + self._pause, time.perf_counter())
        finally:
            sock.close()

    def report(self) -> dict[str, object]:
        """What was seen since the last time."""
        times, failures = sorted(self.times), self.failures
        self.times, self.failures = [], []
        at = lambda share: round(times[int(share * (len(times) - 1))] * 1000, 3) if times else 0.0  # noqa: E731
        return {
            "count": len(times),
            "p50": at(0.5),
            "p99": at(0.99),
            "max": at(1.0),
            "failures": len(failures),
            "first": failures[:3],
        }


def take_frames(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Take apart what a server sends, all of it short frames.

    Returns:
        All frames but Pings, the payloads of Pings, and the beginning of a frame that is not whole.

    Raises:
        OSError: for one that is not short, or masked: it is no echo.
    """
    others, pings = b"", []
    while len(data) >= 2:
        if data[1] > 125:
            raise OSError(f"not an echo: {data[:100]!r}")
        if len(data) < 2 + data[1]:
            break
        whole, data = data[: 2 + data[1]], data[2 + data[1] :]
        if whole[0] == 0x89:
            pings.append(whole[2:])
        else:
            others += whole
    return others, pings, data


def _end(data: bytes) -> bytes:
    raise EOFError(f"TCP ended behind {data[:100]!r}")


def main() -> None:
    crowd = Crowd(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
    for _ in gevent.fileobject.FileObject(sys.stdin, "rb"):
        print(json.dumps(crowd.report()), flush=True)


if __name__ == "__main__":
    main()
