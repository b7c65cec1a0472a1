"""The command line. Each module is a group of commands; `wiring.py` alone builds the system.

Command modules import nothing heavy at the top: `statewright --help` loads none of them, a command loads its own.
"""
