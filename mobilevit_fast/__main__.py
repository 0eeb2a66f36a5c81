"""``python -m mobilevit_fast``: the command line, with the package that this interpreter imports."""

from mobilevit_fast.cli import main

if __name__ == "__main__":
    main()
