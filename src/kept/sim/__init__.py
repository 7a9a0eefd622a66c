"""Floor 7: the real system, everything but sockets, disks and clocks, run from one seed."""
