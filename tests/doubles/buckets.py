"""A bucket on this machine: moto's server, behind the endpoint that pyarrow reads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "bucket"


class Gate:
    """Passes requests on; from the n-th that changes something it holds them back for good.

    So a writer can be killed while it waits for that one, which the store then never gets.
    """

    def __init__(self, app: object) -> None:
        self._app = app
        self._lock = threading.Lock()
        self.count, self.at = 0, None
        self.denies = False
        self.reached, self.opened = threading.Event(), threading.Event()

    def close_at(self, number: int) -> None:
        """Hold back from the n-th request on, counted from now."""
        self.count, self.at = 0, number
        self.reached.clear()
        self.opened.clear()

    def open(self) -> None:
        """Refuse what is held back, pass on what comes."""
        self.at, self.denies = None, False
        self.opened.set()

    def __call__(self, environ, start_response):
        if environ["REQUEST_METHOD"] != "GET" and environ["REQUEST_METHOD"] != "HEAD":
            with self._lock:
                self.count += 1
                held = self.at is not None and self.count >= self.at
            if self.denies:
                body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
                length = str(len(body))
                headers = [("Content-Type", "application/xml"), ("Content-Length", length)]
                start_response("403 Forbidden", headers)
                return [body]
            if held:
                self.reached.set()
                self.opened.wait(300)
                start_response("503 Service Unavailable", [("Content-Length", "0")])
                return [b""]
        return self._app(environ, start_response)


@dataclass(frozen=True)
class Store:
    """A running server with an empty bucket."""

    endpoint: str
    client: object
    gate: Gate

    def url(self, name: str) -> str:
        """Return the URL of a directory in the bucket."""
        return f"s3://{BUCKET}/{name}"

    def empty(self) -> None:
        """Delete all that is in the bucket."""
        self.gate.open()
        whole = boto3.resource("s3", endpoint_url=self.endpoint, region_name="us-east-1")
        whole.Bucket(BUCKET).objects.all().delete()

    def lose(self) -> None:
        """Delete the bucket itself."""
        self.empty()
        self.client.delete_bucket(Bucket=BUCKET)

    def tree(self, name: str) -> dict[str, bytes]:
        """Return path below a directory -> content; not through pyarrow."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=f"{name}/"
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {
            key.removeprefix(f"{name}/"): self.client.get_object(Bucket=BUCKET, Key=key)[
                "Body"
            ].read()
            for key in keys
            if not key.endswith("/")  # pyarrow's stand-in for an empty directory
        }


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Serve, and set the environment that finds it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    gate = Gate(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, gate, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    for key, value in environment(endpoint).items():
        monkeypatch.setenv(key, value)
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    try:
        yield Store(endpoint, client, gate)
    finally:
        gate.open()
        client.close()
        server.shutdown()
        server.server_close()
        thread.join()


def environment(endpoint: str) -> dict[str, str]:
    """Return what a process needs to find the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key-of-the-tests",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
