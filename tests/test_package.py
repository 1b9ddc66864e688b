"""Importing the package is cheap: it loads nothing heavy until something needs it."""

import json
import subprocess
import sys

import sparse_circuits

HEAVY = ("torch", "transformer_lens", "matplotlib", "pandas", "tokenizers", "accelerate")


def test_import_takes_under_two_seconds_and_loads_nothing_heavy():
    program = f"""
import json, sys, time
start = time.process_time()
import sparse_circuits
print(json.dumps([time.process_time() - start, [name for name in {HEAVY!r} if name in sys.modules]]))
"""
    seconds, loaded = json.loads(
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    )
    assert loaded == []
    assert seconds < 2


def test_every_public_name_resolves():
    for name in sparse_circuits.__all__:
        assert getattr(sparse_circuits, name) is not None
