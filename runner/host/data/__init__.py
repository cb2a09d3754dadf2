"""The data of a launch: what dataset.yml says, which parts are there, how a missing one is fetched."""
