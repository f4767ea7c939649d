"""What the tests of every room share: tiers, sizes, waiting, the shared stack and the report of a run."""
