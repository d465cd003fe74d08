"""Masks: from importance scores to exact top-k masks, kept, applied, faded and saved."""
