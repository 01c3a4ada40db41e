"""One manner of speaking for clients that other people wrote, so that the same tests drive them all.

An adapter adds nothing and forgives nothing: what it returns is what the library under it reported.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pathlib
import socket
import ssl
from collections.abc import Sequence
from typing import Any

__all__ = ["CLIENTS", "DEADLINE", "Address", "Client", "Offer"]

#: Seconds that any one step of a client may take, 16 MiB through TLS on a busy machine included.
DEADLINE = 60


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a server listens: `place` is host:port, or a path for "unix"."""

    transport: str
    place: str
    ca: str

    def url(self, resource: str) -> str:
        """Return the URL, for "unix" with a host that is not looked up."""
        scheme = "wss" if self.transport == "tls" else "ws"
        authority = "localhost" if self.transport == "unix" else self.place
        return f"{scheme}://{authority}{resource}"

    def context(self) -> ssl.SSLContext | None:
        """Return what verifies the server's certificate, or None without TLS."""
        return ssl.create_default_context(cafile=self.ca) if self.transport == "tls" else None


@dataclasses.dataclass(frozen=True)
class Offer:
    """What a client offers of permessage-deflate; the default is what browsers offer."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | bool = True

    def __str__(self) -> str:
        changed = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return ",".join(changed) or "browser's"


class Client:
    """One connection. `with` opens it, and drops what is left of it in the end.

    Attributes:
        name: of the library.
        fragments: whether it can be told to send fragments.
        echoes_code: whether it answers a Close frame with the code in it, not with 1000 always.
        extensions: Sec-WebSocket-Extensions of the response, "" where there is none.
    """

    name = ""
    fragments = True
    echoes_code = True
    extensions = ""

    @classmethod
    def can_offer(cls, offer: Offer) -> bool:
        """Tell whether the library can offer this."""
        return True

    def __init__(self, address: Address, resource: str, offer: Offer | None, directory: pathlib.Path) -> None:
        self.address = address
        self.url = address.url(resource)
        self.offer = offer
        self.directory = directory

    def __enter__(self) -> Client:
        try:
            self.open(self.address, self.url, self.offer)
        except BaseException:
            self.drop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.drop()

    def open(self, address: Address, url: str, offer: Offer | None) -> None:
        """Do the opening handshake."""
        raise NotImplementedError

    def send(self, message: str | bytes) -> None:
        """Send a message."""
        raise NotImplementedError

    def send_fragments(self, parts: Sequence[str] | Sequence[bytes]) -> None:
        """Send one message in fragments."""
        raise NotImplementedError

    def receive(self) -> str | bytes:
        """Return the next message; answer Pings on the way where the library leaves that to its user."""
        raise NotImplementedError

    def ping(self, data: bytes) -> None:
        """Send a Ping and wait for its Pong, with the same data."""
        raise NotImplementedError

    def close(self, code: int, reason: str) -> int:
        """Close, and return the code in the Close frame that came back."""
        raise NotImplementedError

    def wait_closed(self) -> tuple[int, str]:
        """Wait until the server closes; return its code and reason."""
        raise NotImplementedError

    def drop(self) -> None:
        """Free everything."""
        raise NotImplementedError


class AsyncioClient(Client):
    """A client of asyncio, on a loop of its own that runs during each step."""

    loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Any) -> Any:
        """Run a step in the loop."""
        if self.loop is None:
            self.loop = asyncio.new_event_loop()
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, DEADLINE))

    def drop(self) -> None:
        if self.loop is None:
            return
        try:
            self.run(self.drop_connection())
            self.run(self.loop.shutdown_asyncgens())
            self.run(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()

    async def drop_connection(self) -> None:
        """Free the connection."""
        raise NotImplementedError


def websockets_factory(offer: Offer) -> Any:
    """Make the extension of websockets."""
    from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

    return ClientPerMessageDeflateFactory(
        server_no_context_takeover=offer.server_no_context_takeover,
        client_no_context_takeover=offer.client_no_context_takeover,
        server_max_window_bits=offer.server_max_window_bits,
        client_max_window_bits=None
        if offer.client_max_window_bits is False
        else offer.client_max_window_bits,
    )


class WebsocketsAsyncio(AsyncioClient):
    name = "websockets"
    ws: Any = None

    def open(self, address: Address, url: str, offer: Offer | None) -> None:
        self.run(self.connect(address, url, offer))

    async def connect(self, address: Address, url: str, offer: Offer | None) -> None:
        from websockets.asyncio.client import connect, unix_connect

        options: dict[str, Any] = {
            "compression": None,
            "extensions": None if offer is None else [websockets_factory(offer)],
            "max_size": None,
            "open_timeout": DEADLINE,
            "close_timeout": DEADLINE,
            "ping_interval": None,
            "proxy": None,
            "ssl": address.context(),
        }
        if address.transport == "unix":
            self.ws = await unix_connect(address.place, url, **options)
        else:
            self.ws = await connect(url, **options)
        self.extensions = self.ws.response.headers.get("Sec-WebSocket-Extensions", "")

    def send(self, message: str | bytes) -> None:
        self.run(self.ws.send(message))

    def send_fragments(self, parts: Sequence[str] | Sequence[bytes]) -> None:
        self.run(self.ws.send(parts))

    def receive(self) -> Any:
        return self.run(self.ws.recv())

    def ping(self, data: bytes) -> None:
        async def ping() -> None:
            # The waiter is set by a Pong with the same data only.
            await (await self.ws.ping(data))

        self.run(ping())

    def close(self, code: int, reason: str) -> int:
        self.run(self.ws.close(code, reason))
        return int(self.ws.close_code)

    def wait_closed(self) -> tuple[int, str]:
        self.run(self.ws.wait_closed())
        return self.ws.close_code, self.ws.close_reason

    async def drop_connection(self) -> None:
        if self.ws is not None:
            await self.ws.close()


class WebsocketsSync(Client):
    name = "websockets sync"
    ws: Any = None

    def open(self, address: Address, url: str, offer: Offer | None) -> None:
        from websockets.sync.client import connect, unix_connect

        context = address.context()
        if context is not None:
            # It reads in one thread and writes in another. Before CPython 3.13 two must not use one object of
            # OpenSSL: where tickets of TLS 1.3 come while the request is written, that is never sent.
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        options: dict[str, Any] = {
            "compression": None,
            "extensions": None if offer is None else [websockets_factory(offer)],
            "max_size": None,
            "open_timeout": DEADLINE,
            "close_timeout": DEADLINE,
            "ping_interval": None,
            "proxy": None,
            "ssl": context,
        }
        if address.transport == "unix":
            ws = unix_connect(address.place, url, **options)
        else:
            ws = connect(url, **options)
        self.ws = ws.__enter__()
        self.extensions = ws.response.headers.get("Sec-WebSocket-Extensions", "")

    def send(self, message: str | bytes) -> None:
        self.ws.send(message)

    def send_fragments(self, parts: Sequence[str] | Sequence[bytes]) -> None:
        self.ws.send(iter(parts))

    def receive(self) -> Any:
        return self.ws.recv(DEADLINE)

    def ping(self, data: bytes) -> None:
        assert self.ws.ping(data).wait(DEADLINE), f"no Pong with {data!r} within {DEADLINE} s"

    def close(self, code: int, reason: str) -> int:
        self.ws.close(code, reason)
        return int(self.ws.close_code)

    def wait_closed(self) -> tuple[int, str]:
        from websockets.exceptions import ConnectionClosed

        try:
            message = self.ws.recv(DEADLINE)
        except ConnectionClosed:
            return self.ws.close_code, self.ws.close_reason
        raise AssertionError(f"a message instead of the end: {message[:80]!r}")

    def drop(self) -> None:
        if self.ws is not None:
            self.ws.close()


class WebsocketClient(Client):
    name = "websocket-client"
    echoes_code = False
    ws: Any = None
    sock: socket.socket | None = None

    @classmethod
    def can_offer(cls, offer: Offer) -> bool:
        return False

    def open(self, address: Address, url: str, offer: Offer | None) -> None:
        import websocket

        assert offer is None
        options: dict[str, Any] = {"timeout": DEADLINE, "skip_utf8_validation": True}
        if address.transport == "tls":
            options["sslopt"] = {"context": address.context()}
        elif address.transport == "unix":
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(DEADLINE)
            self.sock.connect(address.place)
            options["socket"] = self.sock
        self.ws = websocket.create_connection(url, **options)
        self.extensions = self.ws.getheaders().get("sec-websocket-extensions", "")

    def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.ws.send(message)
        else:
            self.ws.send_binary(message)

    def send_fragments(self, parts: Sequence[str] | Sequence[bytes]) -> None:
        from websocket import ABNF

        for i, part in enumerate(parts):
            opcode = ABNF.OPCODE_TEXT if isinstance(part, str) else ABNF.OPCODE_BINARY
            data = part.encode() if isinstance(part, str) else part
            frame = ABNF.create_frame(data, ABNF.OPCODE_CONT if i else opcode, int(i == len(parts) - 1))
            self.ws.send_frame(frame)

    def receive(self) -> str | bytes:
        from websocket import ABNF

        opcode, data = self.ws.recv_data()
        if opcode == ABNF.OPCODE_TEXT:
            # The library would validate octet by octet in Python, which takes minutes here.
            return bytes(data).decode("utf-8")
        assert opcode == ABNF.OPCODE_BINARY, f"opcode {opcode} instead of a message"
        return bytes(data)

    def ping(self, data: bytes) -> None:
        from websocket import ABNF

        self.ws.ping(data)
        opcode, frame = self.ws.recv_data_frame(control_frame=True)
        assert (opcode, frame.data) == (ABNF.OPCODE_PONG, data)

    def close(self, code: int, reason: str) -> int:
        self.ws.close(code, reason.encode(), timeout=DEADLINE)
        assert self.ws.close_frame is not None, "no Close frame came back"
        return self.take_apart(self.ws.close_frame.data)[0]

    def wait_closed(self) -> tuple[int, str]:
        from websocket import ABNF

        opcode, frame = self.ws.recv_data_frame()
        assert opcode == ABNF.OPCODE_CLOSE, f"opcode {opcode} instead of Close"
        # It has answered; to end TCP is left to its user, as in an application that sees this opcode.
        self.ws.shutdown()
        return self.take_apart(frame.data)

    @staticmethod
    def take_apart(payload: bytes) -> tuple[int, str]:
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def drop(self) -> None:
        if self.ws is not None:
            self.ws.shutdown()
        if self.sock is not None:
            self.sock.close()


class Aiohttp(AsyncioClient):
    name = "aiohttp"
    # It has no way to send a frame without FIN.
    fragments = False
    echoes_code = False
    ws: Any = None
    session: Any = None
    sock: Any = None

    @classmethod
    def can_offer(cls, offer: Offer) -> bool:
        # One number for both: below 15 it is the server's window, and client_max_window_bits is always there.
        bits = offer.server_max_window_bits
        return offer == Offer(server_max_window_bits=bits) and (bits is None or 9 <= bits < 15)

    def open(self, address: Address, url: str, offer: Offer | None) -> None:
        self.run(self.connect(address, url, offer))

    async def connect(self, address: Address, url: str, offer: Offer | None) -> None:
        import aiohttp

        async def on_request_end(session: Any, context: Any, parameters: Any) -> None:
            self.extensions = parameters.response.headers.get("Sec-WebSocket-Extensions", "")

        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(on_request_end)
        unix = address.transport == "unix"
        self.session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(address.place) if unix else aiohttp.TCPConnector(),
            trace_configs=[trace],
        )
        self.ws = await self.session.ws_connect(
            url,
            autoping=False,
            compress=0 if offer is None else offer.server_max_window_bits or 15,
            max_msg_size=0,
            ssl=address.context() or True,
            timeout=aiohttp.ClientWSTimeout(ws_receive=DEADLINE, ws_close=DEADLINE),
        )
        self.sock = self.ws.get_extra_info("socket")

    def send(self, message: str | bytes) -> None:
        self.run(self.ws.send_str(message) if isinstance(message, str) else self.ws.send_bytes(message))

    def receive(self) -> Any:
        return self.run(self.next_message())

    async def next_message(self) -> Any:
        from aiohttp import WSMsgType

        while True:
            message = await self.ws.receive()
            if message.type is WSMsgType.PING:
                await self.ws.pong(message.data)
            else:
                assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), f"{message!r} instead of a message"
                return bytes(message.data) if message.type is WSMsgType.BINARY else message.data

    def ping(self, data: bytes) -> None:
        self.run(self.ws.ping(data))
        message = self.run(self.ws.receive())
        assert (message.type.name, message.data) == ("PONG", data)

    def close(self, code: int, reason: str) -> int:
        self.run(self.ws.close(code=code, message=reason.encode()))
        return int(self.ws.close_code)

    def wait_closed(self) -> tuple[int, str]:
        message = self.run(self.ws.receive())
        assert message.type.name == "CLOSE", f"{message!r} instead of Close"
        # It has answered and closed; the loop has still to do it.
        self.run(self.drop_connection())
        return message.data, message.extra

    async def drop_connection(self) -> None:
        if self.ws is not None:
            await self.ws.close()
        if self.session is not None:
            await self.session.close()
        # The loop closes the socket some turns later, and with TLS after an exchange.
        for _ in range(DEADLINE * 100):
            if self.sock is None or self.sock.fileno() == -1:
                break
            await asyncio.sleep(0.01)


class NodeWs(Client):
    name = "Node ws"
    control: socket.socket | None = None
    process: Any = None

    def open(self, address: Address, url: str, offer: Offer | None) -> None:
        from clients.processes import start_node

        self.messages: list[str | bytes] = []
        self.process, self.control = start_node(self.directory)
        self.control.settimeout(DEADLINE)
        if address.transport == "unix":
            resource = url.partition("://localhost")[2]
            url = f"ws+unix:{address.place}:{resource}"
        self.tell("open", url=url, ca=address.ca, offer=self.node_options(offer))
        header, _ = self.next_event()
        assert header["event"] == "open", header
        self.extensions = header["extensions"]

    @staticmethod
    def node_options(offer: Offer | None) -> dict[str, Any] | bool:
        if offer is None:
            return False
        options: dict[str, Any] = {"threshold": 0}
        # To `ws` an explicit false means that the server may not demand it either.
        if offer.server_no_context_takeover:
            options["serverNoContextTakeover"] = True
        if offer.client_no_context_takeover:
            options["clientNoContextTakeover"] = True
        if offer.server_max_window_bits is not None:
            options["serverMaxWindowBits"] = offer.server_max_window_bits
        if offer.client_max_window_bits is not True:
            options["clientMaxWindowBits"] = offer.client_max_window_bits
        return options

    def tell(self, order: str, payload: bytes = b"", **header: Any) -> None:
        assert self.control is not None
        head = json.dumps({"do": order, "size": len(payload), **header}).encode()
        self.control.sendall(len(head).to_bytes(4, "big") + head + payload)

    def next_event(self) -> tuple[dict[str, Any], bytes]:
        header = json.loads(self.read(int.from_bytes(self.read(4), "big")))
        return header, self.read(header["size"])

    def read(self, size: int) -> bytes:
        assert self.control is not None
        data = bytearray()
        while len(data) < size:
            piece = self.control.recv(min(size - len(data), 1024 * 1024))
            assert piece, f"Node has ended: {self.process.text()[-2000:]}"
            data += piece
        return bytes(data)

    def wait_for(self, event: str) -> tuple[dict[str, Any], bytes]:
        header, payload = self.next_event()
        assert header["event"] == event, f"{header} instead of {event}"
        return header, payload

    def send_frame(self, data: str | bytes, first: bool, fin: bool) -> None:
        text = isinstance(data, str)
        payload = data.encode() if isinstance(data, str) else data
        self.tell("send", payload, text=text, first=first, fin=fin)

    def send(self, message: str | bytes) -> None:
        self.send_frame(message, True, True)

    def send_fragments(self, parts: Sequence[str] | Sequence[bytes]) -> None:
        for i, part in enumerate(parts):
            self.send_frame(part, i == 0, i == len(parts) - 1)

    def receive(self) -> str | bytes:
        header, payload = self.wait_for("message")
        return payload.decode() if header["text"] else payload

    def ping(self, data: bytes) -> None:
        self.tell("ping", data)
        assert self.wait_for("pong")[1] == data

    def close(self, code: int, reason: str) -> int:
        self.tell("close", reason.encode(), code=code)
        return self.wait_closed()[0]

    def wait_closed(self) -> tuple[int, str]:
        header, payload = self.wait_for("close")
        return header["code"], payload.decode()

    def drop(self) -> None:
        if self.control is not None:
            self.control.close()
        if self.process is not None:
            self.process.__exit__()


CLIENTS: dict[str, type[Client]] = {
    client.name: client for client in (WebsocketsAsyncio, WebsocketsSync, WebsocketClient, Aiohttp, NodeWs)
}
