"""`python -m mobilevit_fast.cli`, the same as `mobilevit-fast`."""

from mobilevit_fast.cli.app import main

main()
