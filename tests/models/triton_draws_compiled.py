"""The kernels, compiled as they are launched, for GPUs that are not here. `test_triton_draws` runs it as a program."""

import sys
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from seqgan_env.models.triton_draws import TritonDraws

LAYERS = [(2, 3), (300, 600), (50_000, 32)]
"""Vocabulary and width: one block, a few, many; features that are padded, that come in chunks, and that just fit."""
SHARED_MEMORY = 99 * 1024
"""Bytes that a program may have on every GPU from compute capability 8.0 on."""
TYPES = {torch.float32: "*fp32", torch.int64: "*i64"}
capability = int(sys.argv[1])


def compile_in_place(kernel: Any, *given: Any, grid: Any, warmup: bool, **options: Any) -> None:
    arguments = dict(zip(kernel.arg_names, given, strict=False))
    constants = {name: options.pop(name) for name in kernel.arg_names if name in options}
    signature = {name: "constexpr" for name in constants}
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            signature[name] = TYPES[value.dtype]
        elif isinstance(value, int) and value == 1 and name not in kernel.do_not_specialize:
            constants[name], signature[name] = 1, "constexpr"
        else:
            signature[name] = "i32" if isinstance(value, int) else "fp32"
    source = ASTSource(kernel, {name: signature[name] for name in kernel.arg_names}, constants)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert made.asm["cubin"]
    assert made.metadata.shared <= SHARED_MEMORY
    print(kernel.__name__, constants)


triton.JITFunction.run = compile_in_place
for vocab_size, width in LAYERS:
    draws = TritonDraws(torch.zeros(vocab_size, width), torch.zeros(vocab_size))
    draws(torch.zeros(3, width), torch.zeros(3, 1))
