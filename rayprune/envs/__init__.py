"""Small environments that show what pruning does to memory, transfer and vision.

In a YAML by ``env: "rayprune.envs:Recall-v0"``: importing this module registers them.

==================  ==================================================================
``Recall-v0``       a cue that must be recalled some steps later; only a memory solves it
``LongPole-v0``     CartPole with a pole of any length, for transfer from CartPole
``MinBreakout-v0``  MinAtar's Breakout, observations as floats (needs ``rayprune[minatar]``)
==================  ==================================================================

`rayprune.envs.envpool` has environments of gymnasium's own, many at once.
"""

from __future__ import annotations

from gymnasium.envs.registration import register

_STEPS = {
    "LongPole-v0": ("rayprune.envs.long_pole:LongPole", 500),
    "MinBreakout-v0": ("rayprune.envs.minatar:MinBreakout", 2500),
    "Recall-v0": ("rayprune.envs.recall:Recall", None),
}
for _id, (_class, _most) in _STEPS.items():
    register(id=_id, entry_point=_class, max_episode_steps=_most)
