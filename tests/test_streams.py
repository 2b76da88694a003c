"""Standard streams that are closed, full, cut off, or too narrow for a character."""

import io
import os
import subprocess
import sys

import pytest

from kansciml import cli
from kansciml._streams import Stream

COMMANDS = ["--help", "--version", "list", "cost --in 4", "reference lotka", "run --help", "results --help"]
pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full is needed")


def full():
    return open("/dev/full", "w")


def cut():
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")


def closed():
    return None


@pytest.fixture
def main(monkeypatch, tmp_path):
    """Runs a command with these streams; when they are closed nothing is left in them that could still fail."""
    monkeypatch.chdir(tmp_path)

    def run(stdout, stderr, command):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "stderr", stderr)
            code = cli.main(command.split())
        told = stderr.getvalue() if isinstance(stderr, io.StringIO) else None
        for stream in (stdout, stderr):
            if stream is not None:
                stream.close()
        return code, told

    return run


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "stream, code, line",
    [
        (full, 1, "error: cannot write standard output: No space left on device\n"),
        (closed, 1, "error: cannot write standard output: it is closed\n"),
        (cut, 0, ""),
    ],
)
def test_output_that_is_lost_is_one_line_and_exit_code_1_but_not_where_its_reader_had_enough(
    main, command, stream, code, line
):
    assert main(stream(), io.StringIO(), command) == (code, line)


@pytest.mark.parametrize("stream", [full, closed, cut])
def test_the_exit_code_is_that_of_the_command_where_its_words_are_lost(main, stream):
    assert main(io.StringIO(), stream(), "ode --system lorenz") == (2, None)
    assert main(stream(), io.StringIO(), "ode --system lorenz --json")[0] == 2


def test_characters_that_the_encoding_lacks_become_escapes():
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("caf\u00e9 \udcff")
    stream.flush()
    assert raw.getvalue() == rb"caf\xe9 \udcff" and stream.failure is None


def test_no_file_takes_the_number_of_a_closed_stream(tmp_path):
    """It would hold what is printed."""
    code = (
        "import os\nfrom kansciml._streams import guarded_streams\n"
        "with guarded_streams() as (out, told):\n"
        f"    number = os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "    print('lost')\n"
        f"open({str(tmp_path / 'answer')!r}, 'w').write(f'{{number}} {{out.lost}}')\n"
    )
    shell = f'"{sys.executable}" -c "$1" <&- >&- 2>&-'
    subprocess.run(["bash", "-c", shell, "bash", code], check=True, timeout=60)
    number, _, lost = (tmp_path / "answer").read_text().partition(" ")
    assert int(number) > 2 and lost == "it is closed" and (tmp_path / "file").read_bytes() == b""
