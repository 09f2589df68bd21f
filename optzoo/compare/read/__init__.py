"""Reading it: the kept runs as tables, ranks and a verdict in words."""
