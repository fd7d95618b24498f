"""`python -m rediffuse.cli`: the program, where its folder is not on the search path."""

import sys

from rediffuse.cli import main

sys.exit(main())
