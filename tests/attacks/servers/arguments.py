"""The command line that every server here takes."""

from __future__ import annotations

import argparse


def read(doc: str) -> argparse.Namespace:
    """Read --port, --certfile and --keyfile."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certfile", help="speak TLS with this certificate")
    parser.add_argument("--keyfile", help="its key")
    return parser.parse_args()
