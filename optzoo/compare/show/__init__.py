"""Showing it: in the terminal, as a page, as pictures and as tables for other programs."""
