"""Running Modelferry: the local stack, containers, dashboards and example pipelines."""
