"""``rayprune prune``."""


def test_prune_makes_a_pruning_config_of_its_options(rayprune, adaptor, checkpoint, tmp_path):
    answer = rayprune(
        *("prune", checkpoint, "--out", tmp_path / "out", "--sparsity", 0.5, "--criterion", "l2"),
        *("--distribution", "global", "--set", "pruning.protect=['*head*']", "--episodes", 5),
    )
    assert answer.code == 0
    ((_, (path, pruning, out), keywords),) = adaptor.calls
    assert (path, out) == (checkpoint, tmp_path / "out")
    assert (pruning.sparsity, pruning.criterion, pruning.distribution) == (0.5, "l2", "global")
    assert tuple(pruning.protect) == ("*head*",)
    assert "before" in answer.stderr
    assert "487.1 [470.0, 500.0]" in answer.stderr
    assert keywords == {"episodes": 5, "seed": 20_000, "address": None}


def test_all_faults_of_the_options_come_together(rayprune, adaptor, checkpoint, tmp_path):
    answer = rayprune(
        *("prune", checkpoint, "--out", tmp_path / "out", "--sparsity", 1.5),
        *("--criterion", "fischer", "--set", "seed=3"),
    )
    assert answer.code == 2
    assert "`pruning.sparsity` must be in [0, 1), but is 1.5." in answer.stderr
    assert "`pruning.criterion` must be one of" in answer.stderr
    assert "`seed` can't be set here" in answer.stderr
    assert adaptor.calls == []


def test_prune_needs_a_target(rayprune, checkpoint, tmp_path):
    answer = rayprune("prune", checkpoint, "--out", tmp_path / "out")
    assert answer.code == 2
    assert answer.stderr.startswith("`--sparsity` is missing: give a fraction")


def test_prune_needs_a_place(rayprune, checkpoint):
    answer = rayprune("prune", checkpoint, "--sparsity", 0.5)
    assert answer.code == 2
    assert "--out" in answer.stderr
