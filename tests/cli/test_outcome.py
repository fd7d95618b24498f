"""What a comparison says on the terminal."""

from __future__ import annotations

from tests.reports.made_up import comparison

from rediffuse.cli.outcome import level_rows


def test_figures_of_fewer_seeds_than_the_others_are_marked() -> None:
    found = comparison(lambda cell: None if cell.shots == 2 and cell.seed > 1 else 0.5 + 0.1 * (cell.arm == "da-fusion"))
    headings, rows = level_rows(found, "scratch")
    assert headings == ["1 shot", "2 shots", "mean", "over standard"]
    for name, one, two, mean, gain in rows:
        assert "seeds" not in one
        assert two.endswith(" (2 of 4 seeds)"), name
        assert mean.endswith(" (2 of 4 seeds)")
        assert gain.endswith(" (2 of 4 seeds)") or not gain
    whole = comparison(lambda cell: 0.5)
    assert not any("seeds" in cell for row in level_rows(whole, "scratch")[1] for cell in row)
