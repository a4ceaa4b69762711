"""Multi-tenant event pipelines: fan out per tenant, window, retry, and undo.

Example:
    >>> import anabranch as ab
    >>> lines = ["acme 3", "globex 4", "acme oops"]
    >>> def parse(line: str) -> dict[str, object]:
    ...     tenant, number = line.split()
    ...     return {"tenant": tenant, "number": int(number)}
    >>> pipeline = (
    ...     ab.Pipeline("ingest")
    ...     .source(lines)
    ...     .map(parse)
    ...     .fan_out(by="tenant")
    ...     .window(max_items=500, max_age=1.0)
    ...     .collect()
    ... )
    >>> report = pipeline.run_blocking()
    >>> report.items
    [[{'tenant': 'acme', 'number': 3}], [{'tenant': 'globex', 'number': 4}]]
    >>> report.codes
    {'ValueError': 1}
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from anabranch import _process as _process  # first: it is to be the last to run at exit
from anabranch._core import Context, RetryBudget, UndoAction, WindowInfo, __version__
from anabranch._stages import StageInfo
from anabranch.branch import OVERFLOW, Branch, BranchPolicy, fail, restart
from anabranch.channel import Channel, ChannelStats
from anabranch.codes import CODES, Code
from anabranch.compensation import Compensation
from anabranch.errors import (
    AnabranchError,
    BranchError,
    BranchRefused,
    ChannelClosed,
    ChannelEmpty,
    ChannelFull,
    ClosedError,
    CompensationError,
    ConfigError,
    DeadLetterError,
    EnsureError,
    ForkedProcessError,
    HandlerError,
    HandlerTimeout,
    PipelineFailed,
    RestoredError,
    SourceError,
)
from anabranch.failure import Failure
from anabranch.keys import AttrKey, ItemKey, attr, item
from anabranch.local import PerThread, per_thread
from anabranch.pipeline import Pipeline
from anabranch.policy import Retry
from anabranch.report import Abandonment, BranchReport, ErrorSummary, Report
from anabranch.sources import TcpLines, tcp_lines

if TYPE_CHECKING:
    from anabranch import testing
    from anabranch._running import Running
    from anabranch.scope import CompensationScope, RollbackReport

__all__ = [
    "CODES",
    "OVERFLOW",
    "Abandonment",
    "AnabranchError",
    "AttrKey",
    "Branch",
    "BranchError",
    "BranchPolicy",
    "BranchRefused",
    "BranchReport",
    "Channel",
    "ChannelClosed",
    "ChannelEmpty",
    "ChannelFull",
    "ChannelStats",
    "ClosedError",
    "Code",
    "Compensation",
    "CompensationError",
    "CompensationScope",
    "ConfigError",
    "Context",
    "DeadLetterError",
    "EnsureError",
    "ErrorSummary",
    "Failure",
    "ForkedProcessError",
    "HandlerError",
    "HandlerTimeout",
    "ItemKey",
    "PerThread",
    "Pipeline",
    "PipelineFailed",
    "Report",
    "RestoredError",
    "Retry",
    "RetryBudget",
    "RollbackReport",
    "Running",
    "SourceError",
    "StageInfo",
    "TcpLines",
    "UndoAction",
    "WindowInfo",
    "__version__",
    "attr",
    "fail",
    "item",
    "per_thread",
    "restart",
    "tcp_lines",
    "testing",
]


def __getattr__(name: str) -> object:
    # What is needed only once something runs: its module imports asyncio.
    if name == "Running":
        from anabranch._running import Running

        return Running
    if name == "testing":
        # Not `from anabranch import`: that would ask here again.
        return importlib.import_module("anabranch.testing")
    if name in ("CompensationScope", "RollbackReport"):
        from anabranch import scope

        return getattr(scope, name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
