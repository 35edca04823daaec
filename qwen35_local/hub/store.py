"""From a released checkpoint to a converted one: of a directory, or of a repository whose shards come and go."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..checkpoint.files import INDEX, Checkpoint
from ..errors import CheckpointError, StorageError
from .conversion import Conversion, Shard, converted_config, plan_conversion
from .convert import JOURNAL, convert_shard
from .download import STATE as REPOSITORY
from .download import select, source_of
from .fetch import Fetcher
from .manifest import Entry, Manifest, replace_text
from .place import MARGIN, Workplace, free_space, occupied, on_disk, partial_of
from .progress import Meter, size
from .recipe import KEPT, Recipe
from .remote import Listing, RemoteFile
from .skeleton import fetch_skeleton
from .transfer import PARTING, Patience

STATE, SOURCE, SKELETON = "convert.json", "source", "skeleton"
KEPT_FILES = ("*.json", "*.jinja", "*.txt", "README.md", "LICENSE*")
AT_ONCE = 2  # source shards on the disk: one is converted while the next arrives


@dataclass(frozen=True, slots=True)
class Parts:
    """Which parts of the model a conversion keeps beside the text."""

    vision: bool = True
    mtp: bool = True


def room_needed(conversion: Conversion, target: Path, sources: int) -> int:
    """Bytes of disk to be free now; `sources` are those of source shards held at once."""
    here = occupied(partial_of(target)) if partial_of(target).is_dir() else 0
    return max(conversion.data_bytes + sources - here, 0)


def check_room(conversion: Conversion, target: Path, sources: int) -> None:
    need, free = room_needed(conversion, target, sources), free_space(target)
    if need + MARGIN > free:
        raise StorageError(
            f"the conversion needs {size(need)} and leaves {size(MARGIN)} free, but the disk of {target.parent} has "
            f"{size(free)}: free {size(need + MARGIN - free)}, or choose another disk"
        )


def convert_directory(source: Path, target: Path, recipe: Recipe, parts: Parts, meter: Meter) -> Path:
    """Convert a local release. Safe to kill at any instant, and to run again after."""
    checkpoint = Checkpoint.open(source)
    conversion = plan_conversion(checkpoint.tensors, recipe, parts.vision, parts.mtp)
    check_room(conversion, target, 0)
    stamps = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in {t.file for t in checkpoint.tensors.values()}]
    with Workplace(target) as place:
        _begin(place, conversion, [str(source.resolve()), sorted(stamps)])
        entries = {}
        for shard in conversion.shards:
            entries[shard.name] = convert_shard(shard, source / shard.source, place.path, meter.add)
            meter.file_done()
        return _finish(
            place, conversion, parts, checkpoint.config, source, entries, {"directory": str(source.resolve())}
        )


def convert_repository(
    listing: Listing, target: Path, recipe: Recipe, parts: Parts, meter: Meter, patience: Patience | None = None
) -> Path:
    """Fetch and convert shard by shard; the disk never holds more than the result and two source shards."""
    weights, small = split(listing)
    with Workplace(target) as place:
        place.claim(REPOSITORY, source_of(listing))
        fetcher = Fetcher(listing, place.path / SOURCE, meter, patience)
        fetcher.fetch_all(small)
        try:
            skeleton = fetch_skeleton(listing, weights, place.path / SOURCE, place.path / SKELETON)
            conversion = plan_conversion(skeleton.tensors, recipe, parts.vision, parts.mtp)
        except CheckpointError:  # never a release: nothing here is worth going on from
            shutil.rmtree(place.path)
            raise
        largest = max(f.size for f in weights)
        roomy = room_needed(conversion, target, AT_ONCE * largest) + MARGIN <= free_space(target)
        at_once = AT_ONCE if roomy else 1  # a tight disk costs time: nothing arrives while a shard is converted
        check_room(conversion, target, at_once * largest)
        _begin(place, conversion, [listing.repo, listing.commit])
        remote = {f.path: f for f in weights}
        unused = sum(f.size for f in weights) - sum(remote[s.source].size for s in conversion.shards)
        meter.had(unused)
        entries = _stream(place.path, conversion.shards, remote, fetcher, meter, at_once)
        return _finish(place, conversion, parts, skeleton.config, place.path / SOURCE, entries, source_of(listing))


def plan_repository(listing: Listing, recipe: Recipe, parts: Parts) -> Conversion:
    """The conversion of a repository from its headers, a few megabytes; nothing of it is kept."""
    weights, small = split(listing)
    with TemporaryDirectory() as folder:
        path = Path(folder)
        wanted = [file for file in small if file.path in (INDEX, "config.json")]
        Fetcher(listing, path / SOURCE, Meter(1, 1, "fetched", quiet=True)).fetch_all(wanted)
        skeleton = fetch_skeleton(listing, weights, path / SOURCE, path / SKELETON)
        return plan_conversion(skeleton.tensors, recipe, parts.vision, parts.mtp)


def split(listing: Listing) -> tuple[tuple[RemoteFile, ...], tuple[RemoteFile, ...]]:
    """(weights, everything else) of a repository."""
    files = select(listing, ())
    weights = tuple(f for f in files if f.path.endswith(".safetensors"))
    if not weights:
        raise CheckpointError(f"{listing.repo} has no safetensors files to convert")
    return weights, tuple(f for f in files if f not in weights)


def _stream(
    directory: Path,
    shards: Iterable[Shard],
    remote: dict[str, RemoteFile],
    fetcher: Fetcher,
    meter: Meter,
    at_once: int,
) -> dict[str, Entry]:
    """Convert what a second thread fetches; it waits while `at_once` source shards lie there."""
    todo = [shard for shard in shards if not (directory / shard.name).exists()]
    room = threading.Semaphore(at_once)
    arrived = {shard.source: threading.Event() for shard in todo}
    failed: list[BaseException] = []

    def fetch() -> None:
        try:
            for shard in todo:
                while not room.acquire(timeout=0.2):
                    if fetcher.stop.is_set():
                        return
                fetcher.fetch(remote[shard.source])
                arrived[shard.source].set()
        except BaseException as error:
            failed.append(error)

    fetching = threading.Thread(target=fetch, daemon=True)
    fetching.start()
    entries = {}
    try:
        for shard in shards:
            source = directory / SOURCE / shard.source
            if shard.source in arrived:
                while not arrived[shard.source].wait(0.2):
                    if failed:
                        raise failed[0]
            else:
                meter.had(remote[shard.source].size)
            entries[shard.name] = convert_shard(shard, source, directory, _silent)
            source.unlink(missing_ok=True)
            if shard.source in arrived:  # the others, of an earlier try, took no room in this one
                room.release()
    finally:
        fetcher.stop.set()
        fetching.join(2 * PARTING)
    return entries


def _silent(_: int) -> None:
    """The meter counts what is fetched; converting keeps up."""


def _begin(place: Workplace, conversion: Conversion, origin: Any) -> None:
    """What an earlier try made counts only if it was of the same source by the same recipe."""
    plan = hashlib.sha256(repr((conversion.recipe, origin)).encode())
    for shard in conversion.shards:
        plan.update(shard.header)
    state = {"plan": plan.hexdigest()}
    path = place.path / STATE
    with on_disk(path):
        try:
            same = json.loads(path.read_bytes()) == state
        except (OSError, ValueError):
            same = False
        if not same:
            for old in place.path.glob("model-*"):
                old.unlink()
            shutil.rmtree(place.path / JOURNAL, ignore_errors=True)
            replace_text(path, json.dumps(state))


def converted_by(recipe: Recipe, parts: Parts) -> dict[str, Any]:
    """What the manifest says of how the files were made: everything that decides their bytes, for the same source."""
    rules = [[pattern, str(packing) if packing else KEPT] for pattern, packing in recipe.rules]
    return {"recipe": recipe.name, "default": str(recipe.default), "rules": rules, **asdict(parts)}


def _finish(
    place: Workplace,
    conversion: Conversion,
    parts: Parts,
    config: Any,
    extras: Path,
    entries: dict[str, Entry],
    source: dict[str, str],
) -> Path:
    """The files beside the weights, config.json after all of them, then the directory's name."""
    with on_disk(place.path / INDEX):
        for pattern in KEPT_FILES:
            for file in sorted(extras.glob(pattern)):
                if file.name not in (INDEX, "config.json", "qwen35.json"):
                    shutil.copyfile(file, place.path / file.name)
                    entries[file.name] = _entry(place.path / file.name)
        steps = [step for shard in conversion.shards for step in shard.steps]
        weight_map = {o.name: shard.name for shard in conversion.shards for step in shard.steps for o in step.outputs}
        index = {"metadata": {"total_size": conversion.data_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        new_config = converted_config(config, steps, conversion.recipe)
        for name, value in ((INDEX, index), ("config.json", new_config)):
            replace_text(place.path / name, json.dumps(value, indent=1) + "\n")
            entries[name] = _entry(place.path / name)
    made = converted_by(conversion.recipe, parts)
    place.publish(Manifest(entries, source, made), (STATE, REPOSITORY, SOURCE, SKELETON, JOURNAL))
    return place.target


def _entry(path: Path) -> Entry:
    data = path.read_bytes()
    return Entry(len(data), "sha256", hashlib.sha256(data).hexdigest())
