"""`python -m edpipe` is `edpipe`."""

import sys

from edpipe.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
