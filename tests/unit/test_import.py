import subprocess
import sys

import rayprune


def test_importing_rayprune_imports_neither_ray_nor_gymnasium_nor_pydantic():
    code = (
        "import sys, rayprune, rayprune.pruning.measures.counting\n"
        "for name in rayprune.__all__: getattr(rayprune, name)\n"
        "print(sorted({'ray', 'gymnasium', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_surface_is_this_and_nothing_else():
    assert sorted(rayprune.__all__) == [
        "Calibration",
        "Pruner",
        "PruningConfig",
        "QuantisationConfig",
        "Quantiser",
        "RaypruneError",
        "compact",
        "make_maskable",
        "register_criterion",
        "register_distribution",
        "register_granularity",
        "register_schedule",
        "unmask",
    ]
    assert all(hasattr(rayprune, name) for name in rayprune.__all__)


def test_a_name_that_needs_an_extra_says_which():
    code = "import sys; sys.modules['ray'] = None; from rayprune.rllib import prune"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith(": pip install 'rayprune[rllib]' brings it\n")
