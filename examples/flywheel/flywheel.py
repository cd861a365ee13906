"""A month of a cascade that gets cheaper by itself, with proof.

    python examples/flywheel/flywheel.py [--data DIR] [--days 30] [--requests 300] [--out DIR]

Every request is a real run of a real graph: a small local expert first, then a scripted opus that gives the
data set's own label and costs $1 per 1,000 calls. Each night the stored runs are read: a candidate that runs
as a shadow is promoted once it is proved not worse, the scores are watched for drift, and a new candidate is
learned from what opus has answered so far. On one day the requests change; on another a bad candidate is
made. DIR holds CLINC150's data_full.json; without it a small set of our own is used.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from picture import draw
from student import School, Student
from traffic import Asked, Month, make_month, own_rows, read_clinc150

from cascade import Cascade, lab
from cascade.lab.monitoring.drift import References
from cascade.lab.reading.from_traces import TraceOptions, rows_from_traces
from cascade.policy.bounds import risk_upper
from cascade.policy.decide import lot

OPUS_USD = 0.001  # a call
MAX_RISK, DELTA = 0.02, 0.05  # among what the student answers
HELD_OUT = 400  # of the runs drawn for an audit, at most the newer half: they certify a threshold
GROWTH = 1.25  # rows of a new candidate, as a multiple of those of the last one
SPOILED = 0.35  # of the labels are mixed up for the bad candidate


@dataclass
class Day:
    """What happened on one day; `by_student` answers, of which `wrong` are not the data set's label."""

    number: int
    requests: int
    cost_usd: float = 0.0
    by_student: int = 0
    wrong: int = 0
    student: str = "opus"
    events: list[str] = field(default_factory=list)


