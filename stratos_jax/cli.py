"""`stratos VERB ...`: finds the verb's module, parses its arguments, runs it, and turns how it ended into an exit code.

Exit codes: 0 done; 1 a bug of ours (traceback); 2 something the user can mend; 3 a plan that does not fit;
42 stopped early and safe to run again (preemption, watchdog); 130 interrupted by Ctrl-C.
"""

import argparse
import difflib
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

from stratos_jax import __version__, verbs
from stratos_jax.mesh import cores
from stratos_jax.types import UserError

INTERRUPTED = 130
TRAINING = ("run", "train")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the console script's entry point."""
    words = list(sys.argv[1:] if argv is None else argv)
    names = sorted(module.name for module in pkgutil.iter_modules(verbs.__path__) if not module.name.startswith("_"))
    if not words or words[0] in ("-h", "--help"):
        print(overview(names))
        return 0
    if words[0] == "--version":
        print(f"stratos_jax {__version__}")
        return 0
    if words[0] not in names:
        near = difflib.get_close_matches(words[0], names, n=1, cutoff=0.5)
        do = f"did you mean `stratos {near[0]}`?" if near else "`stratos --help` lists the verbs"
        return complain(UserError(f"no verb {words[0]!r}", wanted=", ".join(names), do=do))
    if argv is None and words[0] in TRAINING:
        cores.keep_memory()
    return run_verb(words[0], words[1:])


def run_verb(name: str, words: Sequence[str]) -> int:
    """Parse the verb's own arguments and run it."""
    verb = importlib.import_module(f"stratos_jax.verbs.{name}")
    parser = argparse.ArgumentParser(
        prog=f"stratos {name}",
        description=verb.HELP,
        epilog=f"example:\n  {verb.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.configure(parser)
    # Overrides may stand after options; argparse mixes them only where a verb has no verbs of its own.
    args = parser.parse_args(words) if parser._subparsers else parser.parse_intermixed_args(words)
    try:
        return verb.run(args) or 0
    except UserError as error:
        return complain(error)
    except KeyboardInterrupt:
        again = " ".join(["stratos", name, *words])
        print(f"\nstopped; what was finished is kept. To go on: {again}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def complain(error: UserError) -> int:
    """Print a user's error, red on a terminal that wants colours."""
    text = f"error: {error}"
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    print(f"\033[31m{text}\033[0m" if colour else text, file=sys.stderr)
    return 2


def overview(names: Sequence[str]) -> str:
    """The page that `stratos --help` prints."""
    width = max(map(len, names), default=0)
    rows = [f"  {name:<{width}}  {importlib.import_module(f'stratos_jax.verbs.{name}').HELP}" for name in names]
    return "\n".join(
        ["usage: stratos VERB ...", "", "verbs:", *rows, "", "`stratos VERB --help` shows an example of each."]
    )


if __name__ == "__main__":
    sys.exit(main())
