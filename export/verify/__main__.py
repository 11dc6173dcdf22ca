"""The command `python -m export.verify`."""

import sys

from export import verify

if __name__ == "__main__":
    sys.exit(verify.main(sys.argv[1:]))
