"""`python -m qlearn`: the same as `qlearn`."""

import sys

from qlearn.cli import main

sys.exit(main())
