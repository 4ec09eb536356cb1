"""A program that complains and exits with code 3."""

import sys

sys.stdout.write("about to fail\n")
sys.stderr.write("boom: this component always fails\n")
sys.exit(3)
