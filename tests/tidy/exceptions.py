"""What does not keep a tidy rule yet: file (and function), and the most it may measure.

These lists only shrink. One that is no longer needed fails its test until it is removed.
"""

from __future__ import annotations

# "src/kept/room/file.py": lines
LONG_FILES: dict[str, int] = {}

# "src/kept/room/file.py: function": lines
LONG_FUNCTIONS: dict[str, int] = {}

# "tests/room/test_file.py": calls
SLEEPS_IN_TESTS: dict[str, int] = {}

# "src/kept/room/file.py: time.time": uses
AROUND_THE_RUNTIME: dict[str, int] = {}

# "src/kept/room/file.py: identifier": definitions
BANNED_NAMES: dict[str, int] = {}
