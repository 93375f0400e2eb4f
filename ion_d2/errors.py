"""The one exception that means "your input is wrong", as opposed to a bug of ours."""

from __future__ import annotations

import errno
import re

# How the system says that there is no room: a full disk, a quota, a limit on the size of files.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How it says that a disk takes nothing any more, or is gone.
LOST_DISK = (errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN)

# What a message may quote of a file and a terminal would obey: line breaks, control codes, turns of
# the direction of writing. They are shown as Python writes them.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class IONError(ValueError):
    """Bad input, told in one sentence.

    The message names the file, config key or value at fault, says what was expected and what to do.
    The command-line programs print it alone, without a traceback, and exit with status 1.

    Attributes:
        rule: where labels are at fault, the rule of tools/check_dataset.py that they break; or "".
    """

    def __init__(self, message: str = "", *, rule: str = "") -> None:
        super().__init__(_UNSEEN.sub(lambda found: repr(found[0])[1:-1], message))
        self.rule = rule
