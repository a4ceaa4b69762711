"""Takes the picture of the dashboard that the README shows: a real capture, of the demo.

    .venv-3.12/bin/python tests/picture.py [FILE]

The demo runs on a terminal of 120 by 36 cells, some keys are pressed, and what is on the screen
then is drawn as an SVG: each cell a character of a font of one width, with the colours it has.
"""

import sys
import tempfile
from html import escape
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "python"))
from terminal import Terminal

FILE = Path(__file__).parent.parent / "docs" / "dashboard.svg"
SIZE = (120, 36)
# In pixels: a cell, and the margin around all.
WIDTH, HEIGHT, MARGIN = 8, 17, 12
BACKGROUND, TEXT = "#15181d", "#c9ced6"
COLOURS = {
    "black": "#3b4048",
    "red": "#f0676f",
    "green": "#8cc570",
    "brown": "#e5c07b",  # as the terminal's emulator calls yellow
    "blue": "#61afef",
    "magenta": "#c678dd",
    "cyan": "#56b6c2",
    "white": "#c9ced6",
    "brightblack": "#6b7280",
}


def capture():
    """Return the lines of cells that are on the screen some seconds after the demo has begun."""
    with (
        tempfile.TemporaryDirectory(prefix="ab-") as directory,
        Terminal("demo", "--seed", "7", size=SIZE, ANABRANCH_RUNTIME_DIR=f"{directory}/run") as it,
    ):
        it.shows("gateway", "LIVE")
        it.press("\r")
        it.shows("branches 24/24")
        # Those that stand out come first, and some seconds of history make it worth a look.
        it.press("jj")
        it.wait(SECONDS)
        lines = [[it.screen.buffer[y][x] for x in range(SIZE[0])] for y in range(SIZE[1])]
        it.press("q")
        assert it.ended() == 0
        return lines


SECONDS = 62.0


def colour(name, default):
    """Return a colour of the terminal as SVG knows it."""
    return default if name == "default" else COLOURS.get(name, f"#{name}")


def look(cell):
    """Return how a cell looks: its colours, and whether it is bold."""
    front, back = colour(cell.fg, TEXT), colour(cell.bg, BACKGROUND)
    return (back, front, cell.bold) if cell.reverse else (front, back, cell.bold)


def svg(lines):
    """Draw lines of cells."""
    width, height = SIZE[0] * WIDTH + 2 * MARGIN, SIZE[1] * HEIGHT + 2 * MARGIN
    font = "ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>The dashboard of anabranch</title>",
        f'<g font-family="{font}" font-size="13.3">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>',
    ]
    for y, cells in enumerate(lines):
        top, x = MARGIN + y * HEIGHT, 0
        for (front, back, bold), run in groupby(cells, look):
            text = "".join(cell.data for cell in run)
            left, length = MARGIN + x * WIDTH, len(text) * WIDTH
            x += len(text)
            if back != BACKGROUND:
                parts.append(
                    f'<rect x="{left}" y="{top}" width="{length}" height="{HEIGHT}" fill="{back}"/>'
                )
            if text.strip():
                weight = ' font-weight="bold"' if bold else ""
                parts.append(
                    f'<text x="{left}" y="{top + 13}" fill="{front}" textLength="{length}"'
                    f' xml:space="preserve"{weight}>{escape(text)}</text>'
                )
    return "\n".join([*parts, "</g>\n</svg>\n"])


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    file.write_text(svg(capture()), encoding="utf-8")
