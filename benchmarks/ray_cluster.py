"""A machine of a Ray cluster is lost in the middle of a job: python benchmarks/ray_cluster.py

Starts a cluster on this computer: a head without cores and two workers of one core each. `stepflow-tts batch --ray`
speaks 2 000 sentences on it. When a third of the shards are done and both workers hold a model, one of them is
killed, all its processes at once. Then every id must stand once in the manifest, and all audio must decode to
its length. Writes benchmarks/results/ray.json. Needs the extra [ray] and Linux.
"""

import argparse
import datetime
import io
import json
import os
import platform
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

import ray
import soundfile
from ray.cluster_utils import Cluster
from serve import SENTENCES

import stepflow_tts

RESULTS = Path(__file__).parent / "results" / "ray.json"
SHARE_BEFORE = 1 / 3  # of the shards, when the worker is killed


def main(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """What happened, measured and checked."""
    source, output = folder / "rows.jsonl", folder / "out"
    texts = {
        f"{i:06d}": f"Number {i}. {SENTENCES[i % len(SENTENCES)]}" for i in range(args.sentences)
    }
    rows = (json.dumps({"id": id, "text": text}) + "\n" for id, text in texts.items())
    source.write_text("".join(rows), encoding="utf-8")
    num_shards = -(-len(texts) // args.shard_rows)

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
    command = [sys.executable, "-m", "stepflow_tts", "batch", str(source), str(output)]
    command += ["--ray", cluster.address, "--shard-rows", str(args.shard_rows)]
    command += [] if args.model is None else ["--model", args.model]
    lost = workers[1]
    start = time.perf_counter()
    with subprocess.Popen(command) as process:
        while not (
            num_done(output) >= SHARE_BEFORE * num_shards
            and all(num_models(worker_pid(worker)) for worker in workers)
        ):
            if process.poll() is not None:
                raise SystemExit("The job ended before both workers had spoken: more --sentences.")
            time.sleep(0.2)
        done_before = num_done(output)
        cluster.remove_node(lost, allow_graceful=False)
        print(f"Killed a worker at {done_before} of {num_shards} shards.", file=sys.stderr)
    seconds = time.perf_counter() - start
    cluster.shutdown()
    if process.returncode:
        raise SystemExit(f"The job failed: exit code {process.returncode}.")
    return {
        "sentences": len(texts),
        "shards": num_shards,
        "shards_done_when_killed": done_before,
        "seconds": round(seconds, 1),
        **check(output, texts),
    }


def num_done(output: Path) -> int:
    """The shards that are done."""
    return len(list((output / "shards").glob("*.jsonl")))


def worker_pid(node: "ray._private.node.Node") -> int:
    """The process of a node that starts all its actors."""
    (raylet,) = node.all_processes["raylet"]
    return int(raylet.process.pid)


def num_models(raylet: int) -> int:
    """The actors of a node that hold a model, by the names that Ray gives their processes."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            title = (folder / "cmdline").read_bytes()  # with .__init__ while it loads
            count += parent == raylet and b"ShardActor" in title and b"__init__" not in title
        except OSError:  # it has ended
            continue
    return count


def check(output: Path, texts: dict[str, str]) -> dict[str, object]:
    """How the manifest and the audio compare with what was asked for."""
    manifest = [json.loads(line) for line in (output / "manifest.jsonl").open(encoding="utf-8")]
    counts = Counter(line["id"] for line in manifest)
    wrong, seconds = 0, 0.0
    shards: dict[str, dict[str, dict[str, object]]] = {}
    for line in manifest:
        shards.setdefault(line["shard"], {})[line["audio"]] = line
    for shard, lines in shards.items():
        with tarfile.open(output / shard) as tar:
            for name, line in lines.items():
                member = tar.extractfile(name)
                assert member is not None
                samples, sample_rate = soundfile.read(io.BytesIO(member.read()))
                seconds += len(samples) / sample_rate
                right = len(samples) / sample_rate == line["duration_seconds"]
                wrong += not (right and abs(samples).max() > 0)
    return {
        "missing": len(texts.keys() - counts.keys()),
        "twice": sum(count > 1 for count in counts.values()),
        "other_text": sum(line["text"] != texts.get(line["id"]) for line in manifest),
        "rejected": len((output / "rejects.jsonl").read_text().splitlines()),
        "audio_wrong": wrong,
        "audio_seconds": round(seconds, 1),
        "audio_bytes": sum(path.stat().st_size for path in (output / "shards").glob("*.tar")),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--shard-rows", type=int, default=20)
    parser.add_argument("--model", metavar="SOURCE", help="(default: the bundled one)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="(default: %(default)s)")
    arguments = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory() as temporary:
        measured = main(arguments, Path(temporary))
    told = {
        "command": shlex.join(["python", "benchmarks/ray_cluster.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "stepflow_tts": stepflow_tts.__version__,
        "ray": ray.__version__,
        **measured,
    }
    arguments.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=2))
    if any(told[key] for key in ("missing", "twice", "other_text", "rejected", "audio_wrong")):
        raise SystemExit("Not every sentence was spoken once.")
