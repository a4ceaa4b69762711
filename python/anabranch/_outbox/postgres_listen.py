"""Hears of what is enqueued in PostgreSQL, in the loop of a worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_logger = logging.getLogger("anabranch")

# Seconds until another try to listen. Without it the worker asks by itself now and then.
_REST: Final = 5.0
# Seconds after which the server is asked whether it is there: of one that is gone, as after a
# fail-over, a connection that only listens is never told. And seconds to wait for its answer.
_CHECK: Final = 20.0
_PATIENCE: Final = 5.0


class Listener:
    """A connection that listens on channels; of a running event loop.

    Args:
        url: The database.
        check: Seconds after which it is asked whether it is there.
        patience: Seconds to wait for the answer, and for a connection.
    """

    def __init__(self, url: str, *, check: float = _CHECK, patience: float = _PATIENCE) -> None:
        self._url = url
        self._check = check
        self._patience = patience
        # By channel and tenant; None: whosever it is.
        self._heard: dict[str, dict[str | None, list[Callable[[], object]]]] = {}
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._task = self._loop.create_task(self._listen())

    @property
    def is_wanted(self) -> bool:
        """Whether somebody wants to hear of anything."""
        return bool(self._heard)

    def add(
        self, channel: str, tenant: str | None, heard: Callable[[], object]
    ) -> Callable[[], object]:
        """Call `heard` when something is said of a tenant, or of all; return what ends that."""
        tenants = self._heard.setdefault(channel, {})
        tenants.setdefault(tenant, []).append(heard)
        self._changed.set()

        def end() -> None:
            tenants[tenant].remove(heard)
            if not tenants[tenant]:
                del tenants[tenant]
            if not tenants:
                self._heard.pop(channel, None)

        return end

    def close(self) -> None:
        """Listen no more."""
        self._task.cancel()

    def _tell(self, channel: str, tenant: str) -> None:
        """Something was said of a tenant; "": of none, or of all."""
        tenants = self._heard.get(channel, {})
        whose = list(tenants) if not tenant else [it for it in (None, tenant) if it in tenants]
        for each in whose:
            for heard in tuple(tenants.get(each, ())):
                heard()

    async def _listen(self) -> None:
        import psycopg

        while True:
            connection: Any = None
            try:
                # Who is there, and says nothing, is not waited for either.
                async with asyncio.timeout(self._patience):
                    connection = await psycopg.AsyncConnection.connect(
                        self._url, autocommit=True, application_name="anabranch listens"
                    )
                await self._attend(connection)
            except (psycopg.Error, TimeoutError) as error:
                _logger.debug("nobody listens: %s", error)
            finally:
                if connection is not None:
                    with contextlib.suppress(psycopg.Error):
                        await connection.close()
            await asyncio.sleep(_REST)

    async def _attend(self, connection: Any) -> None:  # noqa: ANN401 - psycopg's
        """Listen on all channels there are, and look now and then whether anybody is there."""

        def said(notify: Any) -> None:  # noqa: ANN401 - as above
            self._tell(notify.channel, notify.payload)

        connection.add_notify_handler(said)
        channels: set[str] = set()
        while True:
            self._changed.clear()
            for channel in sorted(self._heard.keys() - channels):
                await self._ask(connection, f'listen "{channel}"')
                channels.add(channel)
                # What was said before is not heard.
                self._tell(channel, "")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._check):
                    await self._wait(connection)
                continue
            await self._ask(connection, "select 1")

    async def _ask(self, connection: Any, statement: str) -> None:  # noqa: ANN401 - as above
        async with asyncio.timeout(self._patience):
            await connection.execute(statement)

    async def _wait(self, connection: Any) -> None:  # noqa: ANN401 - as above
        """Hear what is said, until there are other channels to listen on."""
        import psycopg

        wire = connection.pgconn
        gone: list[Exception] = []

        def read() -> None:
            try:
                wire.consume_input()
                while (notify := wire.notifies()) is not None:
                    self._tell(notify.relname.decode(), notify.extra.decode())
            except psycopg.Error as error:
                gone.append(error)
                self._changed.set()

        number = connection.fileno()
        self._loop.add_reader(number, read)
        try:
            await self._changed.wait()
        finally:
            self._loop.remove_reader(number)
        if gone:
            raise gone[0]
