"""The tasks, size and training length of each teacher and each bundled expert."""

from __future__ import annotations

from dataclasses import dataclass

from cascade.lab.training.teacher import TeacherSettings


@dataclass(frozen=True, slots=True)
class TeacherPlan:
    """One teacher: its tasks, and the outliers that join CLINC150's own `oos` rows."""

    name: str
    tasks: tuple[str, ...]
    settings: TeacherSettings
    questions: int = 0
    hollow: int = 0
    reports: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that defines one expert except the data and the teachers."""

    name: str
    tier: str
    tasks: tuple[str, ...]
    vocab: int
    width: int
    layers: int
    heads: int
    feed: int
    passes: float
    rate: float
    kind: str = "Q8_0"
    dropout: float = 0.1
    noise: float = 0.06
    decay: float = 0.05
    batch_tokens: int = 2048
    keep_labels: int = 3
    desk_share: int = 8
    polish_passes: float = 1.0
    polish_rate: float = 1.2e-3
    vector_weight: float = 1.0
    seed: int = 0


ASSISTANTS = ("clinc150", "banking77")
LIMITS = {"clinc150": 64, "banking77": 128, "desk": 128, "tram": 160}

TEACHERS = (
    TeacherPlan(
        "a",
        ASSISTANTS,
        TeacherSettings(epochs=6, batch=48, max_tokens=48, outliers=600, seed=1),
        reports=True,
    ),
    TeacherPlan(
        "b",
        ASSISTANTS,
        TeacherSettings(epochs=6, batch=48, max_tokens=48, outliers=3000, seed=2),
        questions=20000,
        hollow=4000,
        reports=True,
    ),
    TeacherPlan("tram", ("tram",), TeacherSettings(epochs=10, batch=24, max_tokens=128)),
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("tiny", "haiku", (*ASSISTANTS, "desk"), 6000, 192, 3, 6, 512, passes=2.5, rate=2.5e-3),
        Recipe(
            "hunter",
            "haiku",
            ("tram",),
            6000,
            192,
            3,
            6,
            512,
            passes=4.0,
            rate=2e-3,
            dropout=0.2,
            noise=0.18,
            seed=3,
        ),
        Recipe(
            "small", "sonnet", (*ASSISTANTS, "tram"), 10000, 320, 4, 8, 864, passes=2.6, rate=1.5e-3, seed=2
        ),
    )
}
