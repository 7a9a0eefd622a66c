"""Where the sockets of neighbours are."""

import os
import socket
from pathlib import Path

from kept.stores.sqlite.neighbours import MAX_NAME_BYTES, socket_directory

SHORTEST_PROCESS_ID = "1-00000000.sock"
LONGEST_PROCESS_ID = "2147483647-00000000.sock"


def test_neighbours_meet_whatever_their_process_ids(tmp_path: Path) -> None:
    """Around the length at which paths become too long for sockets, every process finds the same
    directory, and the longest name can be bound in it."""
    base = tmp_path if len(str(tmp_path)) < 60 else Path("/tmp")
    assert len(LONGEST_PROCESS_ID) == MAX_NAME_BYTES
    found = set()
    for length in range(62, 100):
        directory = base / ("d" * (length - len(str(base)) - 1))
        directory.mkdir(exist_ok=True)
        place = socket_directory(str(directory))
        assert place is not None
        found.add(place == str(directory))
        for name in (SHORTEST_PROCESS_ID, LONGEST_PROCESS_ID):
            path = os.path.join(place, name)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
                bound.bind(path)
            os.unlink(path)
        directory.rmdir()
    assert found == {True, False}
