"""Sizes in a forward after compaction: what stays must fit them, or they are rewritten."""
