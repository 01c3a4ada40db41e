"""An echo server that speaks TLS: wss:// instead of ws://.

python examples/tls.py certificate.pem key.pem [port]

A certificate to try it with, which clients have to be told to trust:

openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out certificate.pem
"""

import sys

from geventws import WebSocketServer


def echo(ws):
    for message in ws:
        ws.send(message)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    certfile, keyfile = sys.argv[1:3]
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 8443
    # For anything else, such as certificates of clients, make an ssl.SSLContext and give it as `ssl_context`.
    server = WebSocketServer(("127.0.0.1", port), echo, certfile=certfile, keyfile=keyfile)
    server.start()
    print(f"listening on wss://127.0.0.1:{server.address[1]}", flush=True)
    server.serve_forever()
