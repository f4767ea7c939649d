"""Pipeline files for tests."""

MINIMAL = """
[pipeline]
name = "p"
model = "m"
[source]
topic = "t"
[source.features]
field = "x"
kind = "array"
size = 2
[source.label]
field = "y"
classes = [0, 1]
"""
"""All that a pipeline file must say."""
