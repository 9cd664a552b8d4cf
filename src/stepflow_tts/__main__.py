"""`python -m stepflow_tts` is the command `stepflow-tts`."""

import sys

from stepflow_tts.cli import main

sys.exit(main())
