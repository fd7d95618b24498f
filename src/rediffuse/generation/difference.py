"""What tells one plan from another, in words: why a folder that holds a run refuses this one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rediffuse.differences import short, unequal
from rediffuse.generation.plan import Variant


def difference(there: tuple[Mapping[str, Any], Sequence[Variant]], here: tuple[Mapping[str, Any], Sequence[Variant]]) -> list[str]:
    """What tells two plans apart, in words; each is (settings, variants). Empty where they make the same."""
    found = [f"{name} {short(old)} there, {short(new)} here" for name, old, new in unequal(there[0], here[0])]
    old, new = ({v.source_id: v.source_sha256 for v in variants} for variants in (there[1], here[1]))
    for ids, word in ((new.keys() - old.keys(), "only here"), (old.keys() - new.keys(), "only there")):
        if ids:
            found.append(f"{_photos(ids)} {word}")
    changed = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    if changed:
        found.append(f"{_photos(changed)} with other pixels")
    if not found:
        moved = {variant.source_id for variant in {*map(_uncut, there[1])} ^ {*map(_uncut, here[1])}}
        found += [f"{_photos(moved)} with other classes or draws"] if moved else []
    return found


def _uncut(variant: Variant) -> Variant:
    return replace(variant, shard=0)


def _photos(ids: Iterable[str]) -> str:
    names = sorted(ids)
    listed = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} photo{'s' * (len(names) > 1)} ({listed})"
