"""The command line, one file per subcommand."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``rayprune`` with the process's arguments, and leave with its exit code."""
    from rayprune.cli.app import claim_stdout, run

    arguments = sys.argv[1:]
    stdout = claim_stdout() if "--json" in arguments else sys.stdout
    sys.exit(run(arguments, stdout))
