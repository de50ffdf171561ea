"""Who is mentioned in a text by @name."""

from __future__ import annotations

import re

MOST_MENTIONS = 20
# The character before keeps e-mail addresses out; a name is an identity.
_MENTION = re.compile(r"(?<![A-Za-z0-9_.@-])@([A-Za-z0-9_-]{1,64})(?![A-Za-z0-9_-])")


def mentioned_names(text: str) -> list[str]:
    """Return the names after @ in a text, each once, in order, at most MOST_MENTIONS."""
    return list(dict.fromkeys(_MENTION.findall(text)))[:MOST_MENTIONS]
