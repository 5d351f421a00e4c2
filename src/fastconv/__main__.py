"""``python -m fastconv`` is the command ``fastconv``."""

import sys


def run() -> None:
    """Run the command line; Ctrl-C while it is still being loaded ends it quietly, too."""
    try:
        from fastconv.cli import main
    except KeyboardInterrupt:
        sys.exit(130)
    main(prog_name="fastconv")


if __name__ == "__main__":
    run()
