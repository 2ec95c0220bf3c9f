"""`python -m drills.sandbox`: start a local Azure."""

import sys

from drills.sandbox.serve import main

if __name__ == "__main__":
    sys.exit(main())
