"""``rayprune submit``: a run, a sweep or a fit as a job on a Ray cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rayprune.cli import completion
from rayprune.cli.options import AsJson, Debug, Overrides, Seed, require_path, tell


def submit(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG",
            autocompletion=completion.configs,
            help="A YAML file or a preset; one with a `search` block is a sweep, one with a `fit` "
            "block a fit.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
    seed: Seed = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help="Where the cluster writes the results: a path that its nodes share, or s3://...",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what is in the directory.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The head's dashboard, such as http://HEAD:8265; default: RAY_API_SERVER_ADDRESS.",
        ),
    ] = None,
    working_dir: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The directory that travels, with CONFIG in it."),
    ] = Path(),
    runtime_env: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ray's further runtime environment in YAML, such as env_vars. "
            "The dashboard shows it: no secrets.",
        ),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Don't follow the job to its end.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> dict[str, Any]:
    """Train, sweep or fit a config as a job on a Ray cluster; follow its log, exit with its code.

    Ctrl-C leaves the job running. A cluster with a token: RAY_AUTH_MODE=token, RAY_AUTH_TOKEN.

    Example: rayprune submit pbt_cartpole --address http://HEAD:8265 --out
    /shared/runs/pbt_cartpole
    """
    from rayprune.jobs.head import check_head, client, head_url, require_job_client
    from rayprune.jobs.package import command_for, make_job, require_lasting
    from rayprune.presets import find_config

    config = find_config(config)
    raw = _checked(config, overrides or (), seed)
    lasting = require_lasting(out)
    if command_for(raw) == "fit":
        require_path(lasting, "fit")
    options = {"set": overrides, "seed": seed, "out": lasting, "resume": resume, "debug": debug}
    job = make_job(config, raw, options, working_dir, runtime_env)
    url = head_url(address)
    require_job_client()
    check_head(url)
    with client(url) as cluster:
        _send(cluster, job)
        told = {"job": job.name, "address": url, "entrypoint": job.entrypoint, "out": lasting}
        tell(f"Job            {job.name}\nResults        {lasting}")
        if no_wait:
            tell(_commands(job.name, url))
            return {**told, "status": "PENDING", "exit_code": 0}
        return {**told, **_follow(cluster, job.name, url)}


def _checked(config: Path, overrides: Any, seed: int | None) -> dict[str, Any]:
    """Return what the file says; refuse what shows without RLlib. The job checks the rest first."""
    from rayprune.config import experiment_faults, load_raw
    from rayprune.errors import ConfigError
    from rayprune.fit.config import fit_faults
    from rayprune.jobs.package import command_for
    from rayprune.search.config import search_faults

    raw, faults = load_raw(config, overrides, seed)
    command = command_for(raw)
    if command == "sweep":
        faults += search_faults(raw["search"])[0]
    elif command == "fit":
        faults += fit_faults(raw["fit"])[0]
    else:
        faults += experiment_faults(raw, check_paths=False)[0]
    if faults:
        raise ConfigError(faults)
    return raw


def _send(cluster: Any, job: Any) -> None:
    from rayprune.errors import ResourceError, first_line

    try:
        cluster.submit_job(
            entrypoint=job.entrypoint,
            submission_id=job.name,
            runtime_env=dict(job.runtime_env),
            metadata={"rayprune": job.name},
        )
    except (RuntimeError, ValueError) as error:
        raise ResourceError(f"The cluster did not take the job: {first_line(error)}.") from error


def _follow(cluster: Any, name: str, url: str) -> dict[str, Any]:
    from rayprune.jobs.follow import Follower

    try:
        details = Follower(cluster, name, _show).to_the_end()
    except KeyboardInterrupt as error:
        told = f"Job {name} goes on without this terminal.\n{_commands(name, url)}"
        raise KeyboardInterrupt(told) from error
    status = details.status.value
    code = 0 if status == "SUCCEEDED" else details.driver_exit_code or 1
    if code:
        tell(f"Job {name} {status.lower()}, exit code {code}.")
        if details.driver_exit_code is None:
            # It never came to its command, so that its log can't say why.
            tell(str(details.message))
    return {"status": status, "exit_code": code, "message": details.message}


def _show(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _commands(name: str, url: str) -> str:
    """Return how to follow and how to stop a job."""
    return "\n".join(
        f"{what:<14} ray job {command} --address {url} {name}"
        for what, command in (("Follow", "logs --follow"), ("Status", "status"), ("Stop", "stop"))
    )
