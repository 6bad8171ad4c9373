"""What the checks share: small random models of transformers, our tools, and the comparison."""
import json
import pathlib
import subprocess

import safetensors.torch
import torch
import transformers

SOURCE = pathlib.Path(__file__).resolve().parents[2]


class Oracle:
    """One check's surroundings: `work` is an empty folder of its own, `tools` holds our built test tools."""

    def __init__(self, work, tools):
        self.work = pathlib.Path(work)
        self.tools = pathlib.Path(tools)

    def run(self, tool, *arguments):
        """Runs a tool of ours; its complaint is the error."""
        command = [str(self.tools / tool), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if result.returncode != 0:
            raise AssertionError(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
        return result.stdout

    def folder(self, name):
        path = self.work / name
        path.mkdir(parents=True)
        return path

    def write_json(self, name, value):
        path = self.work / name
        path.write_text(json.dumps(value))
        return path

    def our_logits(self, folder, rows):
        """Logits of each row of entries by the training pass, and of its last position by prefill and a step."""
        rows_path = self.write_json("rows.json", rows)
        out = self.work / "logits.safetensors"
        self.run("model_dump", "logits", folder, rows_path, out)
        tensors = safetensors.torch.load_file(out)
        return ([tensors[str(i)] for i in range(len(rows))], [tensors[f"decoded.{i}"] for i in range(len(rows))])


# Odd sizes everywhere: they find indexing mistakes that powers of two hide.
SIZES = dict(vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0,
             initializer_range=.2, attention_dropout=0.0)
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SCALED_ROPE = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32}

MODELS = {
    "qwen3_tied": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
        **SIZES, head_dim=16, tie_word_embeddings=True, rope_parameters=dict(DEFAULT_ROPE, rope_theta=1e6))),
    "qwen3_biased": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
        **SIZES, head_dim=10, tie_word_embeddings=False, attention_bias=True, rope_parameters=DEFAULT_ROPE)),
    "qwen2_untied": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
        **SIZES, tie_word_embeddings=False, rope_parameters=DEFAULT_ROPE)),
    "llama_tied": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(
        **SIZES, tie_word_embeddings=True, rope_parameters=DEFAULT_ROPE)),
    "llama_scaled": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(
        **SIZES, tie_word_embeddings=False, attention_bias=True, rope_parameters=SCALED_ROPE)),
}


def random_model(name, seed=0):
    """A model of MODELS whose norms and biases are random too: at their defaults a swap would go unseen."""
    torch.manual_seed(seed)
    model = MODELS[name]().float().eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name or "bias" in parameter_name:
                parameter.add_(.3 * torch.randn_like(parameter))
    return model


def random_rows(vocabulary, lengths=(2, 7, 60, 13), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, vocabulary, (length,), generator=generator).tolist() for length in lengths]


def their_logits(model, rows):
    with torch.no_grad():
        return [model(input_ids=torch.tensor([row])).logits[0].float() for row in rows]


def expect_close(got, wanted, tolerance, what):
    if got.shape != wanted.shape:
        raise AssertionError(f"{what}: want {tuple(wanted.shape)}, got {tuple(got.shape)}")
    difference = (got - wanted).abs().max().item()
    if not difference <= tolerance:
        raise AssertionError(f"{what}: largest difference {difference:.3g}, want at most {tolerance:.3g}")
    return difference


def expect_equal_logits(oracle, folder, model, rows, what, tolerance=1e-4):
    wanted = their_logits(model, rows)
    if max(logits.abs().max().item() for logits in wanted) < 1:
        raise AssertionError(f"{what}: the logits are so small that any model would agree")
    trained, decoded = oracle.our_logits(folder, rows)
    worst = 0
    for i in range(len(rows)):
        worst = max(worst, expect_close(trained[i], wanted[i], tolerance, f"{what}, row {i}"))
        worst = max(worst, expect_close(decoded[i], wanted[i][-1], tolerance, f"{what}, row {i}, decoded"))
    print(f"{what}: {len(rows)} rows agree to {worst:.2g}")
