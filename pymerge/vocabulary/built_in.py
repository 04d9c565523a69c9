"""Chat templates that recipes can name, written from public descriptions of their formats; Jinja.

Each is a loop over `messages` with `role` and `content`, and ends with what opens the model's turn where
`add_generation_prompt` asks for it. `bos_token` and `eos_token` are the tokenizer's, and may be missing.
"""

from __future__ import annotations

__all__ = ["MARKERS", "TEMPLATES"]

#: System text, then headed paragraphs; a finished answer ends with the end-of-text token.
_ALPACA = """\
{{- bos_token or '' -}}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{- message['content'] | trim + '\\n\\n' -}}
{%- elif message['role'] == 'user' -%}
{{- '### Instruction:\\n' + message['content'] | trim + '\\n\\n' -}}
{%- elif message['role'] == 'assistant' -%}
{{- '### Response:\\n' + message['content'] | trim + (eos_token or '') + '\\n\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '### Response:\\n' -}}
{%- endif -%}
"""

#: Every turn between <|im_start|> and <|im_end|>, which the role follows.
_CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

#: Roles in [|...|]; a conversation opens with a system turn, empty if there is none; users' turns end with the line.
_EXAONE = """\
{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{- '[|system|][|endofturn|]\\n' -}}
{%- endif -%}
{{- '[|' + message['role'] + '|]' + message['content'] -}}
{{- '\\n' if message['role'] == 'user' else '[|endofturn|]\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '[|assistant|]' -}}
{%- endif -%}
"""

#: Roles between header marks, two line breaks, <|eot_id|> at the end of each turn.
_LLAMA3 = """\
{{- bos_token or '' -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
{{- message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

#: Users' turns in [INST]; a system text has no marks of its own and goes into the first of them.
_MISTRAL = """\
{{- bos_token or '' -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{%- set ns.system = message['content'] | trim + '\\n\\n' -%}
{%- elif message['role'] == 'user' -%}
{{- '[INST] ' + ns.system + message['content'] | trim + ' [/INST]' -}}
{%- set ns.system = '' -%}
{%- elif message['role'] == 'assistant' -%}
{{- ' ' + message['content'] | trim + (eos_token or '') -}}
{%- endif -%}
{%- endfor -%}
"""

TEMPLATES = {"alpaca": _ALPACA, "chatml": _CHATML, "exaone": _EXAONE, "llama3": _LLAMA3, "mistral": _MISTRAL}

#: What a tokenizer should have as tokens for a template to mean something.
MARKERS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "exaone": ("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
}
