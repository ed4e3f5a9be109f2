"""From the name of a layer in a file to the weights of a DiT that it means."""

from __future__ import annotations

import re

from torch import nn

from ...families.lora_names import Target, lora_names

_FOREIGN = re.compile(
    r"(?:^|[._])(?:text_?encoders?|text_?model|te\d?|t5\w*|umt5\w*|clip\w*|llama|llm|qwen\w*|gemma\w*|byt5|vae|first_stage_model|"
    r"image_?encoder|vision_?model|audio_?encoder|audio_?model|vocoder|wav2vec\w*|conditioner)\d*(?:[._]|$)"
)
"""Parts of names under which another model than the DiT lies."""
_FLAT_FOREIGN = re.compile(
    r"(?i)(?:lora|lycoris|oft)_(?:te\d?|text_?encoder\d?|prior_te|t5\w*|clip\w*|llm|qwen\w*|umt5|vae|image_encoder)_"
)
_OF_DIT = re.compile(r".*?(?:refiner|connector|embedder|embedding|injector|adapter|motion_encoder|face_\w+)s?$")
"""Names of parts of DiTs that have blocks of their own, so that what lies under them is not what lies outside."""
_WORDS = re.compile(
    r"(?i:lora|lycoris|locon|lokr|loha|oft|boft|glora|ia3|dora|base|model|net|network|pipe|pipeline|dit|unet|transformer|diffusion|denoiser|"
    r"wan|hunyuan|video|[it]2v|orig_mod|orig|mod|module|generator|student|prior)_+|_+"
)
"""Words that may stand before a name whose dots were made underscores."""

TEXT_ENCODER = "text encoder"
TITLES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("VACE blocks", re.compile(r"vace_")),
    ("img k/v", re.compile(r"k_img|v_img|add_[kv]_proj|norm_added_k")),
    ("image embedding", re.compile(r"img_emb|image_embedder|vision_in")),
    ("sound", re.compile(r"audio|a2v|v2a")),
    ("norms", re.compile(r"(?:^|[._])(?:\w+_)?norm(?:\d|_?[qk]|_added_[qk]|_final|_in|_out\.norm)?(?:$|[._]norm$)|layernorm|_norm$")),
    ("modulation", re.compile(r"modulation|scale_shift_table|adaln|adaLN|_mod[._]|norm\d?(?:_context)?[._]linear|norm_out")),
    ("head", re.compile(r"^head|head[._]head|^proj_out|^final_layer|^out_layer|video_out")),
    ("embeddings", re.compile(r"embed|_in(?:[._]|$)|patchify|patch_proj|time_proj|condition_proj|^proj_in|connector|refiner")),
)
"""What kinds of weights are called in notes, by their names."""
OTHERS = "others"


class Names:
    """The names of a DiT's weights, under any prefix."""

    def __init__(self, transformer: nn.Module) -> None:
        self.dotted = lora_names(transformer)
        self.flat: dict[str, Target] = {}
        for name, target in self.dotted.items():
            self.flat.setdefault(name.replace(".", "_"), target)
        self.children = {name for name, _ in transformer.named_children()}
        self.depths: dict[str, int] = {}
        for name in self.dotted:
            match = re.match(r"(.+?)[.](\d+)[.]", name)
            if match:
                self.depths[match[1]] = max(self.depths.get(match[1], 0), int(match[2]) + 1)

    def find(self, name: str) -> Target | None:
        """What a name means, whatever separates its parts; None for what this DiT has not."""
        for spelled in dict.fromkeys((name, name.replace("/", "."), name.replace("__", "_"), name.replace("__", "."))):
            short = self.short(spelled)
            if short is not None:
                return self.dotted.get(short) or self.flat.get(short)
        return None

    def short(self, name: str) -> str | None:
        """A name without its prefix, None where no part of it is known."""
        if name in self.dotted:
            return name
        if is_foreign(name):
            return None
        segments = name.split(".")
        for begin in range(1, len(segments)):
            if not self._may_stand_before(segments[begin - 1]):
                break
            rest = ".".join(segments[begin:])
            if rest in self.dotted:
                return rest
        for rest in _rests(segments[-1]) if all(map(self._may_stand_before, segments[:-1])) else ():
            if rest in self.flat:
                return rest
        return None

    def block_beyond(self, name: str) -> int | None:
        """The number of the block of a name that would be known if the DiT had so many blocks."""
        for match in re.finditer(r"(?<![\d])(\d+)(?=[._])", name):
            before = name[: match.start()]
            if int(match[1]) and self.find(f"{before}0{name[match.end() :]}") and self._is_block_list(before):
                return int(match[1])
        return None

    def _is_block_list(self, before: str) -> bool:
        return bool(re.search(r"blocks[._]$", before))

    def _may_stand_before(self, segment: str) -> bool:
        return not segment.isdigit() and segment not in self.children and not _OF_DIT.fullmatch(segment)


def is_foreign(name: str) -> bool:
    """Whether a name is of a text encoder or of another model beside the DiT."""
    return bool(_FLAT_FOREIGN.match(name) or _FOREIGN.search(name.rpartition("blocks.")[0] or name.partition(".")[0]))


def title_of(name: str) -> str:
    """What kind of weight a name speaks of, for notes."""
    if is_foreign(name):
        return TEXT_ENCODER
    short = without_prefix(name)
    return next((title for title, pattern in TITLES if pattern.search(short)), OTHERS)


def without_prefix(name: str) -> str:
    """A name without the words that usually stand before it, as well as that can be told without a DiT."""
    segments = name.split(".")
    while len(segments) > 1 and re.fullmatch(
        r"base_model|model|transformer|transformer_[12]|diffusion_model|unet|dit|pipe|module|net|network|denoiser|generator", segments[0]
    ):
        segments.pop(0)
    short = ".".join(segments)
    return re.sub(r"^(?:lora|lycoris|oft)_(?:unet|transformer|dit)?_*", "", short) if len(segments) == 1 else short


def _rests(flat: str) -> list[str]:
    """What may be the name in a flat key: the key without one, two ... of the words before it."""
    found = [flat]
    while (match := _WORDS.match(found[-1])) is not None:
        found.append(found[-1][match.end() :])
    return found


