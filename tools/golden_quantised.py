"""Writes tests/data/quantised: small folders of matrices in few bits, each written by the library whose format it is,
with what that library makes numbers of it: NAME.expected beside NAME. GPTQ and AWQ, whose packers need a GPU, are packed
here as their kernels read them.

    python -m venv venv && venv/bin/pip install torch safetensors compressed-tensors==0.20.1 bitsandbytes==0.50.2
    venv/bin/python tools/golden_quantised.py
"""

import json
from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import save_file

OUT = Path(__file__).parent.parent / "tests" / "data" / "quantised"


def matrix(rows, columns, seed):
    """A matrix with some columns much larger than the others, as language models have."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.05
    weight[:, seed % columns :: 37] *= 8
    return weight


def write(name, config, tensors):
    """One folder: the configuration says how, and nothing else."""
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"quantization_config": config}) + "\n")
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "model.safetensors")


def blocks(weight, args):
    """The numbers that share a scale, each in a row."""
    rows, columns = weight.shape
    match args.strategy:
        case "tensor":
            return weight.reshape(1, -1), (1,)
        case "channel":
            return weight, (rows, 1)
        case "group":
            return weight.reshape(-1, args.group_size), (rows, columns // args.group_size)
        case "block":
            down, across = args.block_structure
            pad = torch.zeros(-(-rows // down) * down, -(-columns // across) * across)
            pad[:rows, :columns] = weight
            tiles = pad.reshape(pad.shape[0] // down, down, -1, across).permute(0, 2, 1, 3)
            return tiles.reshape(-1, down * across), tuple(tiles.shape[:2])


def compressed_tensors(name, format, shapes, scale_dtype=torch.bfloat16, **arguments):
    """Matrices by the package's own compressor, and what its decompressor makes of them with scales in f32."""
    args = QuantizationArgs(**arguments)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    compressor = BaseCompressor.get_value_from_registry(format)
    tensors = {}
    for index, (rows, columns) in enumerate(shapes):
        weight = matrix(rows, columns, index + 1)
        numbers, shape = blocks(weight, args)
        scale, zero = calculate_qparams(numbers.amin(1), numbers.amax(1), args)
        scale, zero = scale.to(scale_dtype).reshape(shape), zero.reshape(shape)
        state = {"weight": weight, "weight_scale": scale.float()}
        if not args.symmetric:
            state["weight_zero_point"] = zero.to(torch.int8)
        packed = compressor.compress(state, scheme)
        wide = compressor.decompress(packed, scheme)["weight"]
        assert wide.dtype == torch.float32
        packed["weight_scale"] = scale
        tensors |= {f"m{index}.{key}": value for key, value in packed.items()}
        tensors[f"m{index}.expected"] = wide
    weights = args.model_dump(mode="json")
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    config = {"quant_method": "compressed-tensors", "format": format, "quantization_status": "compressed"}
    write(name, config | {"config_groups": {"group_0": group}, "ignore": ["lm_head"]}, tensors)


