"""Captured graphs rewritten for what runs them (ADR 0025)."""
