"""``python -m narthex``: the binary, with the same arguments."""

import os
import sys

from narthex._binary import NarthexError, find_binary


def main() -> None:
    """Becomes the binary, so that signals and exit codes are its own."""
    try:
        binary = os.fspath(find_binary())
        os.execv(binary, [binary, *sys.argv[1:]])
    except (NarthexError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
