"""One member as a program of its own: ``python member.py --study STUDY.json --index K``.

This is how any program runs as a job: it takes its parameters from the command line, writes its
file and says with its exit status whether that worked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from study import Study, run_member


def main() -> int:
    parser = argparse.ArgumentParser(description="Compute one member of the epidemic study.")
    parser.add_argument("--study", type=Path, required=True, help="the design, as JSON")
    parser.add_argument("--index", type=int, required=True, help="which member")
    parser.add_argument("--fail", default="", help="members that are to fail, as in 3,17")
    options = parser.parse_args()
    try:
        study = Study.load(options.study)
        member = study.member(options.index)
        fail = {int(text) for text in options.fail.split(",") if text}
        run_member(study, member, options.study.parent / "members", fail)
    except Exception as error:  # whatever it was, the driver lists one line of it
        print(f"member {options.index}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
