"""The tokens that stand for classes in prompts: `potted plant` is `<potted_plant>`.

Reference: Trabucco et al., ICLR 2024, arXiv 2302.07944 (blanks become underscores; case and other punctuation stay).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from rediffuse.errors import DataError


def placeholder(name: str) -> str:
    """The token of a class name. Blanks become underscores, so do angle brackets, which would end the token; all else is kept.

    Raises:
        DataError: nothing but blanks.
    """
    if not name.strip():
        raise DataError(f"a class name must hold more than blanks, got {name!r}; name the class")
    return "<" + re.sub(r"[\s<>]", "_", name) + ">"


def distinct_placeholders(names: Iterable[str]) -> dict[str, str]:
    """One token for each name. Names whose tokens would be one and the same get six digits of the sha256 of the name behind it.

    Tokenizers see no case, so `Crane` (the bird) and `crane` (the machine) collide, as do `polar bear` and `polar_bear`. They are different
    classes all the same: both are renamed, so that neither depends on which came first.
    """
    tokens = {name: placeholder(name) for name in names}
    keys = [token_key(token) for token in tokens.values()]
    for name, token in tokens.items():
        if keys.count(token_key(token)) > 1:
            tokens[name] = f"{token[:-1]}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}>"
    return tokens


def renamed(placeholders: dict[str, str]) -> dict[str, str]:
    """Those of these classes whose token is not the one that their name gives."""
    return {name: token for name, token in placeholders.items() if token != placeholder(name)}


def normalise(token: str) -> str:
    """The token of a file as this library writes it: `<potted plant>` and `potted_plant` are `<potted_plant>`; a token in order stays.

    Trailing blanks belong to the name (`<cyclamen >` is `<cyclamen_>`), as in the published token files.
    """
    inner = token[1:-1] if len(token) > 2 and token.startswith("<") and token.endswith(">") else token
    return placeholder(inner)


def token_key(token: str) -> str:
    """What two tokens must differ in: their text without case."""
    return unicodedata.normalize("NFC", token).casefold()
