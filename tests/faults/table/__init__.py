"""The table of faults: what a client sees, what is counted and written, when a part fails.

``rows`` says what a row is, ``check`` holds one against a running world, ``worlds`` are those; the rows of each part
are in a file of its own.
"""
