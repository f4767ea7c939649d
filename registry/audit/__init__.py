"""`ferry verify`: walks every log and every file of a registry, and tells all that is wrong.

findings    what was found, and how bad it is
reader      reads what may be damaged or away
logs        what manifests and channel entries must keep
walk        the whole walk
"""
