"""llama.cpp as an engine of bench_decode.py, through the C interface of its Python binding.

The binding's own class knows no batches. Sequences of a batch share a context, and each has a KV
cache of its own, in float32 as in the other engines.
"""

import os
from pathlib import Path

import numpy as np

MOST = 256  # sequences that a context takes
TENSORS = {  # GGUF's names; `blk.` and the layer's number come before those with a scope of a layer
    "wte": "token_embd.weight",
    "wpe": "position_embd.weight",
    "ln_f": "output_norm",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn/c_attn": "attn_qkv",
    "attn/c_proj": "attn_output",
    "mlp/c_fc": "ffn_up",
    "mlp/c_proj": "ffn_down",
}


def write_gguf(path, weights_file, hparams, dtype):
    """Write the weights of `weights_file`, an .npz of our variables, without a vocabulary.

    Args: dtype: of the matrices, float32 or float16.
    """
    import gguf

    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "gpt2")
    writer.add_context_length(hparams.n_ctx)
    writer.add_embedding_length(hparams.n_embd)
    writer.add_feed_forward_length(4 * hparams.n_embd)
    writer.add_block_count(hparams.n_layer)
    writer.add_head_count(hparams.n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(hparams.n_vocab)
    with np.load(weights_file) as weights:
        for name, value in weights.items():
            value = value[0].T if value.ndim == 3 else value  # [in, out] -> [out, in]
            value = value.astype(dtype if value.ndim == 2 else "float32")
            writer.add_tensor(tensor_name(name), np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(path)


def tensor_name(variable):
    """GGUF's name of a variable: model/h3/ln_1/g -> blk.3.attn_norm.weight."""
    *scopes, last = variable.removeprefix("model/").split("/")
    layer = f"blk.{scopes.pop(0)[1:]}." if scopes and scopes[0] != "ln_f" else ""
    if not scopes:
        return TENSORS[last]
    return f"{layer}{TENSORS['/'.join(scopes)]}.{'bias' if last == 'b' else 'weight'}"


class LlamaCpp:
    def __init__(self, folder, hparams, dtype, top_k):
        import llama_cpp

        self.llama = llama_cpp
        self.name = f"llama.cpp, binding {llama_cpp.__version__}, {dtype}"
        path = Path(folder) / f"{dtype}.gguf"
        if not path.exists():
            write_gguf(path, folder / "weights.npz", hparams, dtype)
        self.quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.quiet, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_top_k(top_k))
        llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init_dist(0))
        self.samplers = {True: llama_cpp.llama_sampler_init_greedy(), False: chain}
        self.context, self.made_for = None, None

    def run(self, prompts, tokens, greedy):
        """The token ids that continue each of `prompts`, which are of one length."""
        rows = []
        for i in range(0, len(prompts), MOST):
            steps = self.stream(prompts[i : i + MOST], tokens, greedy)
            rows += map(list, zip(*steps, strict=True))
        return rows

    def stream(self, prompts, tokens, greedy):
        """Yields: the next token of each prompt, a list. There are at most MOST prompts."""
        n_context, sampler = len(prompts[0]), self.samplers[greedy]
        context = self._empty_context(len(prompts), n_context, tokens)
        new = prompts
        for i in range(tokens):
            ends = self._evaluate(context, new, n_context + i - len(new[0]))
            ids = [self.llama.llama_sampler_sample(sampler, context, end) for end in ends]
            yield ids
            new = [[token] for token in ids]

    def _empty_context(self, batch_size, n_context, tokens):
        """The last context where it is of this size, else a new one."""
        llama = self.llama
        if self.made_for != (batch_size, n_context, tokens):
            if self.context:
                llama.llama_free(self.context)
            params = llama.llama_context_default_params()
            params.n_ctx = batch_size * (n_context + tokens)
            params.n_batch = max(batch_size * n_context, 512)
            params.n_seq_max = batch_size
            params.n_threads = params.n_threads_batch = os.cpu_count()
            params.type_k = params.type_v = llama.GGML_TYPE_F32
            self.context = llama.llama_init_from_model(self.model, params)
            self.made_for = batch_size, n_context, tokens
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        return self.context

    def _evaluate(self, context, texts, position):
        """Evaluate texts of one length that begin at `position`: where each one's logits are."""
        n = len(texts[0])
        batch = self.llama.llama_batch_init(len(texts) * n, 0, 1)
        batch.n_tokens = len(texts) * n
        for row, text in enumerate(texts):
            for j, token in enumerate(text):
                i = row * n + j
                batch.token[i], batch.pos[i] = token, position + j
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, row
                batch.logits[i] = j == n - 1
        failed = self.llama.llama_decode(context, batch)
        self.llama.llama_batch_free(batch)
        assert not failed, failed
        return [row * n + n - 1 for row in range(len(texts))]
