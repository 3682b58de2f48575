"""The composition root: the only package that names every part."""

from app.main.data_dir import DataDirTaken, hold_data_dir
from app.main.first_run import FirstRun
from app.main.gateway import Gateway, Prepared, open_gateway
from app.main.preparation import empty_metrics_dir, prepare
from app.main.state import check_canary, open_seal, read_seal
from app.main.upstreams import new_simulator, simulator_socket

__all__ = [
    "DataDirTaken",
    "FirstRun",
    "Gateway",
    "Prepared",
    "check_canary",
    "empty_metrics_dir",
    "hold_data_dir",
    "new_simulator",
    "open_gateway",
    "open_seal",
    "prepare",
    "read_seal",
    "simulator_socket",
]
