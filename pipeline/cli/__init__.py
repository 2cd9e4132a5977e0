"""The command line: `main.py` collects one file per command.

A command checks its words, calls one function of another room and prints what came back; it decides nothing else.
To add one: write `<name>.py` with a function `command` and a text `EXAMPLES`; list it in `main.py`. Import the rooms
inside the function: `pipeline --help` must answer before torch could have been imported.
"""
