"""Schedulers of populations for Ray Tune: multi-objective PBT, and PB2."""
