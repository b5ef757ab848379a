#!/usr/bin/env python3
"""Draws the pictures of the page anew: the demo on 8 ranks, asked for sums, without EPLB and with it.

    build/clients/venv/bin/python tests/clients/page_pictures.py [PROGRAM]     docs/page.png, page-before.png, page-after.png
"""
import pathlib
import sys
import tempfile

from browser import Browser

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "bench"))
import eplb_demo  # noqa: E402

QUESTION = "Tell me a short story about a fox who meets a lonely shepherd."


def draw(program, flags, pictures):
    """pictures: by file, the selectors that it goes from and to."""
    with tempfile.TemporaryDirectory() as folder, eplb_demo.Server(program, folder, ["models/demo", *eplb_demo.RANKS, *flags]) as server:
        load = eplb_demo.Load(server, 16)
        try:
            with Browser(1360) as browser:
                browser.open(f"http://{server.address}/")
                browser.wait("last")
                load.start("arithmetic")
                browser.wait("samples.filter(s => s.output > 0).length > 44", 120)
                browser.type("#prompt", QUESTION)
                browser.press_enter()
                browser.fit_height()
                browser.wait("!stopper && samples.filter(s => s.output > 0).length > 54", 120)
                browser.run("document.activeElement.blur()")
                for name, span in pictures.items():
                    browser.screenshot(ROOT / "docs" / name, *span)
        finally:
            load.stop()


def main():
    program = str((ROOT / (sys.argv[1] if len(sys.argv) > 1 else "build/release/moebius")).resolve())
    cards = ("#ranks", "#experts")
    draw(program, [], {"page-before.png": cards})
    draw(program, ["--enable-eplb", "--num-redundant-experts", str(eplb_demo.NUM_SPARE)], {"page-after.png": cards, "page.png": ()})


if __name__ == "__main__":
    main()
