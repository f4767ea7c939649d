"""Running Ferryline: the local stack, containers, dashboards and example pipelines."""
