"""`python -m valence.local` runs `valence local`; no module imports this one."""

import sys

from valence.__main__ import app

app(["local", *sys.argv[1:]], prog_name="valence")
