"""`python -m benchmarks.cpu`."""

from benchmarks.cpu.command import main

if __name__ == "__main__":
    main()
