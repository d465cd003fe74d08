"""Small environments of ours, and other projects' games as networks take them.

In a YAML by ``env: "rayprune.envs:Recall-v0"``: importing this module registers them.

=======================  =================================================================
``Recall-v0``            a cue that must be recalled some steps later; only a memory solves it
``LongPole-v0``          CartPole with a pole of any length, for transfer from CartPole
``PathPlanning-v0``      a robot among obstacles, with camera, lidar and state as a Dict
``Trading-v0``           made-up prices to trade at, with prices and account as a Dict
``MinBreakout-v0``       MinAtar's Breakout, as floats (needs ``rayprune[minatar]``)
``MinSpaceInvaders-v0``  MinAtar's Space Invaders, likewise
``MiniGrid-v0``          MiniGrid's tasks, planes of 0 and 1 (needs ``rayprune[minigrid]``)
``Atari-v0``             Atari's games, small, grey and stacked (needs ``rayprune[atari]``)
=======================  =================================================================

`rayprune.envs.envpool` has environments of gymnasium's own, many at once.
"""

from __future__ import annotations

from gymnasium.envs.registration import register

_STEPS = {
    "Atari-v0": ("rayprune.envs.atari:make_game", None),
    "LongPole-v0": ("rayprune.envs.long_pole:LongPole", 500),
    "MinBreakout-v0": ("rayprune.envs.minatar:MinBreakout", 2500),
    "MinSpaceInvaders-v0": ("rayprune.envs.minatar:MinSpaceInvaders", 2500),
    "MiniGrid-v0": ("rayprune.envs.minigrid:make_task", None),
    "PathPlanning-v0": ("rayprune.envs.path_planning:PathPlanning", 100),
    "Recall-v0": ("rayprune.envs.recall:Recall", None),
    "Trading-v0": ("rayprune.envs.trading:Trading", None),
}
for _id, (_class, _most) in _STEPS.items():
    register(id=_id, entry_point=_class, max_episode_steps=_most)
