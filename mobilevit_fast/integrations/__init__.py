"""The engine inside of other systems, each imported by whoever has it."""
