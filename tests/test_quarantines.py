"""No test is left out without a reason that ``QUARANTINES.md`` gives."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SKIPS = re.compile(r"importorskip\(|mark\.skip|pytest\.skip\(|by_kernels")
FILES = [path.name for path in sorted(TESTS.glob("test_*.py")) if SKIPS.search(path.read_text())]


@pytest.mark.parametrize("name", [name for name in FILES if name != Path(__file__).name])
def test_a_file_that_may_skip_tests_is_listed_with_the_reason(name):
    assert f"`{name}`" in (TESTS / "QUARANTINES.md").read_text()
