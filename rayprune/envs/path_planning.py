"""A robot among round obstacles: camera, lidar and a compass to the goal, as a Dict."""

from __future__ import annotations

import math
from typing import Any, Final

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Observation = dict[str, Floats]
Points = NDArray[np.float64]

STEP: Final = 0.04
"""How far the robot goes at each step; all lengths are in edges of the field."""
TURN: Final = 0.35
"""What it turns by, in radians."""
BODY: Final = 0.02
GOAL: Final = 0.05
"""Radii of the robot and of the goal."""
RANGE: Final = 0.5
"""How far the lidar reaches."""
CELLS: Final = 9
CELL: Final = 0.04
"""The camera's picture has this many cells of this edge on either axis."""


class PathPlanning(gym.Env[Observation, int]):
    """Reach a goal without touching an obstacle or the field's edge; each episode has its own.

    The robot goes on at a constant speed and turns left, not at all, or right. It earns the
    distance by which it comes nearer, 1 at the goal, -1 where it hits something; both end the
    episode, so that a return above 1 means that the goal was reached.

    ==========  =================================================================
    ``camera``  what is blocked of the ground before the robot, ``(9, 9)`` cells
    ``lidar``   free distance by direction, of `RANGE`, all around
    ``state``   cosine and sine of the bearing to the goal, and its distance
    ==========  =================================================================

    Args:
        obstacles: how many.
        rays: of the lidar.
    """

    def __init__(self, obstacles: int = 6, rays: int = 16) -> None:
        if obstacles < 1 or rays < 1:
            raise ValueError(
                f"PathPlanning needs obstacles >= 1 and rays >= 1, but has {obstacles} and {rays}."
            )
        self._obstacles = obstacles
        self._angles = np.arange(rays) * (2 * math.pi / rays)
        self.action_space = gym.spaces.Discrete(3)
        self.observation_space = gym.spaces.Dict(
            camera=gym.spaces.Box(0.0, 1.0, (CELLS * CELLS,), np.float32),
            lidar=gym.spaces.Box(0.0, 1.0, (rays,), np.float32),
            state=gym.spaces.Box(-1.0, 2.0, (3,), np.float32),
        )
        ahead, across = np.meshgrid(np.arange(CELLS) + 1.0, np.arange(CELLS) - CELLS // 2)
        self._cells = CELL * np.stack([ahead.ravel(), across.ravel()], axis=1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Place obstacles, the goal and the robot, apart from one another."""
        super().reset(seed=seed)
        self._centres = self.np_random.uniform(0.1, 0.9, (self._obstacles, 2))
        self._radii = self.np_random.uniform(0.05, 0.1, self._obstacles)
        self._place, self._goal = self._free_place(), self._free_place()
        while math.dist(self._place, self._goal) < 0.4:
            self._place, self._goal = self._free_place(), self._free_place()
        self._heading = float(self.np_random.uniform(-math.pi, math.pi))
        return self._see(), {}

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Turn by -1, 0 or 1 times `TURN`, and go on."""
        before = math.dist(self._place, self._goal)
        self._heading += (int(action) - 1) * TURN
        self._place = self._place + STEP * self._ahead()
        after = math.dist(self._place, self._goal)
        hit, there = bool(self._blocked(self._place[None], BODY)[0]), after < GOAL
        reward = before - after + (-1.0 if hit else float(there))
        return self._see(), reward, hit or there, False, {"reached": there and not hit}

    def _free_place(self) -> Points:
        while True:
            place = self.np_random.uniform(0.1, 0.9, 2)
            if not self._blocked(place[None], BODY + GOAL)[0]:
                return place

    def _ahead(self) -> Points:
        return np.array([math.cos(self._heading), math.sin(self._heading)])

    def _blocked(self, points: Points, margin: float) -> NDArray[np.bool_]:
        """Return which points, ``(n, 2)``, are within ``margin`` of an obstacle or the edge."""
        gaps = np.linalg.norm(points[:, None] - self._centres, axis=2) - self._radii
        edges = np.minimum(points, 1 - points).min(axis=1)
        nearest: Points = np.minimum(gaps.min(axis=1), edges)
        return nearest < margin

    def _see(self) -> Observation:
        aside = self._goal - self._place
        bearing = math.atan2(aside[1], aside[0]) - self._heading
        distance = float(np.linalg.norm(aside))
        ground = self._place + self._cells @ self._axes()
        return {
            "camera": self._blocked(ground, 0.0).astype(np.float32),
            "lidar": (self._free_distances() / RANGE).astype(np.float32),
            "state": np.array([math.cos(bearing), math.sin(bearing), distance], np.float32),
        }

    def _axes(self) -> Points:
        """Return the directions ahead and to the left, one a row."""
        x, y = self._ahead()
        return np.array([[x, y], [-y, x]])

    def _free_distances(self) -> Points:
        """Return how far each ray goes, ``(rays,)``, at most `RANGE`."""
        angles = self._heading + self._angles
        rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        # Where a ray meets a circle: |t ray - away| = radius.
        away = self._centres - self._place
        along = rays @ away.T
        inside = along**2 - (away**2).sum(axis=1) + self._radii**2
        meets = np.where(inside >= 0, along - np.sqrt(np.maximum(inside, 0)), np.inf)
        meets = np.where(meets >= 0, meets, np.inf).min(axis=1)
        with np.errstate(divide="ignore"):
            walls = np.where(rays > 0, 1 - self._place, -self._place) / rays
        walls = np.where(rays == 0, np.inf, walls).min(axis=1)
        free: Points = np.clip(np.minimum(meets, walls), 0.0, RANGE)
        return free
