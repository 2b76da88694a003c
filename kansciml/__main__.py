"""``python -m kansciml``."""

import sys

from kansciml.cli import main

sys.exit(main())
