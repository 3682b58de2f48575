"""The plain kinds of object, and everything else that is added to the routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.simulator.resources.containers import CONTAINER_PURPOSE, Containers
from app.simulator.resources.file_store import FileStore
from app.simulator.resources.files import Files, Uploads
from app.simulator.resources.moderations import moderate
from app.simulator.resources.stored_chats import StoredChats
from app.simulator.resources.table import Collection, Kind, Tables
from app.simulator.resources.vector_stores import VectorStores
from app.simulator.routes import Reply, json_reply

if TYPE_CHECKING:
    from app.core.clock import Clock
    from app.simulator.routes import Request, Routes

KINDS = (
    Kind(
        "fine_tuning/jobs",
        "ftjob-",
        "fine_tuning.job",
        needs=("model", "training_file"),
        members={
            "status": "running",
            "error": None,
            "fine_tuned_model": None,
            "finished_at": None,
            "hyperparameters": {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"},
            "organization_id": "org-simulator",
            "result_files": [],
            "seed": 0,
            "trained_tokens": None,
            "validation_file": None,
        },
        settled={"status": "succeeded", "fine_tuned_model": "ft:sim-mini:simulator::1", "finished_at": 0},
        cancelled={"status": "cancelled"},
    ),
    Kind("evals", "eval_", "eval", needs=("data_source_config", "testing_criteria"), members={"name": ""}),
    Kind(
        "evals/{}/runs",
        "evalrun_",
        "eval.run",
        needs=("data_source",),
        members={
            "status": "queued",
            "name": "",
            "model": "sim-mini",
            "error": None,
            "report_url": "http://simulator/evals",
            "result_counts": {"total": 0, "errored": 0, "failed": 0, "passed": 0},
            "per_model_usage": [],
            "per_testing_criteria_results": [],
        },
        settled={"status": "completed"},
        cancelled={"status": "canceled"},
        parent="eval_id",
        listed_by="asc",
    ),
    Kind(
        "skills",
        "skill_",
        "skill",
        members={"name": "skill", "description": "", "default_version": "1", "latest_version": "1"},
    ),
)
EMPTY_LISTS = ("fine_tuning/jobs/{}/events", "fine_tuning/jobs/{}/checkpoints", "evals/{}/runs/{}/output_items")


class Kept:
    """Everything that is kept for the plain endpoints."""

    def __init__(self, clock: Clock) -> None:
        self.tables = Tables(clock)
        self.files = FileStore(clock, unlisted=CONTAINER_PURPOSE)
        self.chats = StoredChats(self.tables)
        self._uploads = Uploads(self.files, clock)

    def add_to(self, routes: Routes) -> None:
        Files(self.files).add_to(routes)
        self._uploads.add_to(routes)
        self.chats.add_to(routes)
        VectorStores(self.tables, self.files).add_to(routes)
        Containers(self.tables, self.files).add_to(routes)
        for kind in KINDS:
            Collection(kind, self.tables).add_to(routes)
        routes.add("POST", "moderations", moderate)
        for pattern in EMPTY_LISTS:
            routes.add("GET", pattern, _list_nothing)

    def close(self) -> None:
        """Give the disk's room back."""
        self._uploads.close()
        self.files.close()

    def __repr__(self) -> str:
        return f"Kept({self.tables!r}, {self.files!r})"


async def _list_nothing(request: Request, *ids: str) -> Reply:
    del request, ids
    return json_reply({"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False})
