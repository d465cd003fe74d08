"""Words a package that isn't installed; imports nothing that may be missing itself."""

from __future__ import annotations

from rayprune.extras import extra_of, pip_line


def missing_package(error: ModuleNotFoundError) -> str:
    """Return what to install, and where.

    >>> missing_package(ModuleNotFoundError("No module named 'ray.tune'", name="ray.tune"))
    "'ray' is not installed here: pip install 'rayprune[rllib]'. In a job, here is the image of ..."
    """
    module = (error.name or str(error)).partition(".")[0]
    extra = extra_of(module)
    # The name of a module is the package's often enough, and where it isn't it is a place to start.
    line = pip_line(extra) if extra else f"pip install {module}"
    return (
        f"{module!r} is not installed here: {line}. In a job, here is the image of the cluster's "
        "nodes."
    )
