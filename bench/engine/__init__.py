"""The parts of `engines.py`: where the engines are, what each client library does by itself, what coatcheck does."""
