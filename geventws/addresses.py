"""Which connections come from one place: counting them by address, behind proxies that are trusted too."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .protocol.uri import split_host

if TYPE_CHECKING:
    from .options import Network
    from .protocol.http import Request

__all__ = ["AddressCounter", "client_address", "group"]

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def _parse(host: str) -> _IPAddress | None:
    """Return the address that a text stands for; None for anything else."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def group(host: str) -> str:
    """Return what stands for all addresses that one subscriber has: an IPv4 address, 64 bits of IPv6."""
    if ":" not in host:
        return host
    address = _parse(host)
    if not isinstance(address, ipaddress.IPv6Address):
        return host if address is None else str(address)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"


def client_address(peer: str, request: Request, proxies: Sequence[Network]) -> str:
    """Return the address of the client that a trusted proxy speaks for.

    Each proxy adds the address it was connected from at the end of X-Forwarded-For. So the last one that is
    not a trusted proxy is the client's; what stands before it anybody may have written.

    Args:
        peer: the proxy that is connected to us. It is returned where it does not tell.
        request: its request.
        proxies: those that are trusted.
    """
    found = peer
    for field in reversed(request.headers.get_all("x-forwarded-for")):
        for item in reversed(field.split(",")):
            address = _parse_forwarded(item.strip(" \t"))
            if address is None:
                return found
            found = str(address)
            if not any(address in network for network in proxies):
                return found
    return found


def _parse_forwarded(item: str) -> _IPAddress | None:
    """Return an address that may have a port behind it, and brackets around it."""
    if len(item) > 60:
        return None
    address = _parse(item)
    if address is not None:
        return address
    try:
        return _parse(split_host(item)[0].strip("[]"))
    except ValueError:
        return None


class AddressCounter:
    """Counts the connections of each group of addresses, up to a limit."""

    __slots__ = ("_counts", "_limit", "_proxies")

    def __init__(self, limit: int, proxies: Sequence[Network]) -> None:
        """Args: limit: connections; proxies: whose own address does not count."""
        self._limit = limit
        self._proxies = proxies
        self._counts: dict[str, int] = {}

    def key(self, address: Any) -> str:
        """Return what a peer is counted by; "" for a Unix socket or a trusted proxy, which are not."""
        if not isinstance(address, tuple):
            return ""
        if self._proxies:
            parsed = _parse(address[0])
            if parsed is not None and any(parsed in network for network in self._proxies):
                return ""
        return group(address[0])

    def client_key(self, request: Request) -> str:
        """Return what the client behind a trusted proxy is counted by; "" for a Unix socket."""
        address = request.remote_address
        if not isinstance(address, tuple):
            return ""
        return group(client_address(address[0], request, self._proxies))

    def enter(self, key: str) -> bool:
        """Count a connection in; False, and it is not counted, where there are too many."""
        count = self._counts.get(key, 0)
        if count >= self._limit:
            return False
        self._counts[key] = count + 1
        return True

    def leave(self, key: str) -> None:
        """Count a connection out."""
        count = self._counts[key] - 1
        if count:
            self._counts[key] = count
        else:
            del self._counts[key]

    def __len__(self) -> int:
        """How many groups there are."""
        return len(self._counts)
