"""The test suite. unit/ mirrors src; each other directory says in its first file what it is for."""
