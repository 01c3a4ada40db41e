"""Runs site_under_test on a server that has no command of its own; prints its port."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading

parser = argparse.ArgumentParser()
parser.add_argument("server", choices=["pywsgi", "handler", "werkzeug"])
parser.add_argument("--patched", action="store_true")
parser.add_argument("--tls", nargs=2, metavar=("CHAIN", "KEY"))
parser.add_argument("--shutdown", action="store_true", help="on SIGTERM, call app.shutdown()")
parser.add_argument("--app", default="site_under_test:app")
arguments = parser.parse_args()

if arguments.patched:
    from gevent import monkey

    monkey.patch_all()

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
module, _, name = arguments.app.partition(":")
app = getattr(__import__(module), name)

logging.basicConfig(stream=sys.stderr, level=logging.INFO)

if arguments.server == "werkzeug":
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").addHandler(logging.FileHandler(os.environ["ACCESS"]))
    tls = None
    if arguments.tls:
        import ssl

        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*arguments.tls)
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=tls)
    print(f"port {server.server_port}", flush=True)
    if arguments.shutdown:

        def stop():
            app.shutdown()
            server.shutdown()

        if arguments.patched:
            import gevent

            gevent.signal_handler(signal.SIGTERM, stop)
        else:
            signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop).start())
    server.serve_forever()
else:
    import gevent
    from gevent.pywsgi import WSGIServer

    options = {"log": open(os.environ["ACCESS"], "w", buffering=1)}  # noqa: SIM115
    if arguments.server == "handler":
        from geventws.pywsgi import WebSocketHandler

        options["handler_class"] = WebSocketHandler
    if arguments.tls:
        options["certfile"], options["keyfile"] = arguments.tls
    server = WSGIServer(("127.0.0.1", 0), app, **options)
    server.start()
    print(f"port {server.server_port}", flush=True)

    def stop():
        server.stop()
        if arguments.shutdown:
            app.shutdown()

    gevent.signal_handler(signal.SIGTERM, stop)
    server.serve_forever()
    # stop() does not wait for greenlets without a pool.
    gevent.wait(timeout=5)
    options["log"].close()
