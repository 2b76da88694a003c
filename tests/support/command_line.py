"""What a user types, and what comes back; for the tests of commands."""

from kansciml import cli


def run(capsys, *arguments):
    """(exit code, standard output, standard error)."""
    code = cli.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err
