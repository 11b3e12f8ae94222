"""An environment of its own for a script that needs packages of PyPI."""

import os
import subprocess
import sys
import venv
from pathlib import Path


def enter(name: str, *requirements: str) -> None:
    """Restarts the script in an environment called `name` with these packages, which is made the first time."""
    environment = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "gpuconv", name)
    if Path(sys.prefix).resolve() == environment.resolve():
        return
    python, done = environment / "bin" / "python", environment / "complete"
    wanted = "\n".join(requirements)
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {', '.join(requirements)} into {environment}", file=sys.stderr)
        venv.create(environment, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
        done.write_text(wanted)
    os.execv(python, [python, *sys.argv])
