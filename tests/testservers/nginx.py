"""nginx as a proxy that speaks TLS."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import ClassVar, Final

from testservers.base import Server, find_program

__all__ = ["NginxServer"]

_CONFIG: Final = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream behind {{ server 127.0.0.1:{behind}; keepalive 4; }}
    server {{
        listen {host}:{port} ssl;
        ssl_certificate {folder}/server.crt;
        ssl_certificate_key {folder}/server.key;
        location / {{
            {location}
        }}
    }}
}}
"""


class NginxServer(Server):
    """nginx with TLS on one side, and on the other a server that it asks by plain http.

    Args:
        folder: For its files.
        behind: The port of the server that it asks.
        location: What its configuration says of the proxy; by itself, nothing but where it is.
        port: Where it listens; a free port by itself.
    """

    programs: ClassVar[dict[str, str]] = {"nginx": "nginx-light", "openssl": "openssl"}

    def __init__(self, folder: Path, behind: int, location: str | None = None, *, port: int | None = None) -> None:
        super().__init__(folder, port=port)
        self._behind: Final = behind
        self._location: Final = location or f"proxy_pass http://127.0.0.1:{behind};"

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def prepare(self) -> None:
        if not (self.folder / "server.crt").exists():
            files = ("-keyout", f"{self.folder}/server.key", "-out", f"{self.folder}/server.crt")
            key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
            self.run_tool("openssl", "req", "-x509", *key, *files, "-days", "30", "-subj", "/CN=localhost")
        config = _CONFIG.format(
            folder=self.folder, host=self.host, port=self.port, behind=self._behind, location=self._location
        )
        self.write("nginx.conf", config)

    def command_line(self) -> list[str]:
        return [
            find_program("nginx") or "nginx",
            "-p",
            str(self.folder),
            "-c",
            f"{self.folder}/nginx.conf",
            "-e",
            "stderr",
        ]

    def trust(self) -> ssl.SSLContext:
        """Give a context that does not ask who the server is."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def answers(self) -> bool:
        with socket.create_connection((self.host, self.port), 2) as plain, self.trust().wrap_socket(plain):
            return True
