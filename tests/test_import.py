"""What `import kansciml` loads: next to nothing, so that it takes milliseconds."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
before = set(sys.modules)
import kansciml
print(*sorted(set(sys.modules) - before))
"""


def test_importing_the_package_loads_the_machinery_of_imports_alone():
    command, root = [sys.executable, "-S", "-c", PROGRAM], Path(__file__).parents[1]
    loaded = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert {name.partition(".")[0] for name in loaded.split()} <= {"kansciml", "importlib", "warnings", "__future__"}
