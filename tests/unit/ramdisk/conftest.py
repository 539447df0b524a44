"""The ramdisk's builder is not installed: it lives in ramdisk/."""

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(TOP / "ramdisk"))
