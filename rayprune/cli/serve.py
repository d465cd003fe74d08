"""``rayprune serve``: exported policies behind HTTP."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from rayprune.cli.options import Address, AsJson, Debug, tell
from rayprune.extras import require

_SHOWN = 12
"""Policies that are listed one by one."""
_LONGEST = 2_000
"""Characters of an observation that are shown."""


def serve(
    artifacts: Annotated[
        list[str],
        typer.Argument(
            metavar="ARTIFACT...",
            help="Exported files or their URLs, each FILE or NAME=FILE; a file's own name is its "
            "policy's otherwise.",
            show_default=False,
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 for all of this machine's networks.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that act.")] = 1,
    ingresses: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes that take requests. With more than one, requests of a session need "
            "the header x-session-id.",
        ),
    ] = 1,
    batch: Annotated[
        int,
        typer.Option(
            min=1, help="The most requests of a policy that are answered together; at most 1024."
        ),
    ] = 32,
    wait: Annotated[
        float,
        typer.Option(min=0.0, metavar="MS", help="How long a request waits for others."),
    ] = 0.0,
    stack: Annotated[
        str,
        typer.Option(
            metavar="exact|always",
            help="exact: each answer is, bit for bit, what the file gives for that observation "
            "alone; always: whole batches, whose last bits may differ.",
        ),
    ] = "exact",
    loaded: Annotated[
        int,
        typer.Option(
            min=1, help="Policies that a replica holds open; the least recently used is closed."
        ),
    ] = 256,
    sessions: Annotated[
        int,
        typer.Option(
            min=1, help="Episodes of recurrent policies held; the least recently used is forgotten."
        ),
    ] = 10_000,
    name: Annotated[str, typer.Option(help="The application's name in Ray Serve.")] = "rayprune",
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Serve exported policies over HTTP, on Ray Serve, until Ctrl-C.

    A request that was taken is answered even if the process that was to act dies meanwhile.

    Example: rayprune serve cartpole.onnx walk=policy.c --port 8000
    """
    require("This command", "serve")
    from rayprune.serve.catalogue import read_catalogue

    # Before Ray is started, which takes seconds.
    catalogue = read_catalogue(artifacts)
    from rayprune.serve.deployment import PolicyDeployment
    from rayprune.serve.server import serving

    deployment = PolicyDeployment(
        replicas=replicas,
        ingresses=ingresses,
        loaded=loaded,
        batch=batch,
        wait_ms=wait,
        stack=stack,  # type: ignore[arg-type]  # it refuses others itself
        sessions=sessions,
    )
    tell(f"Starting {replicas + ingresses} processes for {_policies(len(catalogue))}.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    told: dict[str, Any] = {}
    with serving(deployment, catalogue, host=host, port=port, name=name, address=address) as server:
        # Once more: Ray has put a handler of its own there, which aborts.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            tell(*_lines(catalogue, server.url))
            server.watch()
        except KeyboardInterrupt:
            told = server.told()
            tell("Ending: what was taken is still answered.")
    counts = told.get("counts", {})
    whose = f" by one of {ingresses} ingresses" if ingresses > 1 else ""
    tell(
        f"Served {counts.get('served', 0)} actions{whose}; {counts.get('refused', 0)} requests "
        f"were refused, {counts.get('failed', 0)} failed."
    )
    return {"schema": 1, "url": server.url, "policies": sorted(catalogue), **told}


def _policies(count: int) -> str:
    return "1 policy" if count == 1 else f"{count} policies"


def _lines(catalogue: Mapping[str, Any], url: str) -> Iterator[str]:
    """Yield what a person reads once the policies answer."""
    yield f"Serving at     {url}/policies"
    for held in list(catalogue.values())[:_SHOWN]:
        ports = held.interface
        inputs = ", ".join(f"{port.name} {list(port.shape)}" for port in ports.observations)
        remembers = ", remembers by session" if ports.states else ""
        yield f"{held.name:<15}{held.format}, {inputs}{remembers}"
    if len(catalogue) > _SHOWN:
        yield f"{'':15}and {len(catalogue) - _SHOWN} more"
    yield "Try            " + curl_example(next(iter(catalogue.values())), url)
    yield "Ctrl-C ends it."


def curl_example(policy: Any, url: str) -> str:
    """Return a command line that asks a policy for an action."""
    from rayprune.serve.example import example_body

    to = f"{url}/policies/{policy.name}"
    body = shlex.quote(json.dumps(example_body(policy)))
    if len(body) > _LONGEST:  # an image
        return f"curl -s {to}/example | curl -s {to}/act -d @-"
    return f"curl -s {to}/act -d {body}"
