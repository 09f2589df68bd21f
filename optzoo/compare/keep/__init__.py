"""Keeping it: the runs on disk, safe from whatever stops the process."""
