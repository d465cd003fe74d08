"""A stand-in for W&B's server on the loopback interface: no part of W&B, and no proof of it.

It answers the few GraphQL operations that starting a run and saving a report ask for, keeps the
rows that are streamed to it at the lines that they are sent for, and notes what came.
"""

import http.server
import json
import threading

VIEWER = {"id": "VXNlcjox", "username": "someone", "entity": "someone", "flags": "{}"}
PROJECT = {
    "id": "UHJvamVjdDox",
    "internalId": "UHJvamVjdDox",
    "name": "rayprune",
    "createdAt": "2026-01-01T00:00:00",
    "isBenchmark": False,
    "user": None,
}
ENTITY = {"id": "RW50aXR5OjE=", "name": "someone", "projects": {"edges": []}}
BUCKET = {
    "id": "UnVuOjE=",
    "name": "run",
    "displayName": "run",
    "sweepName": None,
    "historyLineCount": 0,
    "project": {"id": PROJECT["id"], "name": "rayprune", "entity": ENTITY},
}
ANSWERS = {
    "Viewer": {"viewer": {**VIEWER, "teams": {"edges": []}, "entities": {"edges": []}}},
    "GetViewer": {"viewer": VIEWER},
    "GetDefaultEntity": {"viewer": VIEWER},
    "ProjectInternalId": {"project": PROJECT},
    "GetProjects": {
        "models": {
            "edges": [{"node": {**PROJECT, "entityName": "someone"}, "cursor": ""}],
            "pageInfo": {"endCursor": None, "hasNextPage": False},
        },
        "project": PROJECT,
    },
    "CreateRunFiles": {"createRunFiles": {"runID": BUCKET["id"], "uploadHeaders": [], "files": []}},
}


def without_account(monkeypatch, folder):
    """No key, no settings and no caches of whoever runs the tests."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(folder / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(folder / "config"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


class StandIn(http.server.ThreadingHTTPServer):
    """Serves on ``url`` while it is entered; ``refuse`` answers 401, as to a wrong key."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.refuse = False
        self.asked: list[tuple[str, dict]] = []
        """GraphQL operations: name and variables."""
        self.history: dict[str, dict[int, dict]] = {}
        """Run -> line of its history -> row: a line that is sent twice is the later one."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Go away: from now on connections are refused."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that goes away in mid-request is no matter."""


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self._send({})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.refuse:
            self._send({"errors": [{"message": "invalid API key"}]}, 401)
        elif self.path == "/graphql":
            asked = json.loads(body)
            name = asked.get("operationName") or _operation(asked["query"])
            variables = asked.get("variables") or {}
            self.server.asked.append((name, variables))
            self._send({"data": self._answer(name, variables)})
        else:
            if self.path.endswith("/file_stream"):
                self._keep(self.path.split("/")[-2], json.loads(body))
            self._send({})

    def _keep(self, run, streamed):
        part = (streamed.get("files") or {}).get("wandb-history.jsonl")
        if part:
            rows = enumerate(map(json.loads, part["content"]), part["offset"])
            self.server.history.setdefault(run, {}).update(rows)

    def _answer(self, name, variables):
        if name in ("upsertView", "UpsertView"):
            view = {**variables, "id": "Vmlldzox", "project": PROJECT, "user": VIEWER}
            return {"upsertView": {"view": view, "inserted": True}}
        if name == "UpsertBucket":
            bucket = {**BUCKET, "name": variables["name"], "displayName": variables["displayName"]}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if name == "RunResumeStatus":
            return {"model": {"bucket": self._held(variables["name"])}}
        return ANSWERS.get(name, {})

    def _held(self, run):
        """Return what the server has of a run, or None."""
        lines = self.server.history.get(run)
        if not lines:
            return None
        counts = {"historyLineCount": len(lines), "eventsLineCount": 0, "logLineCount": 0}
        tails = {"historyTail": json.dumps([json.dumps(lines[max(lines)])]), "eventsTail": "[]"}
        held = {"summaryMetrics": "{}", "config": "{}", "tags": [], "wandbConfig": '{"t": 1}'}
        return {**BUCKET, "name": run, "displayName": run, **counts, **tails, **held}

    def _send(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Not on the tests' standard error."""


def _operation(query):
    """Return the operation's name where the client leaves it out."""
    words = query.replace("(", " ").replace("{", " ").split()
    return words[1] if len(words) > 1 else ""
