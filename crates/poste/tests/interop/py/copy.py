"""Standard input to standard output: for pipes that were handed to this process."""

import shutil
import sys

shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer, 256)
