"""Leaderboard: tasks without ceilings, arms at equal steps, scores of exported files.

    python -m benchmarks.leaderboard run --suite control --plan   # what is missing, what it takes
    python -m benchmarks.leaderboard run --suite control          # runs it; stop and start freely
    python -m benchmarks.leaderboard tables                       # writes TABLES.md, here
    python -m benchmarks.leaderboard figures                      # docs/assets/leaderboard-*.svg

A *cell* is an arm on a task at a sparsity with a seed. Each is trained, pruned, exported and
measured by `rayprune`'s own commands; its row, in results/TASK.jsonl, holds them. README.md has
the protocol.
"""
