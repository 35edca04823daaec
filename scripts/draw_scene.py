"""The picture in the README, drawn as the miniature's lessons are: `python scripts/draw_scene.py [FILE]`."""

import sys
from pathlib import Path
from random import Random

from miniature.families.pictures import png, scene

FILE = Path(__file__).parent.parent / "docs" / "scene.png"


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    image, marks = scene(Random(21), ("star", "circle", "triangle"), ("blue", "red", "green"))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(image))
    for mark in marks:
        print(f"{mark.paint} {mark.kind} at {mark.x:.0f}, {mark.y:.0f}")


if __name__ == "__main__":
    main()
