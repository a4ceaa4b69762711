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
from anabranch._core import RetryBudget, UndoAction, WindowInfo, __version__
from anabranch._stages import StageInfo
from anabranch.branch import OVERFLOW, Branch, BranchPolicy, fail, restart
from anabranch.cancel import Cancel
from anabranch.channel import Channel, ChannelStats
from anabranch.codes import CODES, Code
from anabranch.compensation import Compensation
from anabranch.context import Context
from anabranch.counts import Abandonment, BranchReport, ErrorSummary
from anabranch.errors import (
    AllFailed,
    AnabranchError,
    AttachError,
    BranchError,
    BranchRefused,
    Cancelled,
    ChannelClosed,
    ChannelEmpty,
    ChannelFull,
    ClosedError,
    CommandError,
    CompensationError,
    ConfigError,
    DeadLetterError,
    DuplicateConflict,
    EnsureError,
    ForkedProcessError,
    GroupFailed,
    HandlerError,
    HandlerTimeout,
    LeaseLost,
    NotAwaited,
    OutboxError,
    PipelineFailed,
    Reject,
    RestoredError,
    ResultError,
    RetryLater,
    SchemaMismatch,
    SelectDrained,
    SourceError,
    StoreUnavailable,
    UnknownTenant,
)
from anabranch.failure import Failure
from anabranch.framing import Delimiter, LengthPrefix
from anabranch.keys import AttrKey, ItemKey, attr, item
from anabranch.local import PerThread, per_thread
from anabranch.pipeline import Pipeline
from anabranch.policy import Retry
from anabranch.priority import PriorityChannel
from anabranch.report import Report
from anabranch.source import Source
from anabranch.sources import TcpLines, tcp_lines
from anabranch.strategy import SourceState, Strategy
from anabranch.tailing import Tail, tail
from anabranch.tcp import TcpClient, tcp_client

if TYPE_CHECKING:
    from anabranch import testing
    from anabranch._all_of import all_of
    from anabranch._broadcast import Balance, Broadcast, balance, broadcast
    from anabranch._fallback import fallback
    from anabranch._fan_in import FanInReport, fan_in
    from anabranch._fan_in_blocking import fan_in_blocking
    from anabranch._merge import Merge, merge
    from anabranch._outbox.source import OutboxSource, outbox_source
    from anabranch._race import hedge, race
    from anabranch._retry import retry
    from anabranch._route import Branches, fan_out
    from anabranch._running import Running
    from anabranch._select import Select, select
    from anabranch._selected import Selected
    from anabranch._stats import Stats, stats
    from anabranch._streaming import Stream
    from anabranch._timeout import timeout
    from anabranch._windowed import Windowed, window
    from anabranch.child import Child
    from anabranch.group import ErrGroup, WaitGroup
    from anabranch.heartbeat import Heartbeat
    from anabranch.monitor import Attached, attach
    from anabranch.outbox import Draft, Message, Outbox
    from anabranch.planner import OutboxPlanner, Plan
    from anabranch.result import Err, Ok, Result
    from anabranch.router import OutboxRouter, StoreAt, StoreProvider
    from anabranch.saga import Saga
    from anabranch.scope import CompensationScope, RollbackReport
    from anabranch.selection import Selection, StoreView
    from anabranch.timers import Tick, Ticker, after, delay, ticker
    from anabranch.worker import OutboxWorker

