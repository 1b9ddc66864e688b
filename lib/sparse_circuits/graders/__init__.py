"""Graders of the chapters; `sparse_circuits.grading` loads the module of a chapter when it is first needed."""
