"""A program that repeats what the component before it said."""

import sys

sys.stdout.write(" ".join(sys.argv[1:]) + "\n")
