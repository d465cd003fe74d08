"""Schedulers and searchers of populations for Ray Tune: MO-PBT, MO-ASHA, PB2, Optuna."""
