"""`python -m benchmarks.gpu`."""

from benchmarks.gpu.command import app

if __name__ == "__main__":
    app(prog_name="python -m benchmarks.gpu")
