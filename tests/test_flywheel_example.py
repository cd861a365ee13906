"""The flywheel example, shortened: a candidate is promoted, a bad one refused, a change of requests seen."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_short_month_gets_cheaper_with_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "flywheel"))
    ids = count(1)
    monkeypatch.setattr("cascade.run._cascade.new_run_id", lambda: f"{next(ids):026d}")  # they draw the lots
    import flywheel
    from picture import draw
    from student import School
    from traffic import make_month, own_rows

    month = make_month(own_rows(), days=15, requests=150, change=11, new_share=0.6)
    school = School(tmp_path, flywheel.MAX_RISK, flywheel.DELTA)
    wheel = flywheel.Flywheel(tmp_path, month, school, audit_rate=0.3, epsilon=0.1, bad_day=4)
    days = flywheel.simulate(wheel, say=False)
    events = [(day.number, event) for day in days for event in day.events]
    bad = next(event.split()[0] for _, event in events if "mixed up" in event)
    assert f"{bad} refused" in " ".join(event for _, event in events)
    assert not any(event.startswith(f"{bad} promoted") for _, event in events)
    assert any("promoted" in event for _, event in events)
    caught = next(number for number, event in events if "drift caught" in event)
    assert caught >= 11
    assert days[0].cost_usd == pytest.approx(150 * flywheel.OPUS_USD)
    assert sum(day.cost_usd for day in days[5:9]) < 0.6 * 4 * 150 * flywheel.OPUS_USD
    assert days[caught].by_student == 0  # an alarm ends the certificate
    answers, wrong = sum(day.by_student for day in days[:10]), sum(day.wrong for day in days[:10])
    assert answers > 300
    assert wrong <= flywheel.MAX_RISK * answers
    picture = draw(days, change=11, promise=flywheel.MAX_RISK)
    assert picture.startswith("<svg")
    assert "drift caught" in picture
    sys.modules.pop("flywheel")


def test_a_month_has_something_new_from_the_change_on_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "flywheel"))
    from traffic import make_month, own_rows

    month = make_month(own_rows(), days=6, requests=100, change=4, seed=1)
    fresh = [sum(asked.label in month.new for asked in day) for day in month.days]
    assert fresh == [0, 0, 0, 30, 30, 30]
    assert month == make_month(own_rows(), days=6, requests=100, change=4, seed=1)
    assert [len(day) for day in month.days] == [100] * 6
