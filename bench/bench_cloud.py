"""What a raw GET costs: muster's cloud, the SDK's own pipeline and requests, side by side.

    python bench/bench_cloud.py [--calls N]

The server is another process on loopback, over HTTPS, without latency. CPU is that of the client.
The figures go to the terminal and to bench/out/cloud.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import requests  # noqa: E402
import trustme  # noqa: E402
from azure.core.credentials import AccessToken  # noqa: E402
from azure.core.rest import HttpRequest  # noqa: E402
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient  # noqa: E402

from snapshots.cloud import Limits, Place, Plane, open_cloud  # noqa: E402

SUB = "11111111-1111-1111-1111-111111111111"
PATH = f"/subscriptions/{SUB}/providers/Microsoft.CognitiveServices/accounts/a/deployments"
VERSION = "2025-09-01"


class Tokens:
    """A credential without a network."""

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        """A token."""
        return AccessToken("token", 4_000_000_000)


def serve(folder: str, pipe: Connection) -> None:
    """Answer every GET with a page of ten deployments."""
    item = {
        "id": f"{PATH}/d",
        "name": "d",
        "sku": {"name": "Standard", "capacity": 10},
        "properties": {"model": {"format": "OpenAI", "name": "gpt-4o", "version": "2024-08-06"}},
    }
    page = json.dumps({"value": [item] * 10}).encode()
    ca = trustme.CA()
    ca.cert_pem.write_to_path(f"{folder}/ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def do_GET(self) -> None:
            body = page
            if self.path.startswith("/metadata/"):
                login = {"loginEndpoint": url, "audiences": ["https://arm.test"]}
                body = json.dumps({"authentication": login, "resourceManager": url}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("x-ms-ratelimit-remaining-subscription-reads", "1000000")
            self.end_headers()
            self.wfile.write(body)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    url = f"https://localhost:{http.server_address[1]}"
    pipe.send(url)
    http.serve_forever()


def measure(call: Callable[[], object], calls: int) -> tuple[float, float]:
    """Calls a second, and milliseconds of CPU for each call: the better of three rounds."""
    for _ in range(50):
        call()
    best: tuple[float, float] = (0.0, 1e9)
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(calls):
            call()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        best = (max(best[0], calls / wall), min(best[1], cpu / calls * 1000))
    return best


def main() -> None:
    """Print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=600)
    calls: int = parser.parse_args().calls
    with tempfile.TemporaryDirectory() as folder:
        here, there = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(folder, there), daemon=True
        )
        server.start()
        url = here.recv()
        ca = f"{folder}/ca.pem"
        cloud = open_cloud(
            environment=url, ca_file=ca, credential=Tokens(), limits=Limits(reads=(1e6, 1e6))
        )
        sdk = CognitiveServicesManagementClient(
            Tokens(), SUB, base_url=url, connection_verify=ca, credential_scopes=["x"]
        )
        session = requests.Session()
        where = f"{url}{PATH}?api-version={VERSION}"
        place = Place(Plane.ARM, subscription=SUB)
        ways: dict[str, Callable[[], object]] = {
            "requests": lambda: session.get(
                where, headers={"authorization": "Bearer t"}, verify=ca
            ).json(),
            "SDK, raw _send_request": lambda: sdk._send_request(  # noqa: SLF001
                HttpRequest("GET", where)
            ).json(),
            "SDK, typed": lambda: list(sdk.deployments.list("g", "a")),
            "muster's cloud": lambda: (
                cloud.get(place, PATH, params={"api-version": VERSION}, kind="deployment").body
            ),
        }
        rows = {name: measure(call, calls) for name, call in ways.items()}
        cloud.close()
        sdk.close()
        session.close()
        server.terminate()
        server.join(5)
    print(f"{'way':26} {'calls/s':>8} {'CPU ms/call':>12}")
    for name, (rate, cpu) in rows.items():
        print(f"{name:26} {rate:8.0f} {cpu:12.2f}")
    out = ROOT / "bench" / "out"
    out.mkdir(parents=True, exist_ok=True)
    figures = {
        "python": platform.python_version(),
        "calls": calls,
        "rows": [
            {"way": name, "calls_per_second": rate, "cpu_ms_per_call": cpu}
            for name, (rate, cpu) in rows.items()
        ],
    }
    (out / "cloud.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
