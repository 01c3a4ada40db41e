"""The client under test: opens the suite's cases one after the other, and echoes what comes.

    echo_client.py ADDRESS AGENT COUNT

As its fuzzingserver wants it: each case is a connection of its own, and one more ends the run.
"""

from __future__ import annotations

import sys

from geventws import Compression, ConnectionClosed, InvalidHandshake, connect

OPTIONS = {
    # What browsers offer.
    "compression": Compression(window_bits=15),
    "max_message_size": None,
    "max_fragments": None,
    # A case lasts as long as it lasts.
    "ping_interval": None,
    "open_timeout": 60,
    "proxy": None,
}


def run_case(uri: str) -> None:
    try:
        ws = connect(uri, **OPTIONS)
    except InvalidHandshake as error:
        # The verdict says that it was never opened; this says why.
        print(f"{uri}: {error}", flush=True)
        return
    try:
        for message in ws:
            ws.send(message)
    except ConnectionClosed:
        pass
    finally:
        ws.close()


def main(address: str, agent: str, count: str) -> None:
    for number in range(1, int(count) + 1):
        run_case(f"ws://{address}/runCase?case={number}&agent={agent}")
    run_case(f"ws://{address}/updateReports?agent={agent}")


if __name__ == "__main__":
    main(*sys.argv[1:])
