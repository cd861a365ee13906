"""Comparing stored runs with each stage's calibration data, and what follows from drift and other alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from cascade.config.load import LoadedGraph, load_graph
from cascade.errors import ConfigError, RequestError
from cascade.explain.formatting import parse_since
from cascade.files import replace_file
from cascade.lab.monitoring.alarms import PromotionWatch, watch_promotion
from cascade.lab.monitoring.collect import WatchedStage, collect
from cascade.lab.monitoring.drift import Drift, Reference, References, Verdict, drift, read_references
from cascade.lab.monitoring.tightening import Audited, tighten
from cascade.policy.calibrate import thin
from cascade.policy.tighten import Tightened
from cascade.records import Record
from cascade.trace import RunFilter, default_url, history, newest_grades


class Audits(Record):
    """Accepted answers that were passed on all the same: how many `runs`, `graded` and `agreed` ones.

    A later stage answered the graded ones, and gave the same answer to those that agreed.
    """

    runs: int
    graded: int
    agreed: int


class StageReport(Record):
    """What the stored runs say about one checked stage.

    Attributes:
        stage: its name.
        runs: how many live runs have a score.
        since: the time from which runs count, ISO 8601; None if all do.
        unmeasured: how many answers had no score.
        reference: share of the reference scores that the stage's threshold accepts; None without one.
        live: the same share of the live scores.
        e_value: the evidence for drift so far; at 1 there is none.
        verdict: `ok`, `drifted`, `too few runs` or `no reference`.
        why: why there is no reference.
        first_alarm: the run in which the alarm was reached.
        audits: the audited answers.
        tightened: the threshold that holds now, if this stage was tightened.
    """

    stage: str
    runs: int
    since: str | None
    unmeasured: int
    reference: float | None = None
    live: float | None = None
    e_value: float | None = None
    verdict: Verdict = "no reference"
    why: str | None
    first_alarm: str | None = None
    audits: Audits
    tightened: Tightened | None = None


class MonitorReport(Record):
    """What the stored runs say about the checked stages of a graph (`name@digest`)."""

    graph: str
    delta: float
    stages: tuple[StageReport, ...]
    promotion: PromotionWatch | None = None

    @property
    def drifted(self) -> bool:
        """Whether any stage drifted."""
        return any(report.verdict == "drifted" for report in self.stages)

    @property
    def alarmed(self) -> bool:
        """Whether any stage drifted, or an alarm was raised against a promoted model."""
        return self.drifted or (self.promotion is not None and bool(self.promotion.alarms))


def monitor(
    graph: str | Path,
    *,
    since: str | None = None,
    reference: str | Path | None = None,
    write_reference: str | Path | None = None,
    delta: float = 0.01,
    trace_db: str | None = None,
) -> MonitorReport:
    """Compare the stored runs of a graph with each stage's calibration data, or with earlier runs.

    A stage that drifted and has `on_drift: tighten` gets a threshold that its audits support. It is kept in
    the graph's drift file until `reset_thresholds` removes it. An alarm against a promoted model undoes the
    promotion if the stage has `on_alarm: rollback`; nothing is tightened then.

    Args:
        graph: the graph file.
        since: count runs that started then or later, ISO 8601; default: since the stage was calibrated, or
            all runs with `reference`.
        reference: compare with this file, which `write_reference` made, and not with the calibrations.
        write_reference: write the scores of these runs to this file.
        delta: the probability of a false alarm, ever, per stage.
        trace_db: the trace store, a SQLAlchemy URL or a file; default: the usual one.

    Raises:
        ConfigError: the graph, a calibration or the reference file is invalid.
        RequestError: `since` is not a time, or the reference cannot be written.
        TraceError: the trace store cannot be read.
    """
    loaded = load_graph(graph, tightened=False)
    given = read_references(reference) if reference else None
    version = f"{loaded.graph.name}@{loaded.digest}"
    where = RunFilter(graph=version, since=parse_since(since))
    url = default_url() if trace_db is None else trace_db
    stages = collect(loaded, history(url, where), given=given, dated=since is None)
    reports = [_report(loaded, watched, given, delta) for watched in stages]
    drifted = {report.stage: report.e_value or 1.0 for report in reports if report.verdict == "drifted"}
    runs, grades = history(url, where), newest_grades(url, where)
    promotion = watch_promotion(loaded, runs, grades, drifted=drifted, delta=delta)
    undone = promotion is not None and promotion.undone
    tightened = {} if undone else tighten(loaded, _to_tighten(stages, reports))
    reports = [report.model_copy(update={"tightened": tightened.get(report.stage)}) for report in reports]
    if write_reference:
        _write_reference(Path(write_reference), version, stages)
    return MonitorReport(graph=version, delta=delta, stages=tuple(reports), promotion=promotion)


def stage_reports(loaded: LoadedGraph, url: str, *, delta: float = 0.01) -> list[StageReport]:
    """Return what `monitor` says of the stages of a graph, and change nothing.

    Args:
        loaded: the graph, with the thresholds that its file has.
        url: the trace store.
        delta: the probability of a false alarm, ever, per stage.

    Raises:
        TraceError: the trace store cannot be read.
    """
    stages = collect(loaded, history(url, RunFilter(graph=loaded.version)), given=None, dated=True)
    return [_report(loaded, watched, None, delta) for watched in stages]


def _to_tighten(
    stages: Sequence[WatchedStage], reports: Sequence[StageReport]
) -> dict[str, tuple[str, list[Audited]]]:
    """Return the stages to tighten: the run of the alarm, and the audits since then."""
    to_tighten = {}
    for watched, report in zip(stages, reports, strict=True):
        alarm = report.first_alarm
        if alarm is not None and watched.stage.on_drift == "tighten":
            since_alarm = set(watched.runs[watched.runs.index(alarm) :])
            audits = [audit for audit in watched.drawn if audit.run in since_alarm]
            to_tighten[watched.stage.name] = (alarm, audits)
    return to_tighten


def _report(
    loaded: LoadedGraph, watched: WatchedStage, given: Mapping[str, Reference] | None, delta: float
) -> StageReport:
    reference, why = _reference(loaded, watched, given)
    report = StageReport(
        stage=watched.stage.name,
        runs=len(watched.scores),
        since=watched.since,
        unmeasured=watched.unmeasured,
        why=why,
        audits=Audits(runs=watched.audits, graded=watched.graded, agreed=watched.agreed),
    )
    result = None if reference is None else _drift(loaded, watched, reference, delta)
    if result is None:
        return report
    update = {
        "reference": result.reference,
        "live": result.live,
        "e_value": result.e_value,
        "verdict": result.verdict,
        "first_alarm": None if result.since is None else watched.runs[result.since],
    }
    return report.model_copy(update=update)


def _drift(loaded: LoadedGraph, watched: WatchedStage, reference: Reference, delta: float) -> Drift | None:
    by_policy = watched.policy_threshold is not None
    accept = watched.policy_threshold if by_policy else watched.stage.accept
    calibration = None if by_policy else loaded.calibrations.get(watched.stage.name)
    confidence = calibration.apply if calibration else float
    if accept is None:
        return None
    return drift(reference, watched.scores, accept=accept, confidence=confidence, delta=delta)


def _reference(
    loaded: LoadedGraph, watched: WatchedStage, given: Mapping[str, Reference] | None
) -> tuple[Reference | None, str | None]:
    """Return what to compare the stage's live scores with, or why there is nothing.

    A calibration saw every row. Live, only the first stage sees every request: a later one gets what the
    stages before it passed on, and these scores are lower even if nothing drifted.
    """
    name, (by, signal) = watched.stage.name, watched.signal
    if given is not None:
        reference = given.get(name)
        if reference is not None and (reference.by, reference.signal) == (by, signal):
            return reference, None
        return None, f"the reference file has no scores by {by}, {signal}, of this stage"
    by_policy = watched.policy_threshold is not None
    calibration = None if by_policy else loaded.calibrations.get(name)
    if calibration is None:
        reason = "its policy decides" if by_policy else "it has no calibration"
        return None, f"{reason}; give --reference"
    if watched.stage != loaded.graph.stages[0]:
        return None, "it sees only what earlier stages pass on, its calibration saw all; give --reference"
    if not calibration.scores:
        return None, "its calibration holds no scores; fit it anew with 'cascade calibrate'"
    try:
        return Reference(by=by, signal=signal, rows=calibration.rows, scores=calibration.scores), None
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise ConfigError(
            f"{loaded.path}: calibration of stage {name!r}: scores: {message}; fit it anew"
        ) from None


def _write_reference(path: Path, version: str, stages: Sequence[WatchedStage]) -> None:
    references = {}
    for watched in stages:
        if watched.scores:
            by, signal = watched.signal
            references[watched.stage.name] = Reference(
                by=by, signal=signal, rows=len(watched.scores), scores=thin(watched.scores)
            )
    if not references:
        raise RequestError(f"{path}: not written: no stored run of {version} has a score")
    written = datetime.now(UTC).isoformat(timespec="seconds")
    text = References(graph=version, written=written, stages=references).model_dump_json() + "\n"
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}; give a writable file for --write-reference") from None