def bitsandbytes_4bit(name, kind, nested):
    """Codes through a table, as a model that was loaded in 4 bits is saved."""
    tensors = {}
    for index, (shape, block) in enumerate([((8, 128), 64), ((6, 96), 64), ((2, 128), 128)]):
        weight = matrix(*shape, index + 1)
        codes, state = bnb.quantize_4bit(weight, blocksize=block, compress_statistics=nested, quant_type=kind)
        absmax = state.absmax
        if nested:
            absmax = bnb.dequantize_blockwise(absmax, state.state2) + state.offset
        wide = _dequantize_4bit_compute(codes.reshape(-1), absmax, state.code, block, shape, torch.float32)
        # Blocks go on from row to row. The package's kernel for processors has it otherwise, and wrong.
        if shape[1] % block == 0:
            assert torch.equal(wide, bnb.dequantize_4bit(codes, state))
        tensors[f"m{index}.weight"] = codes
        tensors |= {f"m{index}.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
        tensors[f"m{index}.expected"] = wide.reshape(shape)
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
    write(name, config | {"bnb_4bit_use_double_quant": nested, "bnb_4bit_quant_storage": "uint8"}, tensors)


def bitsandbytes_int8(name):
    """LLM.int8(). The package multiplies twice, by the largest magnitude and by 1 / 127; expected is once, by their
    quotient, which is held to the package's own here."""
    weight = matrix(12, 128, 1)
    codes, largest, _ = bnb.int8_vectorwise_quant(weight.half())
    wide = codes.float() * (largest / 127)[:, None]
    torch.testing.assert_close(wide, bnb.int8_vectorwise_dequant(codes, largest), rtol=2e-7, atol=0)
    tensors = {"m.weight": codes, "m.SCB": largest, "m.weight_format": torch.tensor(0, dtype=torch.uint8)}
    write(name, {"quant_method": "bitsandbytes", "load_in_8bit": True}, tensors | {"m.expected": wide})


def words(codes, places=range(8)):
    """Eight codes of the last axis in a word of 32 bits, the code i in the half byte places[i]."""
    codes = codes.reshape(*codes.shape[:-1], -1, 8).to(torch.int64)
    word = sum(codes[..., i] << (4 * place) for i, place in enumerate(places))
    return torch.where(word >= 2**31, word - 2**32, word).to(torch.int32)


def asymmetric(rows, columns, group, seed, order=None):
    """Codes (rows, columns), zero points and scales (rows, groups), and the numbers that they stand for; in an order,
    the group of column order[i] is i / group."""
    weight = matrix(rows, columns, seed)
    of = torch.arange(columns) // group
    if order is not None:
        of = torch.empty_like(of).scatter_(0, order, torch.arange(columns) // group)
    groups = columns // group
    parts = torch.stack([weight[:, of == index] for index in range(groups)], 1)
    low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
    scale = ((high - low) / 15).half()
    zero = (-low / scale.float()).round().clamp(0, 15)
    codes = ((weight / scale.float()[:, of]).round() + zero[:, of]).clamp(0, 15)
    return codes, zero, scale, of, (codes - zero[:, of]) * scale.float()[:, of]


def gptq(name, format, act_order):
    """(columns / 8, rows), and zero points less one in the first version."""
    tensors = {}
    for index, (rows, columns, group) in enumerate([(8, 128, 32), (16, 64, 64)]):
        order = torch.randperm(columns, generator=torch.Generator().manual_seed(7)) if act_order else None
        codes, zero, scale, of, wide = asymmetric(rows, columns, group, index + 1, order)
        less = zero if format == "gptq_v2" else (zero - 1) % 16
        tensors |= {
            f"m{index}.qweight": words(codes).T,
            f"m{index}.qzeros": words(less.T),
            f"m{index}.scales": scale.T,
            f"m{index}.g_idx": of.to(torch.int32),
            f"m{index}.expected": wide,
        }
    config = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": act_order, "sym": False}
    write(name, config | {"checkpoint_format": format}, tensors)


def awq(name):
    """(columns, rows / 8), with a word's rows in the order 0 2 4 6 1 3 5 7 from its lowest half byte up."""
    tensors = {}
    places = [0, 4, 1, 5, 2, 6, 3, 7]
    for index, (rows, columns, group) in enumerate([(8, 128, 32), (16, 64, 64)]):
        codes, zero, scale, _, wide = asymmetric(rows, columns, group, index + 1)
        tensors |= {
            f"m{index}.qweight": words(codes.T, places),
            f"m{index}.qzeros": words(zero.T, places),
            f"m{index}.scales": scale.T,
            f"m{index}.expected": wide,
        }
    write(name, {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm", "zero_point": True}, tensors)


def fp8_blocks(name):
    """Floats with a scale for 128 x 128 of them, of sizes that blocks do not divide."""
    tensors = {}
    for index, (rows, columns) in enumerate([(130, 16), (2, 160)]):
        weight = matrix(rows, columns, index + 1)
        down, across = -(-rows // 128), -(-columns // 128)
        largest = torch.zeros(down, across)
        for i in range(down):
            for j in range(across):
                largest[i, j] = weight[i * 128 : (i + 1) * 128, j * 128 : (j + 1) * 128].abs().max()
        scale = largest / 448
        spread = scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
        codes = (weight / spread).to(torch.float8_e4m3fn)
        tensors |= {f"m{index}.weight": codes, f"m{index}.weight_scale_inv": scale}
        tensors[f"m{index}.expected"] = codes.float() * spread
    config = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128], "fmt": "e4m3"}
    write(name, config, tensors)


def main():
    shapes = [(9, 128), (2, 64)]
    eight, four = {"num_bits": 8}, {"num_bits": 4}
    for name, format, arguments in [
        ("int8-channel", "int-quantized", eight | {"strategy": "channel"}),
        ("int8-group", "int-quantized", eight | {"strategy": "group", "group_size": 64}),
        ("int8-tensor", "int-quantized", eight | {"strategy": "tensor"}),
        ("int8-packed", "pack-quantized", eight | {"strategy": "group", "group_size": 64}),
        ("fp8-channel", "float-quantized", eight | {"type": "float", "strategy": "channel"}),
        ("fp8-tensor", "float-quantized", eight | {"type": "float", "strategy": "tensor"}),
        ("fp8-block", "float-quantized", eight | {"type": "float", "strategy": "block", "block_structure": [4, 48]}),
        ("int4-channel", "pack-quantized", four | {"strategy": "channel"}),
        ("int4-group", "pack-quantized", four | {"strategy": "group", "group_size": 32}),
        ("int4-zeros", "pack-quantized", four | {"strategy": "group", "group_size": 64, "symmetric": False}),
    ]:
        compressed_tensors(name, format, shapes, **arguments)
    compressed_tensors("int4-f16", "pack-quantized", shapes, torch.float16, **four, strategy="group", group_size=64)
    for kind in ["nf4", "fp4"]:
        for nested in [False, True]:
            bitsandbytes_4bit(f"bnb-{kind}{'-double' if nested else ''}", kind, nested)
    bitsandbytes_int8("bnb-int8")
    gptq("gptq", "gptq", False)
    gptq("gptq-order", "gptq", True)
    gptq("gptq-v2", "gptq_v2", False)
    awq("awq")
    fp8_blocks("fp8-128")


if __name__ == "__main__":
    main()
