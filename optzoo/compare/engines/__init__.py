"""Where it runs: processes of this machine, or what others keep running, as executors."""
