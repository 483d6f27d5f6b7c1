"""What Dataflow's launcher starts: `visor bulk` with the parameters of metadata.json; all others are Beam's.

The settings of the index come as one parameter, as `terraform output -json settings` prints them.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence

from visor.cli.main import main


def command(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command line of `visor`, and its environment."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--what", required=True)
    parser.add_argument("--settings", required=True, type=json.loads)
    for name in ("limit", "host_rate", "workers"):
        parser.add_argument(f"--{name}")
    own, beams = parser.parse_known_args(arguments)
    given = {name: value for name, value in vars(own).items() if name not in ("what", "settings") and value}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    return ["bulk", own.what, "--runner=DataflowRunner", *options, *beams], own.settings


if __name__ == "__main__":
    import sys

    argv, environment = command([one for one in sys.argv[1:] if not one.startswith("--runner=")])
    os.environ.update(environment)
    main(argv)
