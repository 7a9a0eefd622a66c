"""How fast it is: one command, one table. Run with `make bench`."""
