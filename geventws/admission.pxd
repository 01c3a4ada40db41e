# Nothing has a C type here: the class is Python's, compiled for its statements' sake.
