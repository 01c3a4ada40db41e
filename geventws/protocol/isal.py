"""ISA-L, a faster DEFLATE, where the package isal is installed (the extra `fast`).

It takes a third of zlib's time for a kilobyte of JSON and an eighth for 64 of them, and makes them a
tenth larger (docs/performance.md, Compression). It only compresses: what peers send is inflated by
zlib in any case, which is faster for small messages, and has met more hostile data than anything.
"""

from __future__ import annotations

from typing import Any

__all__ = ["DEFLATE", "MOST_LEVEL", "isal_zlib"]

#: The module that stands for zlib, or None.
isal_zlib: Any = None
try:
    from isal import isal_zlib as _installed
except ImportError:
    pass
else:
    isal_zlib = _installed

#: "isal" or "zlib": what compresses messages in this process, at levels up to `MOST_LEVEL`.
DEFLATE = "zlib" if isal_zlib is None else "isal"

#: Who asks for a higher level wants small messages: that is zlib's strength.
MOST_LEVEL = 6
