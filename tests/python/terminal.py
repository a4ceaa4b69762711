"""A terminal for tests: a command runs on it, keys are pressed, and its screen is read back."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pyte

DEADLINE = 20.0
COMMAND = str(Path(sys.executable).with_name("anabranch"))
# Makes the terminal the one that controls the command: it has a /dev/tty, and hears of its end.
CONTROLLED = (
    "import fcntl, os, sys, termios;"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A terminal with a command on it."""

    def __init__(self, *arguments, size=(120, 40), command=COMMAND, **environment):
        columns, lines = size
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._before = termios.tcgetattr(slave)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in {"LANG", "NO_COLOR"} and not name.startswith("LC_")
        }
        inherited |= {"TERM": "xterm-256color", "LANG": "C.UTF-8", "XDG_CONFIG_HOME": "/nowhere"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLED, command, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=inherited | environment,
            start_new_session=True,
        )
        # Kept open: the mode of a terminal that nobody has open is forgotten.
        self._slave = slave

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self):
        for end in ("_master", "_slave"):
            with contextlib.suppress(OSError):
                os.close(getattr(self, end))
            setattr(self, end, -1)

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def line(self, word):
        """Return the first line of the screen with a word in it; None if there is none."""
        return next((line for line in self.screen.display if word in line), None)

    def _read(self, seconds):
        """Take in what is written within some time; return whether there was anything."""
        if not select.select([self._master], [], [], max(seconds, 0))[0]:
            return False
        data = os.read(self._master, 1 << 16)
        self.written += data
        self._stream.feed(data)
        return True

    def press(self, keys):
        os.write(self._master, keys.encode())

    def until(self, fits, what):
        """Wait until the screen fits; return how long that took."""
        begin = time.monotonic()
        while not fits(self):
            left = begin + DEADLINE - time.monotonic()
            if left <= 0 or (self.process.poll() is not None and not self._read(0)):
                message = f"{what} never came ({self.process.poll()}):\n{self.text}"
                raise AssertionError(message)
            self._read(min(left, 0.2))
        return time.monotonic() - begin

    def shows(self, *words):
        """Wait until all of these are on the screen; return how long that took."""
        return self.until(lambda it: all(word in it.text for word in words), words)

    def no_longer_shows(self, word):
        return self.until(lambda it: word not in it.text, f"the end of {word!r}")

    def answer(self, keys, fits):
        """Press keys; return how long it took until the screen fitted."""
        self.wait(0.05)
        begin = time.perf_counter()
        self.press(keys)
        return self.first(fits, begin)

    def first(self, fits, begin):
        """Return how long after a moment the screen first fitted; to read it is no part of that."""
        end, chunks = begin + DEADLINE, []
        while True:
            # What is read is looked at when no more comes for a while.
            while select.select([self._master], [], [], 0.1)[0]:
                data = os.read(self._master, 1 << 16)
                chunks.append((time.perf_counter(), data))
            for at, data in chunks:
                self.written += data
                self._stream.feed(data)
                if fits(self):
                    rest = chunks[chunks.index((at, data)) + 1 :]
                    for _, late in rest:
                        self._stream.feed(late)
                    return at - begin
            chunks.clear()
            if time.perf_counter() > end:
                raise AssertionError(f"it never came:\n{self.text}")

    def wait(self, seconds):
        """Take in what is written within some time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._read(left)

    def resize(self, columns, lines):
        self.screen.resize(lines, columns)
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def ended(self):
        """Wait for the end of the command; return its exit code, and all it has written."""
        begin = time.monotonic()
        while self.process.poll() is None:
            assert time.monotonic() < begin + DEADLINE, f"it does not end:\n{self.text}"
            self._read(0.05)
        while self._read(0):
            pass
        return self.process.returncode

    def is_restored(self):
        """Whether the terminal is as it was before the dashboard had it, to the byte."""
        pairs = [(b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?25l", b"\x1b[?25h")]
        pairs += [(b"\x1b[?2004h", b"\x1b[?2004l")]
        back = all(-1 < self.written.rfind(on) < self.written.rfind(off) for on, off in pairs)
        mouse = (b"\x1b[?1000l", b"\x1b[?1006l")
        mode = termios.tcgetattr(self._slave) == self._before
        return back and mode and all(off in self.written for off in mouse)