@dataclass
class Flywheel:
    """The cascade at work: its folder, the model that answers first, and the candidate beside it."""

    folder: Path
    month: Month
    school: School
    audit_rate: float = 0.15
    epsilon: float = 0.03
    seed: int = 0
    bad_day: int = 0
    current: Student | None = None
    candidate: Student | None = None
    learned_rows: int = 0
    alarm_rows: int = 0
    unselected: set[str] = field(default_factory=set)
    bad: str = ""
    days: list[Day] = field(default_factory=list)

    @property
    def graph(self) -> Path:
        """The graph file."""
        return self.folder / "flywheel.yaml"

    @property
    def traces(self) -> str:
        """The trace store."""
        return str(self.folder / "traces.db")

    @property
    def reference(self) -> Path:
        """What the student's scores look like without drift."""
        return self.folder / "reference.json"

    def begin(self) -> None:
        """Lay down opus and a graph that asks nobody else."""
        answers = {asked.text: asked.label for day in self.month.days for asked in day}
        (self.folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")
        shutil.copy(Path(__file__).with_name("opus.py"), self.folder)
        self.write_graph()

    def write_graph(self) -> None:
        """Write the graph: the current student if there is one, its candidate as a shadow, then opus."""
        opus = {"kind": "python", "tier": "opus", "call": "opus.py:answer", "labels": self.month.labels}
        models = {each.name: each.model for each in (self.current, self.candidate) if each is not None}
        models["opus"] = {**opus, "price_per_call": OPUS_USD}
        stages = [{"name": "last", "ask": ["opus"]}]
        if self.current is not None:
            first: dict[str, object] = {"name": "first", "ask": [self.current.name]}
            first |= {"confidence": self.current.confidence, "accept": self.current.accept}
            first["audit_rate"] = self.audit_rate
            if self.candidate is not None:
                first["shadow"] = {"model": self.candidate.name, "share": 1.0}
            stages.insert(0, first)  # type: ignore[arg-type]
        lines = ["name: flywheel", "models:"]
        lines += [f"  {name}: {json.dumps(settings)}" for name, settings in models.items()]
        lines += ["stages:", *(f"  - {json.dumps(stage)}" for stage in stages)]
        self.graph.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def run_day(self, number: int) -> Day:
        """Answer the requests of a day, and then think about them for a night."""
        asked = self.month.days[number - 1]
        day = Day(number, len(asked), student=self.current.name if self.current else "opus")
        with Cascade.load(self.graph, trace_db=self.traces) as cascade:
            results = cascade.batch([each.text for each in asked])
        for result, right in zip(results, asked, strict=True):
            day.cost_usd += result.cost_usd
            if result.model != "opus" and result.text is not None:
                day.by_student += 1
                day.wrong += result.text != right.label
        self.days.append(day)
        self.night(day)
        return day

    def night(self, day: Day) -> None:
        """Watch, decide about the candidate, and learn a new one where there is reason to."""
        rows = rows_from_traces(self.graph, TraceOptions(trace_db=self.traces))
        told = [(row.id, Asked(row.text, row.label)) for row in rows.rows]
        if self.current is None:  # nobody was sure or unsure: all of the day's runs went to opus
            self.unselected |= {run for run, _ in told[-day.requests :]}
        elif self.watch(day):
            self.stop(told)
            return
        self.judge(day)
        spoil = (
            bool(self.bad_day) and day.number >= self.bad_day and not self.bad and self.current is not None
        )
        grown = self.candidate is None and len(told) >= GROWTH * self.learned_rows
        if self.current is None or spoil or grown:
            self.learn(day, told, spoil=spoil)

    def stop(self, told: Sequence[tuple[str, Asked]]) -> None:
        """Ask opus alone from now on: the certificate was for other requests. Only new rows make another."""
        self.current, self.candidate, self.alarm_rows = None, None, len(told)
        self.write_graph()

    def watch(self, day: Day) -> bool:
        """Return whether the student's scores drifted from those on the rows that were held out for it."""
        report = lab.monitor(self.graph, reference=self.reference, trace_db=self.traces)
        if not report.drifted:
            return False
        (first,) = (stage for stage in report.stages if stage.stage == "first")
        day.events.append(f"drift caught (accepts {first.live:.0%}, was {first.reference:.0%})")
        return True

    def asks(self, student: Student) -> None:
        """Let `student` answer first from now on, and know what its scores look like without drift."""
        self.current, self.candidate = student, None
        written = datetime.now(UTC).isoformat(timespec="seconds")
        known = References(graph=student.name, written=written, stages={"first": student.reference})
        self.reference.write_text(known.model_dump_json(), encoding="utf-8")

    def judge(self, day: Day) -> None:
        """Promote the candidate if there is one, drop it, or wait for more rows."""
        if self.candidate is None:
            return
        name = self.candidate.name
        promoted = lab.promote(
            self.graph, "first", name, epsilon=self.epsilon, delta=DELTA, accept=self.candidate.accept,
            trace_db=self.traces,
        )  # fmt: skip
        pairs = promoted.test.rows.pairs
        seen = f"{pairs.worse:.0f} worse, {pairs.equal:.0f} equal, {pairs.better:.0f} better"
        if promoted.done:
            day.events.append(f"{name} promoted ({seen})")
            self.asks(self.candidate)
        elif promoted.test.verdict == "worse":
            day.events.append(f"{name} refused ({seen})")
            self.candidate = None
            self.write_graph()

    def learn(self, day: Day, told: Sequence[tuple[str, Asked]], *, spoil: bool) -> None:
        """Learn a candidate from the rows of runs; without a certificate it is not used.

        Where a student answers first, opus answered two kinds of runs: those that the student was unsure of,
        and those drawn for an audit. Only the second are a fair sample of all requests. Where opus is alone,
        all are. The newest of the fair ones since the last alarm certify the threshold.
        """
        name, self.learned_rows = f"day-{day.number:02d}", len(told)
        fair = [run for run, _ in told[self.alarm_rows :] if self.is_fair(run)]
        held_out = set(fair[-min(HELD_OUT, len(fair) // 2) :])
        if spoil:
            self.bad = name
            told = _spoiled(told, random.Random(self.seed))
        rows = [row for run, row in told if run not in held_out]
        student = self.school.learn(name, rows, [row for run, row in told if run in held_out])
        what = "learned with labels mixed up" if spoil else "learned"
        promise = f"accept {student.accept:g}" if student.certified else "not certified, not used"
        day.events.append(f"{name} {what} ({student.rows} rows, {len(held_out)} held out; {promise})")
        if not student.certified:
            return
        if self.current is None:
            self.asks(student)
        else:
            self.candidate = student
        self.write_graph()

    def is_fair(self, run: str) -> bool:
        """Return whether opus was asked whatever a student thought of the request."""
        return run in self.unselected or lot(run, "first") < self.audit_rate


def _spoiled(told: Sequence[tuple[str, Asked]], drawn: random.Random) -> list[tuple[str, Asked]]:
    """Return the rows as somebody exported them with a wrong column: some labels stand for others."""
    labels = sorted({row.label for _, row in told})
    mixed = drawn.sample(labels, max(2, round(SPOILED * len(labels))))
    instead = dict(zip(mixed, mixed[1:] + mixed[:1], strict=True))
    return [(run, row._replace(label=instead.get(row.label, row.label))) for run, row in told]


def simulate(wheel: Flywheel, *, say: bool = True) -> list[Day]:
    """Run the month; return its days."""
    wheel.begin()
    if say:
        print(HEAD)
    for number in range(1, len(wheel.month.days) + 1):
        day = wheel.run_day(number)
        if say:
            print(table_row(day), flush=True)
    return wheel.days


HEAD = "day  first asks  $ per 1,000  by student  wrong of these  events"


def table_row(day: Day) -> str:
    """Return a day as a row of the table."""
    cost = 1000 * day.cost_usd / day.requests
    return (
        f"{day.number:>3}  {day.student:<10}  {cost:>11.3f}  {day.by_student / day.requests:>10.1%}  "
        f"{day.wrong:>14}  {'; '.join(day.events)}"
    )


def summary(days: Sequence[Day], change: int) -> list[str]:
    """Return what the month came to; the requests were others from day `change` on."""
    requests, cost = sum(day.requests for day in days), sum(day.cost_usd for day in days)
    week = min(7, len(days))
    first, last = (
        sum(d.cost_usd for d in part) / sum(d.requests for d in part) for part in (days[:week], days[-week:])
    )
    caught = [day.number for day in days if any(event.startswith("drift caught") for event in day.events)]
    until = min((number for number in caught if number >= change), default=len(days))
    unseen = [day for day in days if change <= day.number <= until]
    return [
        f"{requests} requests for ${cost:.2f}; opus alone ${requests * OPUS_USD:.2f}",
        f"$ per 1,000 requests: {1000 * first:.3f} in the first {week} days, {1000 * last:.3f} in the last",
        f"wrong among what students answered: {errors([day for day in days if day not in unseen])}; "
        f"asked for: at most {MAX_RISK:.0%}",
        f"while the change was not caught yet ({len(unseen)} days): {errors(unseen)}",
    ]


def errors(days: Sequence[Day]) -> str:
    """Return the errors of the students on some days, with an exact interval."""
    answers, wrong = sum(day.by_student for day in days), sum(day.wrong for day in days)
    if not answers:
        return "no answer"
    low, high = 1 - risk_upper(answers - wrong, answers, 0.025), risk_upper(wrong, answers, 0.025)
    return f"{wrong} of {answers} ({wrong / answers:.2%}, 95 % interval {low:.2%} to {high:.2%})"


def main() -> None:
    """Run the month, print its table, and draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with CLINC150's data_full.json")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--requests", type=int, default=300, help="a day")
    parser.add_argument("--change", type=int, default=19, help="day on which the requests change")
    parser.add_argument("--bad", type=int, default=12, help="day on which a bad candidate is made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="folder for graph, experts and traces; default: one that goes"
    )
    parser.add_argument("--plot", type=Path, default=Path("flywheel.svg"))
    args = parser.parse_args()
    rows = read_clinc150(args.data) if args.data else own_rows()
    month = make_month(rows, days=args.days, requests=args.requests, change=args.change, seed=args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        school = School(folder, MAX_RISK, DELTA, args.seed)
        days = simulate(Flywheel(folder, month, school, seed=args.seed, bad_day=args.bad))
    print("\n".join(summary(days, args.change)))
    args.plot.write_text(draw(days, change=args.change, promise=MAX_RISK), encoding="utf-8")
    print(f"drawn: {args.plot}")


if __name__ == "__main__":
    main()
