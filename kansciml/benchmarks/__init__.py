"""Speed and memory measurements: one module each, with `SUMMARY` and `main(arguments, out) -> exit code`."""
