"""The primitives: both twins have the same results."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator

import gevent
import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from support import reset, socket_pair

from geventws.protocol.block import Block
from geventws.wire import monotonic, parent_of, receive_block, receive_into, send_chunks, switch

pytestmark = pytest.mark.usefixtures("no_leaks")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket_pair(small=True)
    ours.settimeout(0)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_receive_into_puts_what_came_at_the_start(pair: Pair) -> None:
    ours, theirs = pair
    buffer = bytearray(b"..........")
    theirs.sendall(b"Hello")
    assert receive_into(ours.fileno(), buffer) == 5
    assert buffer == b"Hello....."


def test_receive_into_fills_the_buffer_and_leaves_the_rest(pair: Pair) -> None:
    ours, theirs = pair
    buffer = bytearray(3)
    theirs.sendall(b"Hello")
    assert receive_into(ours.fileno(), buffer) == 3
    assert receive_into(ours.fileno(), buffer) == 2
    assert buffer == b"lol"


def test_receive_into_tells_nothing_from_the_end(pair: Pair) -> None:
    ours, theirs = pair
    buffer = bytearray(8)
    assert receive_into(ours.fileno(), buffer) == -1
    theirs.shutdown(socket.SHUT_WR)
    assert receive_into(ours.fileno(), buffer) == 0
    assert receive_into(ours.fileno(), buffer) == 0


def test_the_last_bytes_leave_with_the_end_of_the_stream(pair: Pair) -> None:
    ours, theirs = pair
    assert send_chunks(ours.fileno(), [b"Hel", b"lo"], 0, True) == 5
    assert send_chunks(ours.fileno(), [b"..!"], 2, True) == 1
    ours.shutdown(socket.SHUT_WR)
    theirs.settimeout(20)
    received = b""
    while data := theirs.recv(100):
        received += data
    assert received == b"Hello!"


def test_receive_into_raises_on_a_reset(pair: Pair) -> None:
    ours, theirs = pair
    reset(theirs)
    with pytest.raises(ConnectionResetError):
        receive_into(ours.fileno(), bytearray(8))


def test_receive_into_a_bad_descriptor() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        receive_into(-1, bytearray(8))


def test_receive_block_fills_the_block_first(pair: Pair) -> None:
    ours, theirs = pair
    block = Block()
    block.append(b"..")
    block.reserve(5)
    buffer = bytearray(b"..........")
    theirs.sendall(b"Hello, you")
    assert receive_block(ours.fileno(), block, 5, buffer) == 10
    assert block.size == 2
    block.commit(5, None, 0)
    assert block.take() == b"..Hello"
    assert buffer == b", you....."


def test_receive_block_of_less_than_that(pair: Pair) -> None:
    ours, theirs = pair
    block = Block()
    block.reserve(1000)
    theirs.sendall(b"Hello")
    buffer = bytearray(2)
    assert receive_block(ours.fileno(), block, 1000, buffer) == 5
    block.commit(5, None, 0)
    assert receive_block(ours.fileno(), block, 995, buffer) == -1
    theirs.sendall(b"Hello")
    # Fewer than there is room for: the others go to the buffer, as far as it goes.
    assert receive_block(ours.fileno(), block, 1, buffer) == 3
    assert buffer == b"el"
    theirs.shutdown(socket.SHUT_WR)
    assert receive_block(ours.fileno(), block, 1, buffer) == 2
    assert receive_block(ours.fileno(), block, 1, buffer) == 0
    assert block.take() == b"Hello"


def test_receive_block_needs_room(pair: Pair) -> None:
    with pytest.raises(IndexError, match="octets outside of the block"):
        receive_block(pair[0].fileno(), Block(), 1, bytearray(8))


def test_receive_block_raises_on_a_reset(pair: Pair) -> None:
    ours, theirs = pair
    block = Block()
    block.reserve(1)
    reset(theirs)
    with pytest.raises(ConnectionResetError):
        receive_block(ours.fileno(), block, 1, bytearray(8))


@pytest.mark.parametrize("chunks", [["Hello"], ["He", b"ll", "o"]])
def test_send_chunks_takes_text_of_ascii(pair: Pair, chunks: list[bytes | str]) -> None:
    ours, theirs = pair
    assert send_chunks(ours.fileno(), chunks, 1) == 4
    assert theirs.recv(100) == b"ello"


def test_send_chunks_takes_no_other_text(pair: Pair) -> None:
    with pytest.raises((TypeError, UnicodeEncodeError)):
        send_chunks(pair[0].fileno(), ["é"], 0)


def test_monotonic_is_the_clock_of_the_standard_library() -> None:
    before = time.monotonic()
    assert before <= monotonic() <= time.monotonic()


def test_send_chunks(pair: Pair) -> None:
    ours, theirs = pair
    assert send_chunks(ours.fileno(), [b"Hello"], 0) == 5
    assert theirs.recv(100) == b"Hello"
    assert send_chunks(ours.fileno(), [b"Hel", b"lo", b"", b"!"], 0) == 6
    assert theirs.recv(100) == b"Hello!"


@pytest.mark.parametrize("chunks", [[b"Hello"], [b"Hello", b"you"], [b"Hello", b"", b"you"]])
@pytest.mark.parametrize("offset", [1, 4, 5])
def test_send_chunks_leaves_the_offset_out(pair: Pair, chunks: list[bytes], offset: int) -> None:
    ours, theirs = pair
    rest = b"".join(chunks)[offset:]
    assert send_chunks(ours.fileno(), chunks, offset) == len(rest)
    theirs.settimeout(0)
    assert rest == b"" or theirs.recv(100) == rest
    assert chunks[0] == b"Hello"


def test_send_chunks_sends_many_in_one_call(pair: Pair) -> None:
    ours, theirs = pair
    chunks = [b"%03d" % number for number in range(200)]
    sent = send_chunks(ours.fileno(), chunks, 0)
    # How many go out in one system call is bounded; what goes out is the first of them.
    assert 3 * 16 <= sent < 600
    assert sent % 3 == 0
    assert theirs.recv(1000) == b"".join(chunks)[:sent]


def test_send_chunks_sends_in_part_and_then_nothing(pair: Pair) -> None:
    ours, _ = pair
    chunk = bytes(1024 * 1024)
    sent = 0
    while True:
        count = send_chunks(ours.fileno(), [chunk, chunk], sent)
        if count == -1:
            break
        assert count > 0
        sent += count
    assert 0 < sent < len(chunk)


def test_send_chunks_raises_when_the_peer_is_gone(pair: Pair) -> None:
    ours, theirs = pair
    reset(theirs)
    with pytest.raises(ConnectionResetError):
        send_chunks(ours.fileno(), [b"Hello"], 0)
    for chunks in ([b"Hello"], [b"Hello", b"you"]):
        with pytest.raises(BrokenPipeError):
            send_chunks(ours.fileno(), chunks, 0)


def test_nothing_blocks_on_a_blocking_descriptor_of_gevent(pair: Pair) -> None:
    # gevent's sockets never block underneath, whatever their timeout says.
    _, theirs = pair
    assert not os.get_blocking(theirs.fileno())
    assert receive_into(theirs.fileno(), bytearray(8)) == -1


def test_parent_of() -> None:
    main = getcurrent()
    child = greenlet(lambda: None)
    assert main.parent is None
    assert parent_of(main) is None
    assert parent_of(child) is main
    assert parent_of(gevent.spawn(lambda: None)) is gevent.get_hub()
    before = sys.getrefcount(main)
    for _ in range(1000):
        parent_of(child)
    assert sys.getrefcount(main) == before
    for thing in (None, 1, greenlet):
        with pytest.raises(TypeError, match="only greenlets have a parent, not "):
            parent_of(thing)


def test_switch_goes_there_and_comes_back() -> None:
    seen = []

    def run() -> None:
        seen.append(1)
        switch(getcurrent().parent)
        seen.append(2)

    other = greenlet(run)
    switch(other)
    assert seen == [1]
    switch(other)
    assert seen == [1, 2]
    assert other.dead


def test_switch_lets_exceptions_through() -> None:
    def run() -> None:
        raise LookupError("there")

    with pytest.raises(LookupError, match="there"):
        switch(greenlet(run))


def test_switch_to_a_dead_greenlet_returns() -> None:
    other = greenlet(lambda: None)
    switch(other)
    assert other.dead
    switch(other)


def test_switch_receives_what_is_thrown() -> None:
    caught = []

    def run() -> None:
        try:
            switch(getcurrent().parent)
        except ValueError as error:
            caught.append(error)

    other = greenlet(run)
    switch(other)
    other.throw(ValueError("thrown"))
    assert [str(error) for error in caught] == ["thrown"]


def test_switch_from_a_greenlet_to_the_hub_and_back() -> None:
    hub = gevent.get_hub()
    woken = []

    def run() -> None:
        hub.loop.run_callback(switch, getcurrent())
        switch(hub)
        woken.append(True)

    gevent.spawn(run).get(timeout=10)
    assert woken == [True]


def test_switch_keeps_no_reference() -> None:
    def run() -> None:
        try:
            while True:
                switch(getcurrent().parent)
        except GreenletExit:
            ended.append(True)

    ended: list[bool] = []
    other = greenlet(run)
    for _ in range(10):
        switch(other)
    del other
    assert ended == [True]


@pytest.mark.parametrize("thing", [None, 1, object()])
def test_switch_refuses_what_is_no_greenlet(thing: object) -> None:
    with pytest.raises((TypeError, AttributeError)):
        switch(thing)
