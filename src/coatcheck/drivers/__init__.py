"""Storage engines: the contract in `base`, and a module or folder for each engine."""
