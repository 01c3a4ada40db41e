"""Octet strings for the translated Autobahn testsuite (copied into the package as `_py3`).

In Python 2 the suite's payloads are `str` octets.  The translated suite keeps them in `str`, one
code point 0..255 per octet ("latin-1 strings"); autobahn on Python 3 wants `bytes`.  Everything
that crosses that line is converted here.
"""

import binascii
import codecs
import importlib
import os
import sys
import types

import autobahn.websocket.utf8validator
import autobahn.websocket.xormasker

HERE = os.path.dirname(os.path.abspath(__file__))


def to_b(x):
    return x.encode("latin-1") if isinstance(x, str) else x


def to_s(x):
    return x.decode("latin-1") if isinstance(x, (bytes, bytearray)) else x


def hexs(x):
    return binascii.b2a_hex(to_b(x)).decode("ascii")


def text(x):
    return to_b(x).decode("utf-8", "replace")


def clean(result):
    """Make a case result fit for JSON: what were octets in Python 2 becomes text."""
    for key in ("httpRequest", "httpResponse", "localCloseReason", "description", "expectation"):
        if isinstance(result[key], (str, bytes)):
            result[key] = text(result[key])
    return result


class Utf8Validator:
    """autobahn's validator on top of CPython's (it fails as early as autobahn's own table)."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.decoder, self.i = codecs.getincrementaldecoder("utf-8")(), 0

    def validate(self, data):
        data, held = to_b(data), len(self.decoder.getstate()[0])
        try:
            self.decoder.decode(data)
        except UnicodeDecodeError as e:
            at = (e.start if e.reason == "invalid start byte" else e.end) - held
            return False, False, at, self.i + at
        self.i += len(data)
        return True, not self.decoder.getstate()[0], len(data), self.i


class XorMasker:
    """autobahn's masker without a loop over octets."""

    def __init__(self, mask, length=None):
        self.mask, self.ptr = bytes(mask), 0

    def pointer(self):
        return self.ptr

    def reset(self):
        self.ptr = 0

    def process(self, data):
        n, k = len(data), self.ptr & 3
        self.ptr += n
        key = ((self.mask[k:] + self.mask[:k]) * (n // 4 + 1))[:n]
        both = int.from_bytes(data, "little") ^ int.from_bytes(key, "little")
        return both.to_bytes(n, "little")


# before autobahn.websocket.protocol takes the names
autobahn.websocket.utf8validator.Utf8Validator = Utf8Validator
autobahn.websocket.xormasker.createXorMasker = XorMasker


class Reason(bytes):
    """A close reason: autobahn decodes it even when it has just found it invalid."""

    def decode(self, *args):
        return bytes(self).decode("utf-8", "replace")


class Protocol:
    """Base class put under the suite's FuzzingProtocol, above autobahn's protocol."""

    def sendFrame(
        self, opcode, payload="", fin=True, rsv=0, mask=None, payload_len=None, chopsize=None, sync=False
    ):
        payload = to_b(payload)
        if payload_len is not None:  # autobahn 0.10.9 repeats the payload with a float here
            times, rest = divmod(payload_len, len(payload))
            payload = payload * times + payload[:rest]
        super().sendFrame(opcode, payload, fin, rsv, to_b(mask), None, chopsize, sync)

    def sendMessage(self, payload, *args, **kw):
        super().sendMessage(to_b(payload), *args, **kw)

    def sendMessageFrameData(self, payload, sync=False):
        return super().sendMessageFrameData(to_b(payload), sync)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, to_b(reasonUtf8), isReply)

    def onCloseFrame(self, code, reasonRaw):
        return super().onCloseFrame(code, reasonRaw and Reason(reasonRaw))

    def _onMessage(self, payload, isBinary):
        self.onMessage(to_s(payload), isBinary)

    def _onPong(self, payload):
        self.onPong(to_s(payload))


def _stand_in(name, **attrs):
    """Put an empty module in place of one that is not installed and not needed here."""
    try:
        return importlib.import_module(name)
    except ImportError:
        module = types.ModuleType(name)
        module.__dict__.update(attrs)
        sys.modules[name] = module
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(importlib.import_module(parent), leaf, module)


_stand_in("pkg_resources", resource_filename=lambda package, path: os.path.join(HERE, path))
_stand_in("twisted.internet.ssl", ClientContextFactory=lambda: None)  # ws:// needs no pyOpenSSL
