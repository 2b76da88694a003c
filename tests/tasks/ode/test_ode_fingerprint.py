"""Fingerprints: equal for equal things in any process, different for whatever changes what is computed."""

import functools
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from kansciml.tasks.ode.fingerprint import fingerprint

TABLE = np.arange(3.0)


def made(text, name="f"):
    """`name` as a script with this text defines it."""
    space = {"np": np, "nn": nn, "torch": torch, "TABLE": TABLE, "__name__": "script"}
    exec(textwrap.dedent(text), space)
    return space[name]


BASE = """
def helper(u, k=2.0): return k * u
class Base(nn.Module):
    gain = 1.0
    def scaled(self, u): return self.gain * helper(u)
class Field(Base):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.sign = nn.Linear(2, 2), 1.0
    def forward(self, t, u): return self.sign * self.scaled(self.net(u)) + TABLE[0]
f = Field()
"""
CHANGES = {
    "the method": ("self.net(u)) +", "self.net(u)) -"),
    "an inherited method": ("self.gain * helper", "self.gain - helper"),
    "an attribute of the class": ("gain = 1.0", "gain = 1.5"),
    "an attribute": ("nn.Linear(2, 2), 1.0", "nn.Linear(2, 2), -1.0"),
    "a function that it calls": ("return k * u", "return k + u"),
    "a default of that function": ("k=2.0", "k=3.0"),
    "initial values": ("manual_seed(0)", "manual_seed(1)"),
    "a part of another kind": ("nn.Linear(2, 2), 1.0", "nn.Sequential(nn.Linear(2, 2), nn.Tanh()), 1.0"),
    "data that it reads": ("TABLE[0]", "(TABLE + 1)[0]"),
}


def test_the_same_text_gives_the_same_fingerprint_wherever_it_stands():
    assert fingerprint(made(BASE)) == fingerprint(made("# a comment\n\n\n" + BASE))


@pytest.mark.parametrize("what", CHANGES)
def test_each_change_gives_another(what):
    old, new = CHANGES[what]
    assert BASE.count(old) == 1
    assert fingerprint(made(BASE)) != fingerprint(made(BASE.replace(old, new)))


def test_a_global_array_counts_by_its_values():
    first = made("def f(u): return TABLE * u")
    second = made("def f(u): return TABLE * u")
    assert fingerprint(first) == fingerprint(second)
    second.__globals__["TABLE"] = TABLE + 1e-12
    assert fingerprint(first) != fingerprint(second)


def test_closures_partials_and_scripts_count():
    def scaled(k):
        return lambda u: k * u

    pairs = [
        (scaled(1.0), scaled(2.0)),
        (functools.partial(pow, 2), functools.partial(pow, 3)),
        (torch.jit.script(nn.Sequential(nn.Tanh())), torch.jit.script(nn.Sequential(nn.ReLU()))),
        ({"a": 1}, {"a": 2}),
        (np.array([0.0]), np.array([-0.0])),
        ([1.0, 2.0], [2.0, 1.0]),
        (1, 1.0),
        (nn.Linear(1, 1).train(), nn.Linear(1, 1).eval()),
    ]
    for first, second in pairs:
        assert fingerprint(first) != fingerprint(second)


def test_what_is_left_out_does_not_count():
    first, second = (nn.Linear(2, 2) for _ in range(2))
    prints = [fingerprint(module, without=list(module.parameters())) for module in (first, second)]
    assert prints[0] == prints[1] and fingerprint(first) != fingerprint(second)


def test_objects_that_hold_themselves_end():
    ring = []
    ring.append(ring)
    assert fingerprint(ring) == fingerprint(ring) != fingerprint([])


def test_every_process_gives_the_same(tmp_path):
    script = tmp_path / "s.py"
    script.write_text(
        "import logging, threading, functools\nimport numpy as np\nfrom kansciml.tasks.ode.registry import get_system\n"
        "from kansciml.tasks.ode.fingerprint import fingerprint\n"
        "log, lock = logging.getLogger('s'), threading.Lock()\n"
        "@functools.lru_cache\ndef g(u): return {'a', 'b', 'c'}\n"
        "def f(u):\n    log.info('x')\n    with lock: return np.sin(u) if u in {'q', 'w', 'e'} else g(u)\n"
        "print(fingerprint(f, {'a', 'b', 'c'}, get_system('lotka')))\n"
    )
    prints = {
        subprocess.run(
            [sys.executable, str(script)], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1 and len(prints.pop().strip()) == 64


@pytest.mark.parametrize("where", ["site-packages", "mine"])
def test_code_of_other_packages_counts_installed_or_not(tmp_path, where):
    def of(body):
        folder = tmp_path / body / where
        folder.mkdir(parents=True)
        (folder / "their_fields.py").write_text(f"class Field:\n    def f(self, u):\n        return u {body} u\n")
        script = f"import sys; sys.path.insert(0, {str(folder)!r})\nfrom their_fields import Field\n"
        script += "from kansciml.tasks.ode.fingerprint import fingerprint\nprint(fingerprint(Field()))"
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert of("+") != of("-")
