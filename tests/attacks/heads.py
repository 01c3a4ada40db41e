"""Attacks by the opening handshake: sizes, bodies, smuggling, hostile values, origins."""

from __future__ import annotations

import contextlib

from attack import Outcome, attack
from frames import chunks
from target import MIB, Target, bill
from wire import KEY, Wire, exchange, request

__all__: list[str] = []

REFUSED = range(400, 506)
PLAIN = b"GET /smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def ask(target: Target, data: bytes, seconds: float = 3.0) -> tuple[list[int], bytes, str]:
    """Send a head; return what `exchange` does."""
    return exchange(target.port, data, seconds)


def refusals(target: Target, heads: list[bytes], seconds: float = 3.0) -> Outcome:
    """Send heads, each of which has to be refused with one answer and the end of TCP; or cut."""
    accepted, more, kept, sent = [], [], [], 0
    with bill(target) as cost:
        for data in heads:
            sent += len(data)
            statuses, _, ended = ask(target, data, seconds)
            if 101 in statuses or 200 in statuses:
                accepted.append(data)
            elif len(statuses) > 1:
                more.append(data)
            elif not ended:
                kept.append(data)
    outcome = Outcome(
        f"{len(heads) - len(accepted) - len(more) - len(kept)} of {len(heads)} refused", sent=sent
    )
    for what, found in (("accepted", accepted), ("answered twice", more), ("TCP was kept", kept)):
        if found:
            outcome.wrong.append(f"{what}: {len(found)}, such as {shorten(found[0])}")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


def shorten(data: bytes) -> str:
    """What is different in a head, for a message."""
    usual = set(request().split(b"\r\n"))
    lines = [line for line in data.split(b"\r\n") if line not in usual]
    return repr(b" | ".join(lines)[:60])


# Sizes


def flooded(name: str, what: str, parts, statuses: tuple[int, ...]):
    """A head that never ends: refused, or cut, and soon."""

    @attack(name, what)
    def run(target: Target) -> Outcome:
        with bill(target) as cost, Wire(target.port) as wire:
            wire.pour(parts())
            wire.wait_end(10)
            found = bytes(wire.data[9:12])
            outcome = Outcome(found.decode("latin-1") or wire.verdict(), sent=wire.sent)
            if not wire.ended:
                outcome.wrong.append("stays open")
            elif found and int(found) not in statuses:
                outcome.wrong.append(f"answered with {found!r}")
        outcome.memory, outcome.cpu = cost.memory, cost.cpu
        return outcome


def fields(count: int) -> bytes:
    return request(*(b"X-%d: y" % number for number in range(count)))


flooded("T-HS1a", "2000 header fields", lambda: iter([fields(2000)]), (431, 400))
flooded("T-HS1b", "100 000 header fields", lambda: iter([fields(100_000)]), (431, 400))
flooded(
    "T-HS2a",
    "a header line of 64 MiB",
    lambda: iter([request()[:-2] + b"X: ", *chunks(b"x" * 65536, 64 * MIB)]),
    (431, 400),
)
flooded(
    "T-HS2b",
    "a request line of 64 MiB",
    lambda: iter([b"GET /", *chunks(b"x" * 65536, 64 * MIB)]),
    (414, 431, 400),
)


@attack("T-HS3", "10 000 requests at once, pipelined", cpu=2.0)
def _pipelined(target: Target) -> Outcome:
    """One answer at the most: what stands behind an opening handshake is no request."""
    data = PLAIN * 10_000
    with bill(target) as cost:
        statuses, _, ended = ask(target, data, 5)
    outcome = Outcome(f"{len(statuses)} answers", sent=len(data))
    if len(statuses) > 1:
        outcome.wrong.append(f"{len(statuses)} answers")
    if not ended:
        outcome.wrong.append("stays open")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


