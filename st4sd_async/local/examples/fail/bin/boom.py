"""Write to standard error and exit with code 3."""

import sys

sys.stdout.write("about to fail\n")
sys.stderr.write("boom: this component always fails\n")
sys.exit(3)
