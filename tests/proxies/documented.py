"""The files that docs/deployment.md shows, changed for the tests in addresses and paths only.

The document is the one source: a change that no longer fits it is a failure.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from proxies.programs import running

__all__ = ["FILES", "FRAGMENTS", "adapt", "front"]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "deployment.md"

_BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)

#: The files, by the path that stands in their first line.
FILES = {text.partition("\n")[0].removeprefix("# "): text for _, text in _BLOCKS if text.startswith("# /")}

#: The rest: (language, text).
FRAGMENTS = [(language, text) for language, text in _BLOCKS if not text.startswith("# /")]


def adapt(name: str, changes: Mapping[str, str]) -> str:
    """Return a file with changes; each of them must find its text exactly once."""
    text = FILES[name]
    for old, new in changes.items():
        assert text.count(old) == 1, f"docs/deployment.md, {name}: {old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


NGINX = """
daemon off;
# One process, so that nothing is left when it is killed.
master_process off;
{user}
error_log stderr;
pid {directory}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/chat.conf;
}}
"""


@contextlib.contextmanager
def front(
    program: str,
    backend: str,
    directory: Path,
    certificate: Path,
    *,
    seconds: int | None = None,
    changes: Mapping[str, str] | None = None,
) -> Iterator[dict[str, int]]:
    """Run nginx or haproxy as documented; gives its ports: "plain", "tls", and "redirect".

    The documents show no server without TLS: "plain" is one more port of the same.
    /denied is forbidden by the proxy, so that whoever gets there has gone around it.

    Args:
        program: "nginx" or "haproxy".
        backend: host:port, or the path of a Unix socket.
        directory: for its files.
        certificate: a file with certificate and key.
        seconds: instead of the documented timeouts of a tunnel.
        changes: further ones.
    """

    def prepare(ports: list[int]) -> list[str]:
        redirect, plain, tls = (f"127.0.0.1:{port}" for port in ports)
        if program == "nginx":
            text = adapt(
                "/etc/nginx/conf.d/chat.conf",
                {
                    "server 127.0.0.1:8888;": f"server {'unix:' * backend.startswith('/')}{backend};",
                    "listen 80;": f"listen {redirect};",
                    "listen 443 ssl;": f"listen {plain}; listen {tls} ssl;",
                    "/etc/ssl/chat.example.org.pem": str(certificate),
                    "/etc/ssl/chat.example.org.key": str(certificate),
                    "    location / {": "    location /denied { return 403; }\n    location / {",
                }
                | (
                    {
                        "proxy_read_timeout 60s": f"proxy_read_timeout {seconds}s",
                        "proxy_send_timeout 60s": f"proxy_send_timeout {seconds}s",
                    }
                    if seconds
                    else {}
                )
                | dict(changes or {}),
            )
            (directory / "chat.conf").write_text(text, encoding="ascii")
            user = "user root root;" if os.geteuid() == 0 else ""
            main = directory / "nginx.conf"
            main.write_text(NGINX.format(user=user, directory=directory), encoding="ascii")
            return ["-p", str(directory), "-c", str(main), "-e", "stderr"]
        deny = "    http-request deny deny_status 403 if { path_beg /denied }\n"
        text = adapt(
            "/etc/haproxy/haproxy.cfg",
            {
                "server chat1 127.0.0.1:8888": f"server chat1 {'unix@' * backend.startswith('/')}{backend}",
                "bind :80": f"bind {redirect}",
                # Or it would not start without root's right to as many descriptors.
                "maxconn 20000": "maxconn 200",
                "    bind :443 ssl crt /etc/haproxy/certs/chat.example.org.pem alpn http/1.1\n": (
                    f"    bind {plain}\n    bind {tls} ssl crt {certificate} alpn http/1.1\n{deny}"
                ),
            }
            | ({"timeout tunnel 60s": f"timeout tunnel {seconds}s"} if seconds else {})
            | dict(changes or {}),
        )
        configuration = directory / "haproxy.cfg"
        configuration.write_text(text, encoding="ascii")
        return ["-db", "-f", str(configuration)]

    with running(program, directory, 3, prepare) as ports:
        yield dict(zip(("redirect", "plain", "tls"), ports, strict=True))
