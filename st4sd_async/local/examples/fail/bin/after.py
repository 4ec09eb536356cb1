"""Print the arguments, which are the output of the first component."""

import sys

sys.stdout.write(" ".join(sys.argv[1:]) + "\n")
