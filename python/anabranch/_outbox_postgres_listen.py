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


class Listener:
    """A connection that listens on a channel; of a running event loop.

    Args:
        url: The database.
        listen: The statement that listens on a channel.
        heard: Called when something was said on it.
    """

    def __init__(self, url: str, listen: str, heard: Callable[[], object]) -> None:
        self._url = url
        self._statement = listen
        self._heard = heard
        self._task = asyncio.get_running_loop().create_task(self._listen())

    def close(self) -> None:
        """Listen no more."""
        self._task.cancel()

    async def _listen(self) -> None:
        import psycopg

        while True:
            connection: Any = None
            try:
                connection = await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, application_name="anabranch listens"
                )
                await connection.execute(self._statement)
                # What was said before is not heard.
                self._heard()
                async for _ in connection.notifies():
                    self._heard()
            except psycopg.Error:
                _logger.debug("%s failed", self._statement, exc_info=True)
            finally:
                if connection is not None:
                    with contextlib.suppress(psycopg.Error):
                        await connection.close()
            await asyncio.sleep(_REST)
