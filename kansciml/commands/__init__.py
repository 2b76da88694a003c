"""The commands of `kansciml`: one module each, with `SUMMARY`, and `main(arguments, out) -> exit code`."""
