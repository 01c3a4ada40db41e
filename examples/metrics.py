"""An echo server whose counters Prometheus reads, from a port of their own: http://127.0.0.1:9100/metrics

python examples/metrics.py [port] [port of the metrics]
"""

import dataclasses
import logging
import sys

from gevent.pywsgi import WSGIServer

from geventws import WebSocketServer


def echo(ws):
    for message in ws:
        ws.send(message)


def exposition(server):
    """Prometheus's text format: a line for the type, then `name{label="value"} number`.

    By hand, because the counts are kept already: a client library would keep them a second time.
    """
    lines = ["# TYPE geventws_connections gauge", f"geventws_connections {len(server.connections)}"]
    for field in dataclasses.fields(server.stats):
        name, value = f"geventws_{field.name}_total", getattr(server.stats, field.name)
        lines.append(f"# TYPE {name} counter")
        if isinstance(value, dict):
            # closes, by their cause; refusals, by their status.
            label = "cause" if field.name == "closes" else "status"
            lines += [f'{name}{{{label}="{key}"}} {count}' for key, count in value.items()]
        else:
            lines.append(f"{name} {value}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    # One line for each connection that reached a limit, broke a rule or had a handler that failed.
    logging.basicConfig(level=logging.INFO)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8888
    server = WebSocketServer(("127.0.0.1", port), echo)

    def metrics(environ, start_response):
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        start_response("200 OK", [("Content-Type", "text/plain; version=0.0.4")])
        return [exposition(server).encode()]

    metrics_port = int(sys.argv[2]) if len(sys.argv) > 2 else 9100
    # On the loopback interface only: what it says is nobody else's business.
    http = WSGIServer(("127.0.0.1", metrics_port), metrics, log=None, environ={"SERVER_NAME": "localhost"})
    http.start()
    server.start()
    print(f"metrics on http://127.0.0.1:{http.server_port}/metrics")
    print(f"listening on ws://127.0.0.1:{server.address[1]}", flush=True)
    server.serve_forever()
