"""The parts of `capacity.py`: sessions, the stores that hold them, readers, and what follows for more of them."""
