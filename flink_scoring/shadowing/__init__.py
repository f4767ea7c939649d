"""A version that is tried on the same records as the one that serves.

trial   runs it and compares
budget  how much time it may take; pure
"""
