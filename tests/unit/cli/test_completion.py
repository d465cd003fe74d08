"""A shell completes environments, presets, formats and criteria by name."""

from __future__ import annotations

from rayprune.cli import completion


def test_names_are_completed_by_how_they_begin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppo_mine.yaml").touch()
    assert {"ppo_mine.yaml", "ppo_cartpole"} <= set(completion.configs("ppo_"))
    assert completion.formats("o") == ["onnx"]
    assert completion.criteria("sha") == ["shapley"]
    assert "cortex-m4" in completion.targets("cortex")
    assert "CartPole-v1" in completion.environments("CartP")
    assert "rayprune.envs:LongPole-v0" in completion.environments("rayprune.envs:L")
    # What doesn't go on as it was begun, a shell drops.
    assert (completion.algorithms("p"), completion.algorithms("P")) == (["ppo"], ["PPO"])
    assert "classic/ppo_cartpole" in completion.configs("classic/ppo_")
