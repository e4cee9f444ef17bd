"""A pure function of tensors, run eagerly or as one compiled call. The only file that knows about compilers.

Compiled, the function is traced once with `make_fx` and made a shared library by Inductor, ahead of time. Libraries are
kept in the user's cache, by the digest of what was traced, so that the next process only traces.
"""

import hashlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Mode = Literal["eager", "compiled"]
Function = Callable[..., tuple[Tensor, ...]]

log = logging.getLogger("qlearn")
KEPT_LIBRARIES = 100  # in the cache, those used last; each takes 1.5 MB
_told: set[str] = set()


class Program:
    """A function of tensors that stay and tensors that come, some of the former replaced at every call.

    Args:
        function: `(*kept, *inputs)` to `(*new, *outputs)`, where `new` takes the place of the first of `kept`. Pure.
        kept: tensors that are there at every call, in the same memory.
        changes: how many of them are replaced, in place.
        in_place: the function does so itself, and returns outputs alone: quicker where little of much changes.
        mode: how it runs. What cannot be compiled runs eagerly, with a warning that says why, once.
        name: what it is, for the user.
    """

    def __init__(
        self,
        function: Function,
        kept: Sequence[Tensor],
        *,
        changes: int,
        in_place: bool = False,
        mode: Mode,
        name: str,
    ) -> None:
        self._function, self._kept, self._changes, self._name = function, list(kept), changes, name
        self._in_place = in_place
        self._compile, self._shapes = mode == "compiled", list[torch.Size]()
        self._library: Any = None

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """The outputs for these inputs."""
        if self._compile:
            self._compile, self._shapes = False, [x.shape for x in inputs]
            self._library = self._compiled(inputs)
        # The library trusts its caller: other shapes than those that it was made for run eagerly.
        if self._library is not None and [x.shape for x in inputs] == self._shapes:
            outputs: Sequence[Tensor] = self._library.run([*self._kept, *inputs])
            return outputs
        return self._eagerly(self._kept, inputs)

    @property
    def compiled(self) -> bool:
        """Whether it runs as a compiled call, as far as is known."""
        return self._compile or self._library is not None

    def _eagerly(self, kept: Sequence[Tensor], inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        results = self._function(*kept, *inputs)
        if self._in_place:
            return results
        with torch.no_grad():
            for tensor, new in zip(kept, results[: self._changes], strict=False):
                tensor.copy_(new)
        return results[self._changes :]

    def _compiled(self, inputs: Sequence[Tensor]) -> Any:
        """The library, loaded and tried beside the function; None where it cannot be had."""
        problem = why_not()
        if problem is None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    path = self._built(inputs)
                    library = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)
                    if self._agrees(library, inputs):
                        return library
                problem = "compiled, it gave other numbers"
                path.unlink(missing_ok=True)
            except Exception as error:  # whatever a tracer and two compilers may raise
                log.debug("compiling %s failed", self._name, exc_info=True)
                problem = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        if problem not in _told:
            _told.add(problem)
            warnings.warn(f"{self._name} runs eagerly, which is slower: {problem}", stacklevel=4)
        return None

    def _built(self, inputs: Sequence[Tensor]) -> Path:
        """The library's file: from the cache, or made now."""
        arguments = [*self._kept, *inputs]
        graph = traced(self._function, arguments, 0 if self._in_place else self._changes, in_place=self._in_place)
        folder = cache_folder()
        path = folder / f"{digest(graph, arguments)}.so"
        if path.exists():
            os.utime(path)
            return path
        log.info("compiling %s; a run like this one starts at once the next time", self._name)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "library.so"
            torch._inductor.aot_compile(graph, tuple(arguments), options={"aot_inductor.output_path": str(made)})
            os.replace(made, path)
        prune(folder)
        return path

    def _agrees(self, library: Any, inputs: Sequence[Tensor]) -> bool:
        """Whether both ways give the same, up to rounding."""
        mine, theirs = ([*(t.clone() for t in self._kept[: self._changes]), *self._kept[self._changes :]] for _ in "ab")
        one = [*self._eagerly(mine, inputs), *mine[: self._changes]]
        two = [*library.run([*theirs, *inputs]), *theirs[: self._changes]]
        return all(torch.allclose(a, b, rtol=1e-2, atol=1e-4, equal_nan=True) for a, b in zip(one, two, strict=True))


def why_not() -> str | None:
    """Why nothing can be compiled on this machine; None where it can."""
    compiler = os.environ.get("CXX") or ("clang++" if shutil.which("clang++") and not shutil.which("g++") else "g++")
    return None if shutil.which(compiler) else f"there is no C++ compiler ({compiler}) to be found"


def traced(
    function: Function, arguments: Sequence[Tensor], changes: int, *, in_place: bool = False
) -> torch.fx.GraphModule:
    """The function's graph, which writes its first `changes` results over its first arguments.

    With `in_place` it writes what the function does.

    Raises:
        ValueError: it does more than compute.
    """
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx.experimental.proxy_tensor import make_fx

    made: torch.fx.GraphModule = make_fx(
        torch.func.functionalize(function, remove="mutations_and_views") if in_place else function,
        decomposition_table=select_decomp_table(),
        tracing_mode="fake",
        _allow_non_fake_inputs=True,
    )(*arguments)
    graph = made.graph
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            if torch.Tag.nondeterministic_seeded in node.target.tags:
                raise ValueError(f"the network draws random numbers of its own ({node.target})")
            if node.target._schema.is_mutable and not in_place:
                raise ValueError(f"the network changes its tensors in place ({node.target})")
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    end = next(node for node in graph.nodes if node.op == "output")
    results = list(end.args[0])
    with graph.inserting_before(end):
        for old, new in zip(inputs, results[:changes], strict=False):
            graph.call_function(torch.ops.aten.copy_.default, (old, new))
    end.args = (tuple(results[changes:]),)
    graph.set_codegen(torch.fx.graph.CodeGen())  # plain tuples in, a plain tuple out
    graph.eliminate_dead_code()
    made.recompile()
    return made


def digest(graph: torch.fx.GraphModule, arguments: Sequence[Tensor]) -> str:
    """What a library depends on: the code, its constants, the arguments' layout, PyTorch, threads and processor."""
    sha = hashlib.sha256(graph.code.encode())
    for name, constant in sorted({**dict(graph.named_buffers()), **dict(graph.named_parameters())}.items()):
        sha.update(f"{name} {constant.dtype} {tuple(constant.shape)}".encode())
        sha.update(constant.detach().contiguous().numpy().tobytes())
    sha.update(repr([(x.dtype, tuple(x.shape), x.stride()) for x in arguments]).encode())
    sha.update(f"{torch.__version__} {torch.get_num_threads()} {processor()} {os.environ.get('CXX')}".encode())
    return sha.hexdigest()


def processor() -> str:
    """What a library is made for: it uses all that the processor can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line for line in lines if line.startswith("flags")), torch.backends.cpu.get_cpu_capability())


def cache_folder() -> Path:
    """Where libraries are kept: a folder that nobody else can write to.

    Raises:
        PermissionError: it is somebody else's.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qlearn" / "compiled"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others, and what is in it is run")
    return folder


def prune(folder: Path) -> None:
    """Leave the libraries that were used last."""
    found = sorted(folder.glob("*.so"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[KEPT_LIBRARIES:]:
        path.unlink(missing_ok=True)
