"""Tiny vision-language models with random weights and their own small tokenizers, laid out as the hub holds them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

#: what the tokenizer learns its merges from: the words of questions and answers
_WORDS = """Which of the two marked points is closer to the camera? The red point is closer. The green point is closer.
At which marked point does the surface face the camera more? Which point receives more light? Do both points have the
same base colour? Yes, they do. No, they do not. red green Yes No the point similar different Answer in one word.
yes no yes no."""

_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CHAT = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


def tokenizer(specials: tuple[str, ...], *, words: str = _WORDS, vocabulary: int = 400, **named: str) -> Any:
    """A byte-level BPE tokenizer; `named` are special tokens that a processor looks up by name."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[*_CHAT, *specials], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    inner.train_from_iterator([words] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   extra_special_tokens=dict(named))  # fmt: skip


def _text(vocabulary: int, **more: Any) -> dict[str, Any]:
    return {"vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
            "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 2, **more}  # fmt: skip


def qwen2_5_vl(words: str) -> tuple[Any, Any, Any, dict[str, Any], str]:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

    tokens = tokenizer(("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"), words=words)
    named = {"vision_start": "vision_start", "vision_end": "vision_end", "image": "image_pad", "video": "video_pad"}
    ids = {f"{k}_token_id": tokens.convert_tokens_to_ids(f"<|{v}|>") for k, v in named.items()}
    config = Qwen2_5_VLConfig(
        text_config=_text(len(tokens), rope_parameters={"rope_type": "default", "mrope_section": [2, 1, 1]}),
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32,
                       "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1]},
        tie_word_embeddings=False, **ids,
    )  # fmt: skip
    pixels = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112)
    about = {"processor_class": "Qwen2_5_VLProcessor"}
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    return Qwen2_5_VLForConditionalGeneration(config), tokens, pixels, about, image


def smolvlm(words: str) -> tuple[Any, Any, Any, dict[str, Any], str]:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil

    specials = ("<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>", "<video>")
    tokens = tokenizer((*specials, *(f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7))), words=words)
    config = SmolVLMConfig(
        text_config={"model_type": "llama", **_text(len(tokens))},
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": 64, "patch_size": 16},
        scale_factor=2, pad_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    pixels = SmolVLMImageProcessorPil(size={"longest_edge": 256}, max_image_size={"longest_edge": 64})
    about = {"processor_class": "SmolVLMProcessor", "image_seq_len": 4}
    return SmolVLMForConditionalGeneration(config), tokens, pixels, about, "<image>"


def internvl(words: str) -> tuple[Any, Any, Any, dict[str, Any], str]:
    from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLForConditionalGeneration

    tokens = tokenizer(("<img>", "</img>", "<IMG_CONTEXT>", "<video>"), words=words, start_image_token="<img>",
                       end_image_token="</img>", context_image_token="<IMG_CONTEXT>",
                       video_token="<video>")  # fmt: skip
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **_text(len(tokens))},
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": [56, 56], "patch_size": [14, 14]},
        image_token_id=tokens.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4, tie_word_embeddings=False,
    )  # fmt: skip
    pixels = GotOcr2ImageProcessorPil(size={"height": 56, "width": 56}, crop_to_patches=True, max_patches=12)
    about = {"processor_class": "InternVLProcessor", "image_seq_length": 4}
    return InternVLForConditionalGeneration(config), tokens, pixels, about, "<IMG_CONTEXT>\n"


def llava(words: str) -> tuple[Any, Any, Any, dict[str, Any], str]:
    from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration

    tokens = tokenizer(("<image>",), words=words)
    config = LlavaConfig(
        text_config={"model_type": "llama", **_text(len(tokens))},
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        vision_config={"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48,
                       "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56, "patch_size": 14},
        tie_word_embeddings=False,
    )  # fmt: skip
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    about = {"processor_class": "LlavaProcessor", "patch_size": 14, "vision_feature_select_strategy": "default",
             "num_additional_image_tokens": 1, "image_token": "<image>"}  # fmt: skip
    return LlavaForConditionalGeneration(config), tokens, pixels, about, "<image>\n"


FAMILIES: Mapping[str, Callable[[str], tuple[Any, Any, Any, dict[str, Any], str]]] = {
    "qwen2_5_vl": qwen2_5_vl, "smolvlm": smolvlm, "internvl": internvl, "llava": llava,
}  # fmt: skip


def save_vlm(folder: Path, family: str, *, seed: int = 0, words: str = _WORDS) -> Path:
    """A tiny model of `family` with everything that the hub's checkpoints of it have.

    Parameters
    ----------
    words : text that the tokenizer learns; words that are missing from it take several tokens
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network, tokens, pixels, about, image = FAMILIES[family](words)
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:  # the library's own start gives answers that are all one half to 1e-3
                parameter.data += (0.4 if "lm_head" in name else 0.15) * torch.randn_like(parameter)
    network.save_pretrained(folder)
    tokens.save_pretrained(folder)
    pixels.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(about))
    (folder / "chat_template.jinja").write_text(_CHATML.replace("IMAGE", image))
    return folder
