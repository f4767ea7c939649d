"""`python -m deploy.access`."""

from deploy.access.cli import main

main()
