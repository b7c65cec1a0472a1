"""The one place that builds the system: which store, which bus, which projections a command works with.

Reading commands open the store read-only, beside whoever owns it. Writing commands go to the owner over NATS; where
there is none they own the store for as long as the command takes, record, and leave what is due to the next owner.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from statewright.adapters.cli.options import Options
from statewright.adapters.nats.client import Client
from statewright.adapters.nats.endpoint import find_endpoint
from statewright.adapters.sqlite.recorder import SQLiteInstanceRecorder
from statewright.adapters.sqlite.views import SQLiteMetricsView
from statewright.engine.engine import Engine
from statewright.engine.errors import InvalidError
from statewright.engine.requests import Outcome, Started
from statewright.engine.stores import open_store
from statewright.projections.metrics_view import MetricsProjection, MetricsView
from statewright.statecharts import Chart, load_chart
