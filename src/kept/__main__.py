"""`python -m kept` is the command `kept`."""

import sys

from kept.cli.main import main

sys.exit(main())
