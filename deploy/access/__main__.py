"""`python -m ferryline.deploy.access`."""

from ferryline.deploy.access.cli import main

main()
