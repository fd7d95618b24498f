"""Pages are drawn from results, and a page that is not up to date is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rediffuse.errors import ConfigError, DataError
from rediffuse.evaluation.results import Figure, Result, write_result
from rediffuse.recipes.render import main, render_page


def result(name: str, headline: dict[str, Figure], rows: list[dict[str, object]] | None = None, notes: tuple[str, ...] = ()) -> Result:
    return Result(
        name=name,
        headline=headline,
        rows=rows or [],
        command=f"python -m {name}",
        commit="abc",
        date="2026-01-02T03:04:05+00:00",
        hardware={"processor": "Fast One", "cores": 2, "device": "cpu", "torch": "2.13.0"},
        seconds=125.0,
        notes=notes,
    )


SPEED = result("bench_toy", {"speedup": Figure(value=5.25, low=5.0, high=5.5), "slot_use": Figure(value=0.97)})
TABLE = result("bench_rows", {}, [{"table": "rates", "arm": "ours", "per_second": 2.5}, {"table": "shares", "arm": "all", "share": 1}])


def page(marker: str, body: str = "old\n") -> str:
    return f"before\n<!-- results:{marker} -->\n{body}<!-- /results -->\nafter\n"


def test_what_stands_between_the_markers_is_replaced_and_nothing_else() -> None:
    drawn = render_page(page("bench_toy"), [SPEED])
    assert drawn.startswith("before\n<!-- results:bench_toy -->\n| figure |")
    assert drawn.endswith("<!-- /results -->\nafter\n")
    assert "| speedup | 5.25 | 5 to 5.5 |" in drawn
    assert "| slot_use | 0.97 |  |" in drawn
    assert "`results/bench_toy.json`: 2026-01-02; Fast One, 2 cores; torch 2.13.0; 2 min 5 s; `python -m bench_toy`." in drawn
    assert "old" not in drawn
    assert render_page(drawn, [SPEED]) == drawn


def test_gains_are_points_with_a_verdict_and_seconds_are_a_time() -> None:
    figures = {
        "gain_ours": Figure(value=-0.0114, low=-0.0211, high=-0.0018),
        "wall_seconds": Figure(value=192.7),
        "gain_x": Figure(value=0.5),
        "corruption5_gain": Figure(value=0.02, low=0.01, high=0.03),
        "clean_change": Figure(value=-0.001, low=-0.01, high=0.008),
        "gain_kept_bank": Figure(value=0.9, low=0.8, high=1.1),
        "ece_gain": Figure(value=-0.02, low=-0.03, high=-0.01),
        "exchange": Figure(value=0.1, low=0.0, high=0.2),
        "gain_seeds": Figure(value=0.02, low=0.01, high=0.03, basis="seeds"),
        "gain_images": Figure(value=0.02, low=0.01, high=0.03, basis="one training run"),
    }
    drawn = render_page(page("demo"), [result("demo", figures)])
    assert "| gain_seeds | +2.0 points: helps | +1.0 to +3.0 |" in drawn
    assert "| gain_images | +2.0 points, one training run | +1.0 to +3.0 |" in drawn  # no verdict on the method from one
    assert "| gain_ours | -1.1 points: hurts | -2.1 to -0.2 |" in drawn
    assert "| wall_seconds | 3 min 13 s |  |" in drawn
    assert "| gain_x | 0.5 |  |" in drawn  # nothing is said without an interval
    assert "| corruption5_gain | +2.0 points: helps | +1.0 to +3.0 |" in drawn
    assert "| clean_change | -0.1 points: no evidence | -1.0 to +0.8 |" in drawn
    assert "| gain_kept_bank | 0.9 | 0.8 to 1.1 |" in drawn  # a part of a gain
    assert "| ece_gain | -0.02 | -0.03 to -0.01 |" in drawn  # an error, of which less is better
    assert "| exchange | 0.1 | 0 to 0.2 |" in drawn


def test_a_page_without_markers_stays() -> None:
    assert render_page("# Title\ntext\n", []) == "# Title\ntext\n"


def test_rows_are_chosen_by_value_and_columns_by_name() -> None:
    drawn = render_page(page("bench_rows rows table=rates columns=per_second,arm"), [TABLE])
    assert "| per second | arm |\n|---:|---|\n| 2.5 | ours |\n" in drawn
    assert "shares" not in drawn.split("-->", 1)[1]


def test_a_grid_is_one_figure_of_two_keys() -> None:
    rows = [
        {"table": "corruptions", "arm": arm, "corruption": name, "severity": severity, "accuracy": share}
        for arm, share in (("plain", 0.5), ("ours", 0.75))
        for name in ("fog", "snow")
        for severity in (1, 5)
    ]
    found = [replace(SPEED, rows=[*rows, {"table": "corruptions", "arm": "late", "corruption": "snow", "severity": 5, "accuracy": 1.0}])]
    drawn = render_page(page("bench_toy grid table=corruptions severity=5 down=corruption across=arm value=accuracy"), found)
    assert "| corruption | plain | ours | late |\n|---|---:|---:|---:|\n| fog | 0.5 | 0.75 |  |\n| snow | 0.5 | 0.75 | 1 |\n" in drawn
    for marker, words in (
        ("down=corruption across=arm value=accuracy", "several rows of corruption fog and arm plain"),
        ("severity=5 down=corruption across=arm", "lacks 'value'"),
        ("severity=5 down=corruption across=net value=accuracy", "a row without 'net'"),
    ):
        with pytest.raises(ConfigError, match=words):
            render_page(page(f"bench_toy grid {marker}"), found)


def test_rows_of_another_table_are_left_out_by_the_first_column() -> None:
    body = render_page(page("bench_rows rows columns=share,arm"), [TABLE]).split("-->", 1)[1]
    assert "| 1 | all |" in body
    assert "ours" not in body


def test_gains_carry_the_verdict_of_their_interval() -> None:
    comparison = result(
        "compare_toys",
        {
            "gain_over_standard_scratch": Figure(value=0.052, low=0.01, high=0.094),
            "gain_over_real_guidance_scratch": Figure(value=-0.03, low=-0.05, high=-0.01),
            "gain_over_standard_resnet64": Figure(value=-0.001, low=-0.02, high=0.018),
        },
        notes=("weak generator",),
    )
    other = result("compare_animals", {"gain_over_standard_forty": Figure(value=0.01)})
    drawn = render_page(page("compare_* gains"), [comparison, other, SPEED])
    lines = drawn.splitlines()
    assert "| toys | scratch | +5.2 points (+1.0 to +9.4): helps | -3.0 points (-5.0 to -1.0): hurts |" in lines
    assert "| toys | resnet-64 | -0.1 points (-2.0 to +1.8): no evidence |  |" in lines
    assert "| animals | forty | +1.0 points: no evidence |  |" in lines
    assert drawn.index("animals") < drawn.index("toys")
    assert drawn.count("compare_toys: weak generator") == 1
    both = render_page(page("compare_* gains"), [comparison, replace(other, notes=("weak generator",))])
    assert "\nweak generator  \n" in both
    strong = render_page(page("compare_toys gains"), [replace(comparison, notes=("**Mind** this", "and this"))])
    assert strong.index("**Mind** this") < strong.index("| toys |") < strong.index("and this")


@pytest.mark.parametrize(
    ("marker", "error", "words"),
    [
        ("gone", DataError, "names no result; there is bench_rows, bench_toy"),
        ("bench_toy pie", ConfigError, "unknown view 'pie'"),
        ("bench_toy headline a=b", ConfigError, "takes no options"),
        ("bench_toy rows", DataError, "no row of bench_toy has anything"),
        ("bench_rows rows columns=arm,pace", ConfigError, "no column 'pace'"),
        ("bench_rows rows columns=", ConfigError, "KEY=VALUE"),
        ("bench_toy gains", DataError, "holds no gains"),
    ],
)
def test_a_wrong_marker_is_named(marker: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        render_page(page(marker), [SPEED, TABLE])


@pytest.mark.parametrize(
    "text", ["<!-- results:bench_toy -->\n", "<!-- /results -->\n", "<!-- results:bench_toy -->\n" + page("bench_toy")]
)
def test_half_a_marker_is_an_error(text: str) -> None:
    with pytest.raises(DataError, match="other half"):
        render_page(text, [SPEED])


def test_the_command_writes_checks_and_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result("toy", {"gain": 0.5}, [], 3.0, folder=tmp_path, command="toy")
    readme = tmp_path / "README.md"
    readme.write_text(page("toy"))
    told = [str(readme), "--results", str(tmp_path)]
    assert main([*told, "--check"]) == 1
    assert readme.read_text() == page("toy")
    assert main(told) == 0
    assert "| gain | 0.5 |" in readme.read_text()
    assert main([*told, "--check"]) == 0
    readme.write_text(page("other"))
    assert main(told) == 2
    assert "README.md: the marker results:other names no result" in capsys.readouterr().err


def test_the_pages_of_this_repository_are_up_to_date(root: Path) -> None:
    pages = [root / "README.md", *sorted((root / "docs").glob("**/*.md"))]
    assert main([*map(str, pages), "--results", str(root / "results"), "--check"]) == 0
