"""Reads the command line of ``launch.py``."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from absl import flags

_Pairs = Iterable[tuple[flags.FlagHolder, flags.FlagHolder]]


def parsed(arguments: list[str]) -> list[str]:
    """Parses the flags; ends the program with a sentence where absl would print a traceback."""
    # ml_collections would list in ten lines where it has looked, and only once the config is used.
    given = re.findall(r"\0--?config[=\0]([^\0:]*)", "\0".join(["", *arguments]))
    if given and not Path(given[-1]).is_file():
        refuse(
            f"--config={given[-1]} is no file; give one of configs/, such as "
            "configs/extrapolation.py:small"
        )
    try:
        return flags.FLAGS(arguments)
    except Exception as error:
        # The outermost message that is a sentence, because it names the flag.
        said: BaseException = error
        while "Traceback" in str(said) and (inner := said.__cause__ or said.__context__):
            said = inner
        sentence = str(said.args[0]) if isinstance(said, KeyError) else str(said)
        # The message is the name of an unknown field, perhaps with the name of a similar one.
        message = sentence.replace("\\n", " ")
        missing = re.fullmatch(r'\W*(\w+)\W*(?:(Did you mean "\w+").*)?', message)
        if missing:
            # Not a value that is called so.
            field = re.compile(rf"--?config\.([\w.]+\.)?{missing[1]}\b")
            flag = next(filter(field.match, arguments), "--config")
            hint = f". {missing[2]}?" if missing[2] else ""
            sentence = f"{flag}: the config has no field {missing[1]!r}{hint}"
        refuse(sentence)


def refuse(sentence: str) -> NoReturn:
    """Ends the program with a sentence that says what is wrong with its command."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def check_together(needed: _Pairs, apart: _Pairs) -> None:
    """Raises a ValueError for a flag that another flag would make the program ignore."""

    def is_given(flag):
        return flag.present and flag.value is not False

    for flag, other in needed:
        if is_given(flag) and not is_given(other):
            raise ValueError(
                f"--{flag.name} has no effect without --{other.name}: give that too, or leave "
                f"--{flag.name} out"
            )
    for flag, other in apart:
        if is_given(flag) and is_given(other):
            both = f"--{flag.name} and --{other.name}"
            raise ValueError(f"{both} ask for different things; give one of them")
