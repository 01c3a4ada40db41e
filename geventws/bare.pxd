# Nothing has a C type here: the classes are Python's, compiled for their statements' sake.
