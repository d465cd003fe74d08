"""The command line, one file per subcommand."""

from __future__ import annotations

import sys

from rayprune.cli.refusals import missing_package


def main() -> None:
    """Run ``rayprune`` with the process's arguments, and leave with its exit code."""
    try:
        from rayprune.cli.app import claim_stdout, run
    except ModuleNotFoundError as error:
        sys.stderr.write(missing_package(error) + "\n")
        sys.exit(2)
    arguments = sys.argv[1:]
    stdout = claim_stdout() if "--json" in arguments else sys.stdout
    sys.exit(run(arguments, stdout))
