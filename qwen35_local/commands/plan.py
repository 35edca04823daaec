"""`qwen35 plan`: where the memory would go, and what speed to expect, on this machine or a named Mac. Loads nothing."""

import argparse
import json
from dataclasses import replace
from typing import Any

from ..backends import gguf_of
from ..errors import UsageError
from ..experts.budget import MemoryPlan, default_budget, gigabytes, parse_memory
from ..experts.machines import MACHINES, Machine, predict, predict_sweep
from .plan_gguf import describe_gguf, gguf_lines

HITS = (0.0, 0.5, 0.75, 0.9)
PROMPTS = (20, 2048, 16384)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="397b", help="a model directory, a GGUF file, or '397b' for the released one in MXFP4"
    )
    parser.add_argument(
        "--memory", metavar="SIZE", help="as 24GB; default: a share of the machine's, for GGUF its free"
    )
    parser.add_argument("--gpu", metavar="SIZE", help="for GGUF: memory of a GPU; default: what is free on those here")
    parser.add_argument("--context", type=int, help="tokens of prompt and answer (default: 32768, or less)")
    parser.add_argument("--kv-bits", type=int, choices=(16, 8, 4), help="of keys and values (default: as computed)")
    parser.add_argument("--machine", metavar="NAME", help=f"a Mac to plan for: {', '.join(MACHINES)}")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    if (gguf := None if args.model.lower() == "397b" else gguf_of(args.model)) is not None:
        if args.machine:
            raise UsageError("the machines by name are Macs: for a GGUF file give --memory and --gpu", "machine")
        if args.kv_bits:
            raise UsageError("--kv-bits is for MLX: with a GGUF file keys and values are of --dtype", "kv_bits")
        found = describe_gguf(gguf, args.memory, args.gpu, args.context)
        print(json.dumps(found, indent=1) if args.json else "\n".join(gguf_lines(found)))
        return 0
    if args.gpu:
        raise UsageError("--gpu is for GGUF files: MLX has the machine's memory alone", "gpu")
    found = describe(args.model, args.memory, args.context, args.machine, args.kv_bits)
    print(json.dumps(found, indent=1) if args.json else "\n".join(lines(found)))
    return 0


def describe(
    model: str, memory: str | None, context: int | None, machine: str | None, kv_bits: int | None = None
) -> dict[str, Any]:
    """The plan as plain values. Raises MemoryPlanError below the floor."""
    from ..backends.memory import plan_for
    from ..experts.host import available_memory, total_memory

    if machine is not None and machine not in MACHINES:
        raise UsageError(f"no machine {machine!r} in the table: use one of {', '.join(MACHINES)}", "machine")
    mac = MACHINES[machine] if machine else None
    if memory is not None:
        budget, why = parse_memory(memory), "asked for"
    elif mac is not None:
        budget, why = default_budget(mac.memory << 30, mac.memory << 30), f"65 % of {mac.memory} GiB"
    else:
        budget = default_budget(total_memory(), available_memory())
        why = "65 % of this machine's memory, at most 90 % of what is free"
    geometry, most, yarn = geometry_of(model, kv_bits, context)
    if context is not None and not 1 <= context <= most:
        raise UsageError(f"context must be from 1 to {most} tokens, with YaRN {yarn:g}x, not {context}", "context")
    chosen = plan_for(geometry, budget, context, most, metal=True if mac else None)
    return {
        "model": model,
        "machine": mac.name if mac else "this machine",
        "budget_bytes": budget,
        "budget_because": why,
        "context": chosen.context,
        "yarn": yarn,
        "kv_bits": kv_bits,
        "kv_bytes_per_token": geometry.kv_per_token,
        "experts": {
            "bytes_each": geometry.expert_nbytes,
            "per_token": geometry.top_k,
            "bytes_per_token_uncached": geometry.token_nbytes,
            "bytes_in_all": geometry.experts_nbytes,
        },
        "reserved_bytes": dict(chosen.items()),
        "total_bytes": chosen.total,
        "resident": chosen.resident,
        "slots_per_layer": list(chosen.slots),
        "pass_tokens": chosen.pass_tokens,
        "predictions": predictions(chosen, mac) if mac else None,
    }


