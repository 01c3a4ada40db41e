"""docs/limits.md has every option there is, with its default; and none is unlimited by default."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import opened

from geventws import Options, Router, Stats, WebSocketMiddleware, WebSocketServer, connect, connect_forever
from geventws.admission import MAX_REFUSING
from geventws.endings import log_end
from geventws.options import SERVER_OPTIONS
from geventws.pong import MAX_WAITING
from geventws.protocol.headers import _MAX_ELEMENTS as MAX_ELEMENTS
from geventws.stats import CAUSES
from geventws.transport import LINGER_BYTES

TEXT = (Path(__file__).parents[1] / "docs/limits.md").read_text(encoding="utf-8")
UNITS = {"KiB": 1024, "MiB": 1024**2}


def table(heading: str) -> list[list[str]]:
    """The rows of the table below a heading."""
    part = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:]]


ROWS = {row[0].strip("`"): row for row in table("Options")}

#: Options of `Options` that are no limits; the text below the table says so.
CHOICES = {"compression", "subprotocols", "origins", "slow_consumer", "process_request", "trusted_proxies"}

#: Other arguments of what opens connections, and why each needs no row: it is what to do, not how much.
OTHERS: dict[Callable[..., Any], set[str]] = {
    WebSocketServer: {"listener", "handler", "backlog", "spawn", "ssl_context"},
    WebSocketMiddleware: {"app", "handler"},
    connect: {
        "uri", "headers", "cookies", "auth", "origin", "ssl_context", "server_hostname", "proxy",
        "source_address", "max_redirects",
    },
    connect_forever: {
        "uri", "first_delay", "max_delay", "stable_after", "max_retries", "is_final", "on_retry",
    },
    Router: {"rules"},
}  # fmt: skip

#: Limits that are `None` by default on purpose, and what bounds them.
UNLIMITED = {
    # It is for a client that shall come back however long its server is away; nothing of a peer grows.
    "connect_forever.max_retries",
    # The system's own backlog.
    "WebSocketServer.backlog",
}


def test_every_limit_is_in_the_table() -> None:
    names = {field.name for field in dataclasses.fields(Options)}
    assert names == ROWS.keys() | CHOICES
    below = TEXT.partition("Options that are no limits:")[2].partition("\n\n")[0]
    assert {name for name in re.findall(r"`(\w+)`", below) if name in names} == CHOICES


@pytest.mark.parametrize("name", ROWS)
def test_default(name: str) -> None:
    value = getattr(Options(), name)
    said = ROWS[name][2]
    assert value is not None, f"{name} is unlimited by default"
    if name == "max_connections_per_address":
        assert said == f"as `{value}`"
        assert Options().max_connections is not None
    elif name == "rate_limit":
        assert value.controls * value.burst < 2**32
        assert said == f"{value.controls:,} control frames, {value.burst:g} seconds' worth at once".replace(
            ",", " ", 1
        )
    else:
        found = re.fullmatch(r"([\d ]+)( KiB| MiB)?", said)
        assert found is not None, said
        number = int(found[1].replace(" ", "")) * UNITS.get((found[2] or "").strip(), 1)
        assert number == value
        assert 0 < value < 2**32


@pytest.mark.parametrize("name", ROWS)
def test_where_it_applies(name: str) -> None:
    faces = ROWS[name][3].split()
    assert ("c" in faces) == (name not in SERVER_OPTIONS)
    assert ("s" in faces) is True
    without = WebSocketMiddleware.__init__.__doc__
    assert without is not None
    assert ("m" in faces) == (
        f"`{name}`" not in without.partition("have no effect")[2].partition("Raises")[0]
    )


@pytest.mark.parametrize("name", ROWS)
def test_counters_exist(name: str) -> None:
    counters = re.findall(r"`(\w+)(?:\[([^]]+)\])?`", ROWS[name][6])
    assert counters or ROWS[name][6].startswith("none")
    for counter, key in counters:
        assert hasattr(Stats(), counter), counter
        if counter == "closes":
            assert key.strip('"') in CAUSES


@pytest.mark.parametrize("face", OTHERS, ids=lambda face: face.__name__)
def test_no_other_argument_is_a_limit_that_is_missing(face: Callable[..., Any]) -> None:
    """Who adds an argument says here what it is; one that is a limit and None by default has to be told."""
    parameters = inspect.signature(face).parameters
    assert {name for name in parameters if name not in ("options", "self")} == OTHERS[face]
    lifted = {
        f"{face.__name__}.{name}"
        for name, parameter in parameters.items()
        if parameter.default is None and re.match(r"max_|backlog$|.*(limit|timeout|size)", name)
    }
    assert lifted <= UNLIMITED


def test_the_other_figures() -> None:
    said = {row[0]: row[1] for row in table("Limits that are no options")}
    assert said["connections that are being refused, beside `max_connections`"] == str(MAX_REFUSING)
    assert said["Pings of ours that wait for a Pong"] == str(MAX_WAITING)
    assert said["what a peer sends behind the end of a connection"] == (
        f"`close_timeout`, {LINGER_BYTES >> 20} MiB"
    )
    assert said["elements of a list in a header field: subprotocols, extensions and their parameters"] == str(
        MAX_ELEMENTS
    )
    assert f"`max_connections` + `max_handshakes` + {MAX_REFUSING}" in TEXT


def test_causes_and_attributes() -> None:
    part = TEXT.partition("## The end of each connection")[2]
    (row,) = [line for line in part.splitlines() if line.startswith("| `cause`")]
    assert tuple(re.findall(r"`(\w+)`", row)[1:]) == CAUSES
    record = close_record()
    for name in re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]*) \|", part, re.MULTILINE))):
        assert hasattr(record, name), name


def close_record() -> logging.LogRecord:
    """The record of a connection's end."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("geventws.close")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with opened() as session:
            session.ws.abort()
            log_end(session.ws, "aborted")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return records[0]
