"""The life of a request: ``pipeline.py`` knows the order, the other files one stage each."""

from app.pipeline.desk import Desk, Drains
from app.pipeline.pipeline import Parts, Pipeline

__all__ = ["Desk", "Drains", "Parts", "Pipeline"]