__all__ = [
    "CODES",
    "OVERFLOW",
    "Abandonment",
    "AllFailed",
    "AnabranchError",
    "AttachError",
    "Attached",
    "AttrKey",
    "Balance",
    "Branch",
    "BranchError",
    "BranchPolicy",
    "BranchRefused",
    "BranchReport",
    "Branches",
    "Broadcast",
    "Cancel",
    "Cancelled",
    "Channel",
    "ChannelClosed",
    "ChannelEmpty",
    "ChannelFull",
    "ChannelStats",
    "Child",
    "ClosedError",
    "Code",
    "CommandError",
    "Compensation",
    "CompensationError",
    "CompensationScope",
    "ConfigError",
    "Context",
    "DeadLetterError",
    "Delimiter",
    "Draft",
    "DuplicateConflict",
    "EnsureError",
    "Err",
    "ErrGroup",
    "ErrorSummary",
    "Failure",
    "FanInReport",
    "ForkedProcessError",
    "GroupFailed",
    "HandlerError",
    "HandlerTimeout",
    "Heartbeat",
    "ItemKey",
    "LeaseLost",
    "LengthPrefix",
    "Merge",
    "Message",
    "NotAwaited",
    "Ok",
    "Outbox",
    "OutboxError",
    "OutboxPlanner",
    "OutboxRouter",
    "OutboxSource",
    "OutboxWorker",
    "PerThread",
    "Pipeline",
    "PipelineFailed",
    "Plan",
    "PriorityChannel",
    "Reject",
    "Report",
    "RestoredError",
    "Result",
    "ResultError",
    "Retry",
    "RetryBudget",
    "RetryLater",
    "RollbackReport",
    "Running",
    "Saga",
    "SchemaMismatch",
    "Select",
    "SelectDrained",
    "Selected",
    "Selection",
    "Source",
    "SourceError",
    "SourceState",
    "StageInfo",
    "Stats",
    "StoreAt",
    "StoreProvider",
    "StoreUnavailable",
    "StoreView",
    "Strategy",
    "Stream",
    "Tail",
    "TcpClient",
    "TcpLines",
    "Tick",
    "Ticker",
    "UndoAction",
    "UnknownTenant",
    "WaitGroup",
    "WindowInfo",
    "Windowed",
    "__version__",
    "after",
    "all_of",
    "attach",
    "attr",
    "balance",
    "broadcast",
    "delay",
    "fail",
    "fallback",
    "fan_in",
    "fan_in_blocking",
    "fan_out",
    "hedge",
    "item",
    "merge",
    "outbox_source",
    "per_thread",
    "race",
    "restart",
    "retry",
    "select",
    "stats",
    "tail",
    "tcp_client",
    "tcp_lines",
    "testing",
    "ticker",
    "timeout",
    "window",
]


# What is needed only once something runs: these modules import asyncio.
_LATER = {
    "Attached": "monitor",
    "Balance": "_broadcast",
    "Branches": "_route",
    "Broadcast": "_broadcast",
    "Child": "child",
    "CompensationScope": "scope",
    "Draft": "outbox",
    "Err": "result",
    "ErrGroup": "group",
    "FanInReport": "_fan_in",
    "Heartbeat": "heartbeat",
    "Merge": "_merge",
    "Message": "outbox",
    "Ok": "result",
    "Outbox": "outbox",
    "OutboxPlanner": "planner",
    "Plan": "planner",
    "OutboxRouter": "router",
    "OutboxSource": "_outbox.source",
    "OutboxWorker": "worker",
    "Result": "result",
    "RollbackReport": "scope",
    "Running": "_running",
    "Saga": "saga",
    "Select": "_select",
    "Selected": "_selected",
    "Selection": "selection",
    "Stats": "_stats",
    "StoreAt": "router",
    "StoreProvider": "router",
    "StoreView": "selection",
    "Stream": "_streaming",
    "Tick": "timers",
    "Ticker": "timers",
    "WaitGroup": "group",
    "Windowed": "_windowed",
    "after": "timers",
    "all_of": "_all_of",
    "attach": "monitor",
    "balance": "_broadcast",
    "broadcast": "_broadcast",
    "delay": "timers",
    "fallback": "_fallback",
    "fan_in": "_fan_in",
    "fan_in_blocking": "_fan_in_blocking",
    "fan_out": "_route",
    "hedge": "_race",
    "merge": "_merge",
    "outbox_source": "_outbox.source",
    "race": "_race",
    "retry": "_retry",
    "select": "_select",
    "stats": "_stats",
    "ticker": "timers",
    "timeout": "_timeout",
    "window": "_windowed",
}


def __getattr__(name: str) -> object:
    # Not `from anabranch import`: that would ask here again.
    if name == "testing":
        return importlib.import_module("anabranch.testing")
    module = _LATER.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    if module == "result":
        from anabranch import _landing

        # Not kept: each time it is asked for, whoever asks has to be looked at.
        _landing.admit(name)
        return getattr(importlib.import_module(f"anabranch.{module}"), name)
    value = globals()[name] = getattr(importlib.import_module(f"anabranch.{module}"), name)
    return value