@attack("T-HS4", "100 heads of 8 KiB, one byte a segment", cpu=30.0, witness=False)
def _dribbled_heads(target: Target) -> Outcome:
    """Linear: a head of twice the size takes less than three times the CPU time."""
    spent, sent = {}, 0
    with bill(target) as cost:
        for size in (2048, 4096, 8192):
            lines = [b"X-%d: %s" % (number, b"y" * 100) for number in range(size // 110)]
            data = request(*lines)
            before = target.cpu()
            for _ in range(33):
                with contextlib.suppress(OSError), Wire(target.port) as wire:
                    wire.dribble(data)
                    wire.wait_data(12)
                    sent += len(data)
            target.calm_down()
            spent[size] = (target.cpu() - before) / len(data)
    worse = spent[8192] / spent[2048]
    outcome = Outcome("linear" if worse < 2 else "not linear", sent=sent)
    if worse >= 2:
        outcome.wrong.append(f"{worse:.1f} times the CPU time for each byte, of a head four times as long")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


PATHOLOGICAL = [
    b'Sec-WebSocket-Extensions: a; b="' + b"\\c" * 3500,
    b"Sec-WebSocket-Extensions: " + b"a;" * 3500,
    b"Sec-WebSocket-Extensions: " + b"permessage-deflate," * 400 + b"x",
    b"Sec-WebSocket-Extensions: permessage-deflate" + b"; a" * 2000,
    b"Sec-WebSocket-Protocol: b" + b" " * 7000 + b"c",
    b"Sec-WebSocket-Protocol: " + b"a," * 3500,
    b"Connection: " + b"," * 7500 + b"x",
    b"Upgrade: " + b"x, " * 2500,
    b"Cookie: " + b'a="\\' * 1800,
    b"Origin: http://" + b"[" * 7000,
    b"X-Forwarded-For: " + b"1," * 3500,
    # As many elements as a head of 64 KiB has room for.
    b"\r\n".join([b"Connection: " + b"a," * 3900] * 7),
    b"\r\n".join([b"Sec-WebSocket-Protocol: " + b"a," * 3900] * 7),
]


@attack("T-HS5", "list headers that make careless parsers slow, 260 requests", cpu=2.5)
def _quadratic(target: Target) -> Outcome:
    found: set[int] = set()
    sent = 0
    with bill(target) as cost:
        for line in PATHOLOGICAL * 20:
            data = request(line)
            sent += len(data)
            with Wire(target.port) as wire:
                wire.send(data)
                wire.wait_data(12, 5)
                if wire.data[9:12].isdigit():
                    found.add(int(wire.data[9:12]))
    outcome = Outcome("/".join(map(str, sorted(found))), sent=sent)
    if any(status >= 500 for status in found):
        outcome.wrong.append("500s")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


@attack(
    "T-HS6", "every byte in every place of a handshake: served, refused, never 500", cpu=20.0, witness=False
)
def _every_byte(target: Target) -> Outcome:
    places = (
        lambda byte: request(path=b"/" + byte),
        lambda byte: request(host=b"127.0.0.1" + byte),
        lambda byte: request(b"X" + byte + b": y"),
        lambda byte: request(b"X: y" + byte + b"z"),
        lambda byte: request(b"Sec-WebSocket-Protocol: a" + byte + b"b"),
        lambda byte: request(b"Sec-WebSocket-Extensions: a" + byte + b"; b"),
        lambda byte: request(b"Origin: http://127.0.0.1" + byte),
        lambda byte: request().replace(KEY, KEY[:5] + byte + KEY[6:]),
        lambda byte: request().replace(b"Upgrade: websocket", b"Upgrade: web" + byte + b"socket"),
        lambda byte: request().replace(b"-Version: 13", b"-Version: 1" + byte + b"3"),
    )
    bad, silent, number = [], 0, 0
    with bill(target) as cost:
        for place in places:
            for value in range(256):
                data = place(bytes((value,)))
                with Wire(target.port) as wire:
                    wire.send(data)
                    # A line feed may leave the head incomplete: then there is no answer yet.
                    wire.wait_data(12, 0.5 if value == 10 else 5)
                    status = bytes(wire.data[9:12])
                number += 1
                if not status.isdigit():
                    silent += 1
                elif int(status) >= 500 and int(status) != 505:
                    bad.append(data)
    outcome = Outcome(f"{len(bad)} times 500" if bad else "101 or 4xx")
    if bad:
        outcome.wrong.append(f"500 for {len(bad)}, such as {shorten(bad[0])}")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


# Smuggling


@attack("T-HS7", "an upgrade with a body, and another request behind it", witness=False)
def _bodies(target: Target) -> Outcome:
    bodies = [
        (b"Content-Length: 44", PLAIN),
        (b"Content-Length: 5", b"hello" + PLAIN),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n" + PLAIN),
        (b"Transfer-Encoding: chunked", PLAIN),
        (b"Transfer-Encoding: xchunked", PLAIN),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n" + PLAIN),
        (b"Expect: 100-continue\r\nContent-Length: 5", b"hello" + PLAIN),
    ]
    return refusals(target, [request(line) + body for line, body in bodies])


@attack("T-HS7b", "a request that is refused, and another one behind it", witness=False)
def _behind_refused(target: Target) -> Outcome:
    heads = [
        request().replace(b"-Version: 13", b"-Version: 12") + PLAIN,
        request().replace(KEY, b"short") + PLAIN,
        request(b"Origin: http://evil.example") + PLAIN,
        request(path=b"/nowhere").replace(b"-Key", b"-Keys") + PLAIN,
        request().replace(b"GET ", b"POST ") + PLAIN,
        request().replace(b": Upgrade", b": keep-alive") + PLAIN,
    ]
    return refusals(target, heads)


def _line(old: bytes, new: bytes) -> bytes:
    data = request()
    assert old in data
    return data.replace(old, new)


#: RFC 9112, and RFC 6455 section 4.2.1: each of these must not be served.
CORPUS = [
    # Lengths and codings.
    request(b"Content-Length: +5"), request(b"Content-Length: 1_0"), request(b"Content-Length: 5, 6"),
    request(b"Content-Length: 5", b"Content-Length: 6"), request(b"Content-Length: 0x5"),
    request(b"Content-Length: -1"), request("Content-Length: ٥".encode()), request(b"Content-Length: 5 5"),
    request(b"Content-Length: 99999999999999999999"), request(b"Transfer-Encoding: identity, chunked"),
    request(b"Transfer-Encoding: chunked, identity"), request(b"Transfer-Encoding:\x0bchunked"),
    request(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    # Lines and names.
    request().replace(b"\r\nUpgrade", b"\nUpgrade"), request().replace(b"\r\n", b"\n"),
    request().replace(b"\r\nUpgrade", b"\rUpgrade"), request(b"X: a\rb"), request(b"X: a\0b"),
    request(b"X : y"), request(b"X\t: y"), request(b" X: y"), request(b"X: y", b" folded"),
    request(b"X: y", b"\tfolded"), request(b": no name"), request(b"no colon"), request(b"X(: y"),
    request(b"\x00X: y"), request("Ü: y".encode()), request(b"X\r: y"),
    _line(b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\n X: y\r\n"),
    # The request line.
    _line(b"GET / ", b"GET  / "), _line(b"GET / ", b"GET /  "), _line(b"GET / ", b"GET\t/ "),
    _line(b"GET / ", b" GET / "), _line(b"GET / ", b"get / "), _line(b"GET / ", b"POST / "),
    _line(b"GET / ", b"CONNECT 127.0.0.1:80 "), _line(b"GET / ", b"GET * "), _line(b"GET / ", b"G(T / "),
    _line(b"HTTP/1.1", b"HTTP/1.0"), _line(b"HTTP/1.1", b"HTTP/0.9"), _line(b"HTTP/1.1", b"HTTP/2.0"),
    _line(b"HTTP/1.1", b"HTTP/1.1 x"), _line(b"HTTP/1.1", b"HTTP/11"), _line(b"HTTP/1.1", b"http/1.1"),
    _line(b"HTTP/1.1", b"HTTP/1.10"), _line(b" HTTP/1.1", b""), _line(b"GET / ", b"GET /a b "),
    _line(b"GET / ", b"GET /\x00 "), _line(b"GET / ", b"GET /\x7f "), b"\r\n\r\n\r\n" + request(),
    b"\r" + request(),
    # Host.
    request(b"Host: other"), _line(b"Host: 127.0.0.1\r\n", b""), _line(b"Host: 127.0.0.1", b"Host: a b"),
    _line(b"Host: 127.0.0.1", b"Host: a, b"), _line(b"Host: 127.0.0.1", b"Host: user@host"),
    _line(b"Host: 127.0.0.1", b"Host: a/b"), _line(b"Host: 127.0.0.1", b"Host: a:b"),
    # What makes it a WebSocket.
    _line(b"Upgrade: websocket", b"Upgrade: notwebsocket"),
    _line(b"Upgrade: websocket", b"Upgrade: web socket"),
    _line(b"Upgrade: websocket", b"Upgrade: h2c"), _line(b"Connection: Upgrade", b"Connection: notupgrade"),
    _line(b"Connection: Upgrade", b"Connection: keep-alive"),
    _line(b"Connection: Upgrade", b"Connection: close"),
    _line(b"-Version: 13", b"-Version: +13"), _line(b"-Version: 13", b"-Version: 013"),
    _line(b"-Version: 13", b"-Version: 13abc"), _line(b"-Version: 13", b"-Version: 13, 8"),
    _line(b"-Version: 13", b"-Version: 8"), request(b"Sec-WebSocket-Version: 8"),
    request(b"Sec-WebSocket-Key: " + KEY), _line(KEY, b""), _line(KEY, b"dGhlIHNhbXBsZQ=="),
    _line(KEY, KEY + b"="), _line(KEY, KEY[:-2]), _line(KEY, b"dGhlIHNhbXBsZSBub25jZX=="),
    _line(KEY, b"!" + KEY[1:]),
    _line(b"GET / ", b"HEAD / "),
]  # fmt: skip


@attack("T-SM", f"{len(CORPUS)} malformed handshakes, a request behind each: all refused", witness=False)
def _smuggling(target: Target) -> Outcome:
    return refusals(target, [data + PLAIN for data in CORPUS], 1.0)


@attack("T-INJ", "CR and LF in a path, in percent codes: not in the answer", witness=False)
def _injection(target: Target) -> Outcome:
    paths = (b"/%0d%0aX-Injected:%201", b"/x?%0d%0aX-Injected:%201", b"/<script>alert(1)</script>")
    reflected = []
    with bill(target) as cost:
        for path in paths:
            # Refused, so that there is a page.
            data = request(path=path).replace(b"-Version: 13", b"-Version: 12")
            _, answer, _ = ask(target, data, 2)
            if b"X-Injected" in answer or b"<script>" in answer:
                reflected.append(path)
    outcome = Outcome("reflected" if reflected else "not reflected")
    if reflected:
        outcome.wrong.append(f"reflected: {reflected}")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome


#: Not the origin of http://127.0.0.1 (where requests come from), each of them.
FOREIGN = (
    b"http://evil.example", b"http://127.0.0.1.evil.example", b"http://evil127.0.0.1", b"null", b"",
    b"http://127.0.0.1:1", b"http://127.0.0.1@evil.example", b"http://evil.example/127.0.0.1", b"file://",
    b"http://[::1]", b"http://[", b"http://127.0.0.1 http://evil.example", b"127.0.0.1",
    b"http://xn--evil", b"http://127.0.0.1:port", b"https://evil.example:443", b"http://sub.127.0.0.1",
)  # fmt: skip


@attack("T-ORI", f"{len(FOREIGN)} foreign origins: 403; one's own: served", witness=False)
def _origins(target: Target) -> Outcome:
    served, other = [], []
    with bill(target) as cost:
        for origin in FOREIGN:
            statuses, _, _ = ask(target, request(b"Origin: " + origin), 1)
            if 101 in statuses:
                served.append(origin)
            elif statuses != [403] and statuses != [400]:
                other.append((origin, statuses))
        statuses, _, _ = ask(target, request(b"Origin: http://127.0.0.1"), 1)
    outcome = Outcome(f"{len(FOREIGN) - len(served)} of {len(FOREIGN)} refused")
    if served:
        outcome.wrong.append(f"served: {len(served)}, such as {served[0].decode()}")
    if other:
        outcome.wrong.append(f"neither 403 nor 400: {other}")
    if statuses != [101]:
        outcome.wrong.append("refuses its own origin")
    outcome.memory, outcome.cpu = cost.memory, cost.cpu
    return outcome
