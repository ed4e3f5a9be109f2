"""Graphs in API format for the tiny models: parts, and text_to_latent which puts them together."""

from __future__ import annotations

import uuid

from architectures import ARCHITECTURES, WAN_VAE

Graph = dict[str, dict]
Link = list[str | int]


def node(class_type: str, **inputs: object) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def load_model(name: str) -> dict:
    return node("UNETLoader", unet_name=ARCHITECTURES[name].checkpoint, weight_dtype="default")


def conditioning(name: str, seed: int, tokens: int = 16, count: int = 1) -> dict:
    """A list of `count` CONDITIONINGs of noise, as wide as the model wants them."""
    model = ARCHITECTURES[name]
    sizes = {"text_dim": model.text_dim, "tokens": tokens, "pooled_dim": model.pooled_dim, "has_mask": model.needs_text_mask}
    return node("BenchConditioning", seed=seed, count=count, **sizes)


def latents(name: str, seed: int, count: int = 1, frames: int | None = None, fill: str = "noise") -> dict:
    """A list of `count` LATENTs of noise in the model's shape; fill "nan" makes them unusable."""
    channels, usual_frames, height, width = ARCHITECTURES[name].latent_shape
    sizes = {"channels": channels, "frames": frames or usual_frames, "height": height, "width": width}
    return node("BenchLatents", seed=seed, count=count, fill=fill, **sizes)


def empty_latent(name: str, batch_size: int = 1) -> dict:
    if name == "ltxv":  # one latent cell is 32 pixels wide there, 8 elsewhere
        return node("EmptyLTXVLatentVideo", width=128, height=96, length=9, batch_size=batch_size)
    return node("EmptyHunyuanLatentVideo", width=64, height=48, length=9, batch_size=batch_size)


def sampling(name: str, model: Link, seed: int = 1, steps: int = 2, cfg: float = 4.0, sampler: str = "euler") -> Graph:
    """Nodes that sample `model` with the nodes pos, neg and latent; the latent comes out of node `sample`.

    CogVideoX is sampled in its variance-preserving space: KSampler would scale the noise by thousands.
    """
    common = {"cfg": cfg, "positive": ["pos", 0], "negative": ["neg", 0], "latent_image": ["latent", 0], "model": model}
    if name != "cogvideox":
        schedule = {"seed": seed, "steps": steps, "sampler_name": sampler, "scheduler": "simple", "denoise": 1.0}
        return {"sample": node("KSampler", **common, **schedule)}
    return {
        "ddim": node("VOIDSampler"),
        "sigmas": node("BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0),
        "sample": node("SamplerCustom", **common, add_noise=True, noise_seed=seed, sampler=["ddim", 0], sigmas=["sigmas", 0]),
    }


def text_to_latent(name: str, seed: int = 1, steps: int = 2, cfg: float = 4.0, sampler: str = "euler") -> Graph:
    """Load, sample, save. Ids: model, pos, neg, latent, sample, save (and ddim, sigmas for CogVideoX)."""
    graph = {
        "model": load_model(name),
        "pos": conditioning(name, seed=11),
        "neg": conditioning(name, seed=12),
        "latent": empty_latent(name),
        "save": save(["sample", 0]),
    }
    return graph | sampling(name, ["model", 0], seed, steps, cfg, sampler)


def raw_predictions(model: Link, sigmas: list[float], cfg: float = 4.0, seed: int = 1) -> Graph:
    """Instead of `sampling`: the guided prediction at each sigma (no zero) for one and the same noise, stacked along the batch."""
    common = {"cfg": cfg, "positive": ["pos", 0], "negative": ["neg", 0], "latent_image": ["latent", 0], "model": model}
    return {
        "raw": node("BenchRawSampler"),
        "sigmas": node("ManualSigmas", sigmas=", ".join(map(str, sigmas))),
        "sample": node("SamplerCustom", **common, add_noise=True, noise_seed=seed, sampler=["raw", 0], sigmas=["sigmas", 0]),
    }


def through(graph: Graph, node_id: str, patch: dict) -> Graph:
    """The graph with a node between the loaded model and all that used it. `patch` gets its `model` input here."""
    patch = {**patch, "inputs": {**patch["inputs"], "model": ["model", 0]}}
    rewired = {
        key: {**part, "inputs": {name: [node_id, 0] if value == ["model", 0] else value for name, value in part["inputs"].items()}}
        for key, part in graph.items()
    }
    return rewired | {node_id: patch}


def afresh(graph: Graph, *node_ids: str) -> Graph:
    """The graph with nodes that will not come from the cache: ComfyUI counts an input that the node does not know as a change."""
    mark = {"afresh": uuid.uuid4().hex}
    return graph | {node_id: {**graph[node_id], "inputs": graph[node_id]["inputs"] | mark} for node_id in node_ids}


def save(link: Link, prefix: str = "bench") -> dict:
    """Keeps anything that holds tensors as a safetensors file; read it with `ComfyServer.tensors`."""
    return node("BenchSave", anything=link, filename_prefix=prefix)


def report(model: Link, after: Link | None = None) -> dict:
    """Shows what the probe saw and the state of the shared module, once `after` has run; read it with `Run.report`."""
    return node("BenchReport", model=model, **({"after": after} if after else {}))


def decoded(graph: Graph, link: Link) -> Graph:
    """The graph with the tiny Wan VAE behind a latent and the frames saved as PNG by node `images`."""
    return graph | {
        "vae": node("VAELoader", vae_name=WAN_VAE),
        "decode": node("VAEDecode", samples=link, vae=["vae", 0]),
        "images": node("SaveImage", images=["decode", 0], filename_prefix="bench"),
    }
