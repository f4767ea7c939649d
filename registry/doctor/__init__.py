"""Proves that a store keeps the promises the logs are built on, before anyone trusts it.

`examination.examine` runs every probe, `rights.look_at_rights` finds out what credentials may do, and
`trust.require_trustworthy` takes the quick look before a first write. They are imported from there: a command
that writes should not wait for the probes it does not make.
"""
