"""The protocol's text against a server: raw requests to a process of its own, and nothing else."""
