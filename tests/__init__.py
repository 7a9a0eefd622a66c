"""The test suite. It mirrors src in unit/; what each other directory is for is said in its conftest or first file."""
