"""The release, as in the top CMakeLists.txt."""

__version__ = "0.1.0"
