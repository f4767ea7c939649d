"""The three servers of the stack: for each its configuration, its command and the probe that asks it."""
