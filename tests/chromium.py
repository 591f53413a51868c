"""A page opened in headless Chromium, every sound of it played."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

_PLAY = """<script>
const sounds = [...document.querySelectorAll("audio")];
const heard = sound => new Promise((good, bad) => {
  sound.onplaying = () => good(sound.duration); sound.onerror = () => bad(sound.error.message);
  sound.muted = true; sound.play().catch(bad);
});
const wide = document.documentElement.scrollWidth > window.innerWidth ? ", too wide" : "";
Promise.all(sounds.map(heard)).then(all => document.title = "played " + all.length + wide, why => document.title = "failed " + why);
</script></body>"""


def play(page: Path, profile: Path) -> str:
    """What came of it: `played N`, with `too wide` where the page does not fit the window."""
    probe = page.with_name("probe.html")
    probe.write_text(page.read_text(encoding="utf-8").replace("</body>", _PLAY), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--mute-audio"]
    options += ["--window-size=1400,900", f"--user-data-dir={profile}", "--timeout=15000", "--dump-dom"]
    shown = subprocess.run([str(CHROMIUM), *options, probe.as_uri()], capture_output=True, text=True, timeout=120).stdout
    title = re.search("<title>(.*?)</title>", shown)
    return title[1] if title else shown[:400]
