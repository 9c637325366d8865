"""Pin the figures of the golden run anew: `python -m tests.golden.regenerate`. Read the note in `run.py` first."""

import json

from tests.golden.run import FILE, golden_run

NOTE = (
    "Figures of tests/golden/run.py. A change is a change of results: record it in CHANGELOG, and raise the version in the "
    "environments' ids; then write this file anew by python -m tests.golden.regenerate."
)

if __name__ == "__main__":
    FILE.write_text(json.dumps({"note": NOTE, "figures": golden_run()}, indent=1) + "\n", encoding="utf-8")
