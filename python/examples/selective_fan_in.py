"""A control room: alarms before commands before readings, and something to do when all is quiet.

- `ab.select` takes one thing from whichever channel has something; the others keep theirs;
- priorities say which of several; `after` is the case for silence, and its time begins anew with
  each run, so that one select serves the whole loop;
- what fails is told by its channel's name, and when all have ended the select says so.
"""

from __future__ import annotations

import asyncio

import anabranch as ab


class Room:
    """What happens in the control room, with the time."""

    def __init__(self) -> None:
        self.alarms: ab.Channel[str] = ab.Channel(10, name="alarms")
        self.commands: ab.Channel[str] = ab.Channel(10, name="commands")
        self.readings: ab.Channel[int] = ab.Channel(10, name="readings")
        self.values: list[int] = []

    def say(self, what: str) -> None:
        """Print it with the time."""
        print(f"{asyncio.get_running_loop().time():4.1f}  {what}")

    async def alarm(self, what: str) -> None:
        """Handle an alarm; this takes a while."""
        self.say(f"ALARM {what}")
        await ab.delay(1.0)

    def command(self, what: str) -> None:
        """Handle a command."""
        self.say(f"command {what}")

    def reading(self, value: int) -> None:
        """Keep a reading."""
        self.values.append(value)

    async def watch(self) -> None:
        """Handle one thing after the other, until all channels have ended."""
        either = (
            ab.select()
            .on(self.alarms, self.alarm, priority=0)
            .on(self.commands, self.command, priority=1)
            .on(self.readings, self.reading, priority=2)
            .after(5.0, lambda: self.say("all is quiet"))
        )
        try:
            while True:
                await either
        except ab.SelectDrained as drained:
            self.say(f"readings: {self.values}")
            self.say(drained.code)

    async def happen(self) -> None:
        """Let things happen."""
        await self.readings.send_many([20, 21])
        await self.commands.send("open the valve")
        await self.alarms.send("pressure")
        await ab.delay(0.5)
        await self.commands.send("close the valve")
        await self.readings.send(35)
        await self.alarms.send("heat")
        await ab.delay(8.0)
        for channel in (self.alarms, self.commands, self.readings):
            channel.close()


async def main() -> None:
    """Watch, while things happen."""
    room = Room()
    async with ab.ErrGroup("room") as group:
        group.go(room.happen)
        group.go(room.watch)


if __name__ == "__main__":
    ab.testing.run(main())
