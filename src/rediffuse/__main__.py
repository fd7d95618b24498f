"""`python -m rediffuse`: the program, where its folder is not on the search path; `torchrun -m rediffuse train ...` on several devices."""

import sys

from rediffuse.cli import main

sys.exit(main())
