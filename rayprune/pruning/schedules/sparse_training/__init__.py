"""Schedules of what is sparse from the start: static masks, dynamic sparse training, growth."""
