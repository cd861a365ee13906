"""Work on recorded data: collecting outcomes, tuning, evaluating, calibrating, replaying and monitoring.

Each function does what the command of that name does, and returns records instead of printing. They are
loaded on first use, because some import NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cascade._lazy import lazy_names
from cascade.extras import TUNE_PACKAGES, missing_package

if TYPE_CHECKING:
    from cascade.lab.evaluation.calibration import CalibrationRun, calibrate
    from cascade.lab.evaluation.evaluation import Evaluation, evaluate
    from cascade.lab.evaluation.report import report_page
    from cascade.lab.inventory.challenge import Challenger, ChallengeReport, challenge
    from cascade.lab.inventory.experts import ExpertReport, Inventory, experts
    from cascade.lab.learning.ask import Picked, pick_questions
    from cascade.lab.learning.learn import learn
    from cascade.lab.learning.result import Learned
    from cascade.lab.learning.session import StoppedError
    from cascade.lab.monitoring.monitor import MonitorReport, StageReport, monitor
    from cascade.lab.monitoring.promotion import Promoted, PromotionTest, promote, rollback
    from cascade.lab.monitoring.tightening import reset_thresholds
    from cascade.lab.planning.assumptions import write_assumptions
    from cascade.lab.planning.page import plan_page
    from cascade.lab.planning.plan import Plan, plan
    from cascade.lab.reading.from_traces import TraceOptions
    from cascade.lab.reading.row_reading import RowOptions
    from cascade.lab.replays.stored import ReplayReport, replay
    from cascade.lab.tables.collect import collect_outcomes
    from cascade.lab.tables.graded import outcomes_from_traces
    from cascade.lab.tables.outcomes import read_outcomes, write_outcomes
    from cascade.lab.tables.rows import LabelledRow
    from cascade.lab.tuning.promise import Refusal
    from cascade.lab.tuning.tune import tune
    from cascade.policy.artifact import Goal, Policy
    from cascade.policy.table import Outcomes

__all__ = [
    "CalibrationRun",
    "ChallengeReport",
    "Challenger",
    "Evaluation",
    "ExpertReport",
    "Goal",
    "Inventory",
    "LabelledRow",
    "Learned",
    "MonitorReport",
    "Outcomes",
    "Picked",
    "Plan",
    "Policy",
    "Promoted",
    "PromotionTest",
    "Refusal",
    "ReplayReport",
    "RowOptions",
    "StageReport",
    "StoppedError",
    "TraceOptions",
    "calibrate",
    "challenge",
    "collect_outcomes",
    "evaluate",
    "experts",
    "learn",
    "monitor",
    "outcomes_from_traces",
    "pick_questions",
    "plan",
    "plan_page",
    "promote",
    "read_outcomes",
    "replay",
    "report_page",
    "reset_thresholds",
    "rollback",
    "tune",
    "write_assumptions",
    "write_outcomes",
]

if not TYPE_CHECKING:  # a type checker reads the imports above instead
    _load = lazy_names(
        __name__,
        {
            "cascade.lab.evaluation.calibration": "CalibrationRun calibrate",
            "cascade.lab.evaluation.evaluation": "Evaluation evaluate",
            "cascade.lab.evaluation.report": "report_page",
            "cascade.lab.inventory.challenge": "ChallengeReport Challenger challenge",
            "cascade.lab.inventory.experts": "ExpertReport Inventory experts",
            "cascade.lab.learning.learn": "learn",
            "cascade.lab.learning.result": "Learned",
            "cascade.lab.learning.ask": "Picked pick_questions",
            "cascade.lab.reading.from_traces": "TraceOptions",
            "cascade.lab.reading.row_reading": "RowOptions",
            "cascade.lab.learning.session": "StoppedError",
            "cascade.lab.monitoring.monitor": "MonitorReport StageReport monitor",
            "cascade.lab.monitoring.promotion": "Promoted PromotionTest promote rollback",
            "cascade.lab.monitoring.tightening": "reset_thresholds",
            "cascade.lab.planning.assumptions": "write_assumptions",
            "cascade.lab.planning.page": "plan_page",
            "cascade.lab.planning.plan": "Plan plan",
            "cascade.lab.replays.stored": "ReplayReport replay",
            "cascade.lab.tables.collect": "collect_outcomes",
            "cascade.lab.tables.graded": "outcomes_from_traces",
            "cascade.lab.tables.outcomes": "read_outcomes write_outcomes",
            "cascade.lab.tables.rows": "LabelledRow",
            "cascade.lab.tuning.promise": "Refusal",
            "cascade.lab.tuning.tune": "tune",
            "cascade.policy.artifact": "Goal Policy",
            "cascade.policy.table": "Outcomes",
        },
    )

    def __getattr__(name: str) -> Any:
        try:
            return _load(name)
        except ModuleNotFoundError as error:
            if error.name not in TUNE_PACKAGES:
                raise
            advice = missing_package(f"cascade.lab.{name}", error, "tune")
            raise ModuleNotFoundError(advice, name=error.name) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