def geometry_of(model: str, kv_bits: int | None, context: int | None) -> tuple[Any, int, float]:
    """Geometry, longest context and YaRN factor of a model directory, or of the released model."""
    from ..model.config import YARN
    from ..model.kv_format import KvFormat

    kv = KvFormat(kv_bits)
    if model.lower() == "397b":
        from ..experts.released import CONTEXT, HEAD_DIM, RELEASED_397B

        per_token = RELEASED_397B.kv_per_token // (HEAD_DIM * 2) * kv.nbytes(HEAD_DIM, 2)
        factor = next((f for f in (1, *YARN) if (context or 1) <= f * CONTEXT), YARN[-1])
        return replace(RELEASED_397B, kv_per_token=per_token), factor * CONTEXT, float(factor)

    import mlx.core as mx

    from ..backends.eyes import sight_of
    from ..checkpoint.files import Checkpoint
    from ..checkpoint.locate import find_model
    from ..model.config import ModelConfig
    from ..model.stream import geometry
    from ..model.weights import Weights

    path = find_model(model)
    checkpoint = Checkpoint.open(path)
    config = ModelConfig.from_dict(checkpoint.config).stretched(context)
    weights = Weights(checkpoint, config, mx.bfloat16 if mx.metal.is_available() else mx.float32)
    layouts = weights.expert_layouts(config.text)
    sight = sight_of(path, weights, config)
    found = geometry(weights, layouts, config.text, sight, kv=kv)
    return found, config.text.max_position_embeddings, config.text.rope.factor


def predictions(chosen: MemoryPlan, mac: Machine) -> dict[str, Any]:
    expected = predict(chosen, mac.bandwidth, mac.ssd)
    at = {f"{hits:.0%}": predict(chosen, mac.bandwidth, mac.ssd, hits) for hits in HITS}
    sweeps = {tokens: predict_sweep(chosen, mac.bandwidth, mac.ssd, tokens) for tokens in PROMPTS}
    return {
        "bandwidth_gbps": mac.bandwidth,
        "ssd_gbps": mac.ssd,
        "ssd_source": mac.source,
        "hit_rate": round(expected.hit_rate, 3),
        "bytes_per_token": round(expected.read_per_token),
        "decode_tps": [round(expected.serial, 2), round(expected.overlapped, 2)],
        "at_hit_rates": {
            name: {
                "bytes_per_token": round(p.read_per_token),
                "decode_tps": [round(p.serial, 2), round(p.overlapped, 2)],
            }
            for name, p in at.items()
        },
        "prefill": {
            str(tokens): {"bytes": round(read), "seconds": round(seconds, 1), "tps": round(tokens / seconds, 1)}
            for tokens, (read, seconds) in sweeps.items()
        },
    }


def lines(found: dict[str, Any]) -> list[str]:
    experts, slots = found["experts"], found["slots_per_layer"]
    text = [
        f"{found['model']} on {found['machine']} with {gigabytes(found['budget_bytes'])} ({found['budget_because']})",
        *([f"positions are stretched {found['yarn']:g} times (YaRN)"] if found["yarn"] != 1 else []),
        f"an expert: {experts['bytes_each']:,} bytes; all: {gigabytes(experts['bytes_in_all'])}; "
        f"a token with none in memory reads {gigabytes(experts['bytes_per_token_uncached'])}",
        "",
        *(f"{gigabytes(size):>10}  {name}" for name, size in found["reserved_bytes"].items() if size),
        f"{gigabytes(found['total_bytes']):>10}  in all",
        "",
        "every expert is in memory"
        if found["resident"]
        else f"{min(slots)} to {max(slots)} experts of each layer are in memory; the others are streamed from disk",
    ]
    if min(slots) < 2 * experts["per_token"]:
        text.append(
            f"fewer than {2 * experts['per_token']}, those of two tokens, are slow: raise --memory or lower --context"
        )
    if (p := found["predictions"]) is None:
        return [*text, "name a Mac with --machine to see predicted speeds"]
    text += [
        "",
        f"PREDICTED, not measured: {p['bandwidth_gbps']:g} GB/s of memory, {p['ssd_gbps']:g} GB/s of SSD "
        f"({p['ssd_source']})",
        "  decode: tokens a second without and with overlap of reads and arithmetic",
        f"    expected {p['hit_rate']:.0%} hits  {p['bytes_per_token'] / 1e9:6.3f} GB a token  "
        f"{p['decode_tps'][0]:6.2f} to {p['decode_tps'][1]:.2f}",
    ]
    for name, at in p["at_hit_rates"].items():
        text.append(
            f"    at {name:>8} hits  {at['bytes_per_token'] / 1e9:6.3f} GB a token  "
            f"{at['decode_tps'][0]:6.2f} to {at['decode_tps'][1]:.2f}"
        )
    text.append("  prompt, with an empty bank")
    for tokens, sweep in p["prefill"].items():
        text.append(
            f"    {tokens:>6} tokens  {sweep['bytes'] / 1e9:6.1f} GB  {sweep['seconds']:6.1f} s  {sweep['tps']:g}/s"
        )
    return text
