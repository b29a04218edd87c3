"""`python -m valence.local` is `valence local`; imported by nobody."""

import sys

from valence.__main__ import app

app(["local", *sys.argv[1:]], prog_name="valence")
