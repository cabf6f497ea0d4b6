"""Runs the parts one by one, each in a process of its own, and puts their results into a table and a file."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_proof import parts
from gpu_proof.kit import ROOT


def run_all(options: argparse.Namespace, work: Path, environment: dict[str, str]) -> int:
    """Run the parts that were asked for; 0 if all are proven, 3 if not."""
    search = [str(ROOT), environment.get("GPU_PROOF_SITE", ""), environment.get("PYTHONPATH", "")]
    environment = {**environment, "PYTHONPATH": os.pathsep.join(filter(None, search))}
    deadline = time.monotonic() + options.minutes * 60
    chosen = [name for name in options.only.split(",") if name] or list(parts.PARTS)
    results: dict[str, Any] = {"date": datetime.date.today().isoformat(), "parts": {}}
    for name in chosen:
        left_s = deadline - time.monotonic()
        if left_s < 15:
            result: dict[str, Any] = {"rows": [["part", "no time was left", None]], "seconds": 0.0}
        else:
            result = _run_part(name, options, work / name, environment, min(left_s, parts.PARTS[name].limit_s))
        results["parts"][name] = result
        _show(name, result)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    unproven = [name for name, result in results["parts"].items() if any(row[2] is False for row in result["rows"])]
    print(f"\nNot proven: {', '.join(unproven)}." if unproven else "\nEvery part that ran is proven.")
    return 3 if unproven else 0


def _run_part(
    name: str, options: argparse.Namespace, work: Path, environment: dict[str, str], limit_s: float
) -> dict[str, Any]:
    work.mkdir()
    words = [sys.executable, str(ROOT / "scripts/gpu-proof"), "--part", name, "--work", str(work), "--gib", options.gib]
    began = time.monotonic()
    with (work / "output").open("wb") as output:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        try:
            ending = f"status {process.wait(limit_s)}"
        except subprocess.TimeoutExpired:
            ending = f"stopped after {limit_s:.0f} s"
            process.kill()
            process.wait()
    _end_leftovers(work)
    rows = [json.loads(line) for line in _read(work / "rows").splitlines()]
    if ending != "status 0":
        said = _read(work / "output").strip().splitlines()[-3:]
        rows.append(["part", f"{ending}: {' | '.join(said)}"[:600], False])
    if options.logs and any(row[2] is False for row in rows):
        for log in work.rglob("*.log"):
            options.logs.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, options.logs / f"{name}-{log.parent.name}-{log.name}")
    return {"rows": rows, "seconds": round(time.monotonic() - began, 1)}


def _end_leftovers(work: Path) -> None:
    """Kill every process that still works in the part's folder, such as restored ones."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink().is_relative_to(work):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _show(name: str, result: dict[str, Any]) -> None:
    marks = {True: "yes", False: "NO", None: ""}
    print(f"\n## {parts.PARTS[name].title} ({name}, {result['seconds']} s)\n\n| what | value | proven |\n|---|---|---|")
    for what, value, proven in result["rows"]:
        print(f"| {what} | {str(value).replace('|', '/')} | {marks[proven]} |", flush=True)
