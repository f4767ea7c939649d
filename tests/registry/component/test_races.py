from tests.registry.races import Races


class TestRacesInAFolder(Races):
    """The folder is that of the fixture `store_url`."""
