"""Runs the notebooks and keeps their output in them: python examples/notebooks/execute.py

Needs: pip install nbclient ipykernel "stepflow-tts[plot]". Players of more than 200 kB are left out.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
MAX_BYTES = 200_000
LEFT_OUT = "<em>A player of {kilobytes} kB: run the cell to hear it.</em>"


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, run in a folder; raises CellExecutionError at the first failure."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, resources=resources, record_timing=False).execute()
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        outputs[:] = [output for output in outputs if output.get("name") != "stderr"]  # warnings
        for output in outputs:
            shrink(output.get("data", {}))
    notebook.metadata = {
        "kernelspec": notebook.metadata["kernelspec"]
    }  # no versions of this machine
    return notebook


def shrink(data: dict[str, str]) -> None:
    """Put a note in the place of a large player."""
    html = data.get("text/html", "")
    if "<audio" in html and len(html) > MAX_BYTES:
        data["text/html"] = LEFT_OUT.format(kilobytes=len(html) // 1000)


if __name__ == "__main__":
    for notebook_path in sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as desk:
            nbformat.write(execute(notebook_path, Path(desk)), notebook_path)
        print(f"{notebook_path}: {notebook_path.stat().st_size} bytes", file=sys.stderr)
