"""The arguments that every echo server here takes: --port, --compress, and switches of its own."""

from __future__ import annotations

import argparse
import sys


def read(doc: str, *, no_compression: str = "", **switches: str) -> argparse.Namespace:
    """Read the command line.

    Args:
        doc: what the server is, for --help.
        no_compression: why it cannot do permessage-deflate; --compress then ends the program.
        switches: further flags, each with its help.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--compress", action="store_true", help="accept permessage-deflate")
    for name, text in switches.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)
    arguments = parser.parse_args()
    if arguments.compress and no_compression:
        sys.exit(no_compression)
    return arguments
