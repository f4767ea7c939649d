"""Least privilege: what a trainer, a consumer and an operator may do in a registry's bucket."""
