"""The parts of the mini-Python generator; `sparse_circuits.tasks.mini_python` is the way in."""
