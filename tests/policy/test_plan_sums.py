"""Build or buy: the sums, exact in decimals, and what must hold of them whatever the numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cascade.policy.plan import DAYS, Expert, Machine, Option, Tier, Workload, break_even, options, tokens_usd

NONE = Decimal(0)


def tier(name: str, *, local: bool = False, usd: str = "0", calls: str = "0", seconds: str = "0") -> Tier:
    price = Decimal(usd)
    return Tier(name, local, price, price, Decimal(calls), Decimal(seconds))


def work(requests: Any = 1000, tiers: tuple[Tier, ...] = (), **expert: Any) -> Workload:
    values = {
        "answers": Decimal("0.5"), "seconds": Decimal("0.01"), "rows": Decimal(1000),
        "usd_a_row": Decimal("0.2"), "days": Decimal(5), "usd_a_day": Decimal(700),
        "drifts_a_year": Decimal(1), "relabelled": Decimal("0.3"), "drift_days": Decimal(1),
    }  # fmt: skip
    machine = Machine(Decimal("0.1"), Decimal("0.5"), Decimal(1))
    return Workload(
        Decimal(requests), tiers or (tier("opus", usd="0.001"),), machine, Expert(**values | expert)
    )


def by_role(found: list[Option]) -> dict[str, Option]:
    return {option.role: option for option in found}


def test_the_classic_sum_is_exact() -> None:
    """$0.02 per 1,000 tokens × 500 tokens × 100,000 requests a day = $1,000 a day = $365,000 a year."""
    usd = tokens_usd(Decimal(500), NONE, Decimal("0.02") * 1000, NONE)
    bought = by_role(options(work(100_000, (tier("opus", usd=str(usd)),))))["strongest"]
    assert bought.day_usd == Decimal(1000)
    assert bought.year_usd == bought.first_year_usd == Decimal(365_000)


def test_a_cascade_pays_each_tier_that_it_asks_and_its_machine() -> None:
    tiers = (tier("haiku", local=True, calls="1", seconds="0.02"), tier("opus", usd="0.01", calls="0.25"))
    found = by_role(options(work(1000, tiers)))
    assert found["strongest"].day_usd == Decimal(10)
    assert found["tier"].day_usd == Decimal("2.4")  # one machine around the clock, though busy for 40 s
    assert found["cascade"].day_usd == Decimal("2.5") + Decimal("2.4")


def test_machines_grow_with_what_they_have_to_do() -> None:
    tiers = (tier("haiku", local=True, calls="1", seconds="1"), tier("opus", usd="0.01"))
    busy = by_role(options(work(432_000, tiers)))["tier"]
    assert busy.day_usd == Decimal("0.1") * 432_000 / 3600 / Decimal("0.5")  # ten machines at half load


def test_an_expert_costs_its_rows_its_days_and_its_drift() -> None:
    found = by_role(options(work(1000, (tier("opus", usd="0.01"),))))["expert"]
    assert found.once_usd == 1000 * Decimal("0.2") + 5 * 700
    assert found.day_usd == Decimal(5) + Decimal("2.4") + (Decimal(60) + 700) / DAYS


def test_break_even_is_the_day_on_which_the_sums_meet() -> None:
    build = Option("expert", "expert", Decimal(100), Decimal(1))
    assert break_even(build, Option("opus", "strongest", NONE, Decimal(3))) == 50
    assert break_even(build, Option("opus", "strongest", NONE, Decimal("2.99"))) == 51
    assert break_even(build, Option("opus", "strongest", NONE, Decimal(1))) is None
    assert break_even(build._replace(once_usd=NONE), Option("opus", "strongest", NONE, Decimal(1))) == 0


amounts = st.decimals(0, 1000, places=4, allow_nan=False, allow_infinity=False)
shares = st.decimals(0, 1, places=3, allow_nan=False, allow_infinity=False)
volumes = st.integers(1, 10_000_000)


@given(once=amounts, build=amounts, buy=amounts)
def test_break_even_agrees_with_the_first_year(once: Decimal, build: Decimal, buy: Decimal) -> None:
    built, bought = Option("e", "expert", once, build), Option("o", "strongest", NONE, buy)
    day = break_even(built, bought)
    assert (day is not None and day <= DAYS) == (built.first_year_usd <= bought.first_year_usd)
    if day:
        assert built.after(day) <= bought.after(day)
        assert built.after(day - 1) > bought.after(day - 1)


@given(requests=volumes, more=volumes, price=amounts, answers=shares, calls=shares)
def test_no_option_gets_cheaper_with_volume(
    requests: int, more: int, price: Decimal, answers: Decimal, calls: Decimal
) -> None:
    tiers = (
        tier("haiku", local=True, calls="1", seconds="0.5"),
        tier("opus", usd=str(price), calls=str(calls)),
    )
    less, many = (options(work(volume, tiers, answers=answers)) for volume in (requests, requests + more))
    assert all(few.day_usd <= lots.day_usd for few, lots in zip(less, many, strict=True))


@given(price=amounts, more=amounts, answers=shares, calls=shares)
def test_no_option_gets_cheaper_with_the_price(
    price: Decimal, more: Decimal, answers: Decimal, calls: Decimal
) -> None:
    def at(usd: Decimal) -> list[Option]:
        haiku = tier("haiku", local=True, calls="1", seconds="0.5")
        return options(work(1000, (haiku, tier("opus", usd=str(usd), calls=str(calls))), answers=answers))

    cheap, dear = at(price), at(price + more)
    assert all(few.day_usd <= lots.day_usd for few, lots in zip(cheap, dear, strict=True))
    assert [option.name for option in cheap] == [
        "haiku alone", "opus alone", "the cascade", "an expert, then opus",
    ]  # fmt: skip
